"""`task=report` on the command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.conftest import Command
from tests.experiments.reporting.synthetic import write_failed, write_run

FILES = {"report.csv", "report.parquet", "report.md", "report.html", "accuracy.png", "latency.png", "budgets.png"}


def test_a_report_of_everything_here(vidpress: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "multirun" / "0", retention=0.1, videos=3)
    write_run(tmp_path / "multirun" / "1", retention=0.25, videos=3)
    write_failed(tmp_path / "outputs" / "day" / "0", "the device is out of memory")
    code, out, err, folder = vidpress("task=report", "task.published=vidcom2_table6")
    assert code == 0, err
    (page,) = folder.rglob("report.html")
    assert {path.name for path in page.parent.iterdir()} >= FILES
    assert len(pd.read_parquet(page.with_name("report.parquet"))) == 5
    assert page.read_text().count("data:image/png;base64,") == 4
    for said in ("the device is out of memory", "Published figures of other models", "2 of 3 jobs"):
        assert said in page.read_text()
        assert said in page.with_name("report.md").read_text()
    for said in ("vidcom2", "retention 0.25", "failed: outputs/day/0: the device is out of memory"):
        assert said in out
    assert f"written: {page}" in err


def test_a_sweep_and_its_report(vidpress: Command, tmp_path: Path) -> None:
    data = (f"data.folder={tmp_path / 'clips'}", "data.clips=2", "data.questions=[flash_shape,scenes]")
    code, _, err, _ = vidpress("-m", "task=evaluate", "compressor=vidcom2,average_pool", "retention=0.1,2", *data)
    assert code == 2
    assert "retention=2 is outside" in err
    code, _, err, _ = vidpress("task=report", "task.folder=mine")
    assert code == 0, err
    table = pd.read_csv(tmp_path / "mine" / "report.csv").set_index("method")
    assert set(table.index) == {"none", "random", "vidcom2", "average_pool"}
    measured = {}
    for path in (tmp_path / "multirun").rglob("result.json"):
        measured |= json.loads(path.read_text())["runs"]
    for name, summary in measured.items():
        row = table.loc[name]
        assert (row["n"], row["failed"], row["right"]) == (4, 0, summary["right"])
        assert [row["low"], row["high"]] == pytest.approx(summary["interval"])
        assert row["retention"] == pytest.approx(summary["retention"])
        assert row["prefill"] > 0
    assert (tmp_path / "mine" / "report.md").read_text().count("retention=2 is outside") == 2


def test_a_report_of_some_in_a_folder_of_choice(vidpress: Command, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_run(tmp_path / name, f"method_{name}", videos=3)
    code, _, err, _ = vidpress(
        "task=report",
        "task.runs=[a,c]",
        "task.folder=mine",
        "task.questions=[scenes]",
        "task.title=Scenes",
        "task.against=none",
    )
    assert code == 0, err
    table = pd.read_csv(tmp_path / "mine" / "report.csv")
    assert set(table["method"]) == {"none", "random", "method_a", "method_c"}
    assert set(table["n"]) == {3}
    assert "minus_none" in table.columns
    assert "minus_random" not in table.columns
    assert "<h1>Scenes</h1>" in (tmp_path / "mine" / "report.html").read_text()


def test_several_models_have_pictures_each(vidpress: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "0", videos=3)
    other = write_run(tmp_path / "runs" / "1", videos=3) / "result.json"
    other.write_text(other.read_text().replace('"model": "micro"', '"model": "qwen2vl"'))
    code, _, err, _ = vidpress("task=report", "task.runs=runs", "task.folder=mine")
    assert code == 0, err
    assert (tmp_path / "mine" / "micro_micro" / "accuracy.png").exists()
    text = (tmp_path / "mine" / "report.md").read_text()
    assert "(qwen2vl_micro/accuracy.png)" in text
    assert text.count("It is a test bed") == 1


def test_failures_alone_make_a_report(vidpress: Command, tmp_path: Path) -> None:
    write_failed(tmp_path / "runs" / "0", "no such file")
    code, out, err, _ = vidpress("task=report", "task.runs=runs", "task.folder=mine")
    assert code == 0, err
    assert "no such file" in out
    assert "no such file" in (tmp_path / "mine" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "outputs: no runs of task=evaluate here"),
        (["task.runs=nowhere"], "nowhere: no such folder"),
        (["task.runs=runs", "task.questions=scnes"], "Did you mean scenes?"),
        (["task.runs=runs", "task.published=table6"], "unknown published table 'table6'"),
        (["task.runs=3"], "3: write a name, or several as [one, two]"),
    ],
)
def test_mistakes(vidpress: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    write_run(tmp_path / "runs", videos=3)
    code, _, err, _ = vidpress("task=report", *arguments)
    assert code == 2
    (line,) = err.splitlines()
    assert message in line


def test_a_missing_extra_is_named(vidpress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else find(name, *a))
    code, _, err, _ = vidpress("task=report")
    assert code == 2
    assert "task=report needs pyarrow: pip install 'vidpress[report]'" in err
