"""The whole way with the library's own processors, where the `hf` extra is installed."""

from __future__ import annotations

from tests.extras import needs_processors, run


@needs_processors
def test_from_file_to_answer() -> None:
    """mp4 file -> frames -> the family's processor -> generate under press, for every family."""
    run("tests.adapters.from_file_to_answer")
