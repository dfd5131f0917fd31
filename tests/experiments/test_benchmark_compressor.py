"""The table of costs: what it measures, and where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressors import build, method_names
from experiments.benchmark_compressor import Cost, memory, table, times, video, write

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_a_video_with_all_that_any_method_needs() -> None:
    tokens = video(9, 12, 8)
    assert tokens.grid == (3, 4)
    assert tokens.frame_features is not None
    for name in method_names():
        build(name).check_requirements(tokens)


def test_a_method_is_measured() -> None:
    taken = times("tome", "4x12x8", ["float32", "bfloat16"], 2)
    assert len(taken) == 2
    assert min(min(each) for each in taken) > 0
    grown, held = memory("vidcom2", "8x36x2048", "float32")
    assert grown >= 0
    assert 0.01 < held < 0.4


def test_the_table_goes_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- costs -->\nold\n<!-- /costs -->\nbelow\n")
    kinds = {("tome", "2x3x4", dtype): Cost(2.0, 8.0, 1.0, 3 << 30, 0.0512) for dtype in ("float32", "bfloat16")}
    write(page, table(kinds, ["tome"], ["2x3x4"]))
    text = page.read_text()
    assert "| `tome` | 4.5 | 8 + 1 | 3,221 (3.0 GiB) | 5.1 % | 4.5 | 8 + 1 |" in text
    assert "2×3×4 bfloat16: held |" in text
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
