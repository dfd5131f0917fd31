"""The benchmark of the cacher alone: what it measures and writes; and the same on the command line's own tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import benchmark_cacher
from tests.experiments.conftest import Command
from tests.experiments.test_generate import QUICK, only_result

SIZES = {"layers": 2, "width": 32, "heads": 2, "mlp": 48, "side": 4, "frames": 6, "rounds": 2}
TINY = [f"--{name}={value}" for name, value in SIZES.items()]


def test_a_tiny_tower_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    result = benchmark_cacher.main([*TINY, *files])
    rows = result["rows"]
    assert set(rows) == {
        *(benchmark_cacher.ALONE, benchmark_cacher.BATCH),
        *(f"stc, interval {n}{how}" for n in (2, 4) for how in ("", ", in one call")),
    }
    assert all(len(row["seconds"]) == 2 and row["median"] > 0 for row in rows.values())
    assert rows["stc, interval 4"]["share"] < rows["stc, interval 2"]["share"] < 1
    assert rows["stc, interval 2"]["bar"] == pytest.approx(1.1 * rows["stc, interval 2"]["share"])
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == rows
    assert "| stc, interval 2 |" in (tmp_path / "a.md").read_text()
    assert "2 layers of width 32" in capsys.readouterr().out


def test_graphs_need_a_gpu() -> None:
    with pytest.raises(SystemExit):
        benchmark_cacher.main([*TINY, "--graphs"])


def test_the_cacher_on_the_command_line(vidpress: Command) -> None:
    code, out, err, folder = vidpress("compressor=none", "cacher=stc", "cacher.interval=4", *QUICK)
    assert code == 0, err
    assert only_result(folder)["reuse"] == pytest.approx(0.75 * 0.75)
    assert "56.2% of its places reused (cacher stc)" in out


def test_an_evaluation_tells_cachers_apart(vidpress: Command) -> None:
    code, _, err, folder = vidpress(
        "task=evaluate", "compressor=none", "cacher=stc", "data.clips=1", "task.against=[none,'none+stc(interval=4)']"
    )
    assert code == 0, err
    assert list(only_result(folder)["runs"]) == ["none+stc", "none", "none+stc(interval=4)"]


def test_a_benchmark_counts_what_is_reused(vidpress: Command) -> None:
    code, out, err, folder = vidpress(
        *("task=benchmark", "compressor=stc_pruner", "cacher=stc", "retention=0.3", "frames=8", "max_new_tokens=2"),
        *("task.repeats=1", "task.warmup=0", "task.picture=false", "task.memory=false", "task.published=stc_table1"),
        "task.against=[uncompressed]",
    )
    assert code == 0, err
    result = only_result(folder)
    work = {name: variant["work"]["encode"]["operations"] for name, variant in result["variants"].items()}
    assert work["stc_pruner+stc"] < work["uncompressed"]
    published = {row["method"]: row for row in result["published"]["rows"]}
    assert published["ReKV + STC-Cacher and STC-Pruner"]["encode"]["speed_up"] == pytest.approx(103.7 / 78.3)
    assert "LiveCC + STC-Cacher" in published  # shown at any retention
    assert "(published)" in out
