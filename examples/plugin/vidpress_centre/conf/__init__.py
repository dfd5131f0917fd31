"""The YAML of this plugin, found by Hydra."""
