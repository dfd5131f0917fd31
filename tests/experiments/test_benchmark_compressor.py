"""The table of costs: what it measures, and where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressors import build, method_names
from experiments.benchmark_compressor import Cost, measure, table, video, write

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_a_video_with_all_that_any_method_needs() -> None:
    tokens = video(9, 12, 8)
    assert tokens.grid == (3, 4)
    assert tokens.frame_features is not None
    for name in method_names():
        build(name).check_requirements(tokens)


def test_a_method_is_measured() -> None:
    cost = measure("tome", "4x12x8", "float32", 2)
    assert min(cost.floor, cost.choose, cost.mix) > 0
    assert cost.memory >= 0


def test_the_table_goes_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- costs -->\nold\n<!-- /costs -->\nbelow\n")
    write(page, table({("tome", "2x3x4"): Cost(2.0, 8.0, 1.0, 3 << 30)}, ["tome"], ["2x3x4"]))
    text = page.read_text()
    assert "| `tome` | 4.5 | 8 + 1 | 3,221 (3.0 GiB) |" in text
    assert "old" not in text
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    page.write_text("nothing here\n")
    with pytest.raises(SystemExit, match="has no lines"):
        write(page, "table")


def test_every_exact_method_has_a_row() -> None:
    """`python -m experiments.benchmark_compressor --markdown docs/methods.md` writes them."""
    text = PAGE.read_text()
    assert [name for name in method_names() if build(name).exact and f"\n| `{name}` " not in text] == []
