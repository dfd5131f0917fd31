"""Benchmark requests with the library's own processors, where the `hf` extra is installed."""

from __future__ import annotations

from tests.extras import needs_processors, run


@needs_processors
def test_every_family_in_batches() -> None:
    """Texts, images and videos in any order: a batch answers as one by one, and inputs are those of `prompt`."""
    run("tests.experiments.lmms.with_processors")
