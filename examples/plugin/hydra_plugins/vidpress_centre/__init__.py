"""Hydra finds this by its place and learns where the plugin's YAML is."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class VidpressCentreSearchPath(SearchPathPlugin):
    """Adds `vidpress_centre/conf`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra before it composes."""
        search_path.append(provider="vidpress-centre", path="pkg://vidpress_centre.conf")
