"""`task=evaluate` on the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from adapters.micro import clip_path, load_micro
from adapters.prompting import answer, prompt
from adapters.video import read_video
from experiments.datasets import Sample, dataset_from
from experiments.evaluate import batches
from experiments.results import commit
from experiments.seeding import reseeded
from experiments.summary import compare, summarise
from tests.experiments.conftest import Command
from vidpress import build, press

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Clips are not written into the user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    (path,) = folder.rglob("result.json")
    return json.loads(path.read_text()), lines_of(path.with_name("samples.jsonl"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sorted, and without what no two runs share."""
    plain = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return sorted(plain, key=lambda line: (line["run"], line["id"]))


def test_a_table_with_everything_in_it(vidpress: Command) -> None:
    code, out, err, folder = vidpress("task=evaluate", "data.clips=3", "retention=0.1", "allocator=uniform")
    assert code == 0, err
    result, lines = read(folder)
    assert result["label"] == "vidcom2+uniform"
    assert list(result["runs"]) == ["vidcom2+uniform", "none", "random"]
    assert result["runs"]["none"]["accuracy"] == 1.0, "the embedded model answers everything"
    assert len(lines) == 3 * 3 * 7
    for name, run in result["runs"].items():
        assert (run["n"], run["failed"]) == (21, 0)
        assert run["right"] == sum(line["right"] for line in lines if line["run"] == name)
        assert len(run["kinds"]) == 7
        assert set(run["seconds"]) == {"decode_video", "encode", "compress", "prefill", "decode"}
        assert run["retention"] == pytest.approx(1.0 if name == "none" else 0.1, abs=0.01)
        assert name in out
    assert result["comparisons"]["none"]["won"] == 0
    assert result["comparisons"]["random"]["n"] == 21
    assert result["seed"] == 0
    assert result["commit"] == commit()
    budgets = [line["budgets"] for line in lines if "budgets" in line and line["run"] == "vidcom2+uniform"]
    assert [len(b) for b in budgets] == [8, 16, 32]
    assert all(max(b) - min(b) <= 1 for b in budgets)


def test_answers_are_those_of_a_single_question(vidpress: Command) -> None:
    *_, folder = vidpress("task=evaluate", "data.clips=2", "retention=0.1", "task.against=[]", "task.batch=4")
    _, lines = read(folder)
    model, processor = load_micro()
    data = {"name": "micro", "clips": 2, "seed": 0, "questions": None, "sizes": None, "folder": None}
    dataset = dataset_from(OmegaConf.create(data))
    for sample, line in zip(dataset.samples, lines, strict=True):
        inputs = prompt(processor, sample.question, read_video(dataset.path(sample)))
        with press(model, "vidcom2", retention=0.1):
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        assert (line["id"], line["answer"]) == (sample.id, answer(processor, inputs, output))


def test_a_killed_run_goes_on_and_gives_the_same_table(tmp_path: Path, vidpress: Command) -> None:
    settings = ("task=evaluate", "data.clips=8", "retention=0.1", "data.sizes=[16x112x112]")
    stopped = tmp_path / "stopped"
    command = [sys.executable, str(ROOT / "run.py"), *settings, f"task.folder={stopped}"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = stopped / "samples.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = lines_of(journal)
    assert 0 < len(before) < 8 * 7 * 3
    assert not (stopped / "result.json").exists()
    # Killed in the middle of a batch, too.
    journal.write_text("".join(json.dumps(line) + "\n" for line in before[:-3]) + json.dumps(before[-3])[:20])

    code, _, err, _ = vidpress(*settings, f"task.folder={stopped}")
    assert code == 0, err
    code, _, err, _ = vidpress(*settings, f"task.folder={tmp_path / 'whole'}")
    assert code == 0, err
    (resumed, lines), (whole, others) = read(stopped), read(tmp_path / "whole")
    assert untimed(lines) == untimed(others)
    assert lines[: len(before) - 3] == before[:-3], "nothing is done twice"
    for name in whole["runs"]:
        mine, theirs = dict(resumed["runs"][name]), dict(whole["runs"][name])
        assert mine.pop("seconds").keys() == theirs.pop("seconds").keys()
        assert mine == theirs
    assert resumed["comparisons"] == whole["comparisons"]

    code, _, err, _ = vidpress(*settings, f"task.folder={stopped}", "retention=0.2")
    assert code == 2
    assert "retention: 0.1 there, 0.2 here" in err


def test_stopping_by_hand_says_how_to_go_on(vidpress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.evaluate.Runner._answer", stop)
    code, _, err, folder = vidpress("task=evaluate", "data.clips=1", "hydra.run.dir=here")
    assert code == 130
    assert "task.folder=" in err
    assert (folder / "here" / "run.json").exists()


def test_one_broken_video_is_counted_and_does_not_stop_the_run(tmp_path: Path, vidpress: Command) -> None:
    clip = json.loads(clip_path().with_suffix(".json").read_text())["questions"]
    (tmp_path / "broken.mp4").write_text("no video")
    rows = [{"video": "broken.mp4", "question": "What?", "answer": "x", "kind": "lost"}]
    rows += [{"video": str(clip_path()), **{k: q[k] for k in ("question", "answer")}} for q in clip]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, err, folder = vidpress("task=evaluate", "data=manifest", "data.path=q.jsonl", "task.against=none")
    assert code == 0, err
    result, lines = read(folder)
    assert (result["runs"]["none"]["n"], result["runs"]["none"]["failed"]) == (len(clip), 1)
    assert result["runs"]["none"]["accuracy"] == 1.0
    errors = [line["error"] for line in lines if line["error"]]
    assert len(errors) == 2
    assert "broken.mp4" in out
    assert all("broken.mp4" in error for error in errors)


def test_nothing_but_failures_is_an_error(tmp_path: Path, vidpress: Command) -> None:
    (tmp_path / "README.md").write_text("no video")
    (tmp_path / "q.jsonl").write_text(json.dumps({"video": "README.md", "question": "What?", "answer": "x"}))
    code, out, err, _ = vidpress("task=evaluate", "data=manifest", "data.path=q.jsonl", "task.against=null")
    assert code == 2
    assert "README.md" in out
    assert "not one sample" in err


def test_singles_share_batches_and_spans_count(tmp_path: Path, vidpress: Command) -> None:
    """One question per video: videos of one shape go through the model together."""
    question = json.loads(clip_path().with_suffix(".json").read_text())["questions"][0]
    about = {"video": str(clip_path()), "question": question["question"], "answer": question["answer"]}
    rows = [{**about, "start": i / 100} for i in range(3)] + [{**about, "end": 2.0}, {**about, "start": 90}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, _, err, folder = vidpress("task=evaluate", "data=manifest", "data.path=q.jsonl", "frames=16")
    assert code == 0, err
    result, lines = read(folder)
    assert result["runs"]["vidcom2"]["n"] == 4
    assert "nothing is shown from 90.0" in next(line["error"] for line in lines if line["error"])
    assert all(sum(line["budgets"]) == line["kept"] for line in lines if line["error"] is None)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("data=none",), "write data=micro or data=manifest"),
        (("task.against=[nothing]",), "unknown method 'nothing'"),
        (("task.batch=0",), "task.batch=0 must be a whole number"),
        (("task.batch=null",), "task.batch=None must be a whole number"),
        (("task.folder=/proc/none",), "cannot be written"),
        (("compressor=fastvid",), "pool_head"),
    ],
)
def test_what_cannot_be_is_said_first(vidpress: Command, overrides: tuple[str, ...], told: str) -> None:
    code, _, err, _ = vidpress("task=evaluate", *overrides)
    assert code == 2
    assert told in err


def test_batches() -> None:
    def about(*videos: str) -> list[Sample]:
        return [Sample(f"{i}{video}", video, "?", "!") for i, video in enumerate(videos)]

    def names(found: list[list[Sample]]) -> list[str]:
        return ["".join(sample.video for sample in batch) for batch in found]

    assert names(list(batches(about(*"aaaaabcccde"), 3))) == ["aaa", "aa", "ccc", "bde"]
    assert names(list(batches(about(*"abcd"), 2))) == ["ab", "cd"]


def test_chance_differs_from_video_to_video() -> None:
    random = build("random", seed=5)
    assert reseeded(random, 0) == random
    draws = {reseeded(random, n, run).selector.seed for n in range(4) for run in range(3)}  # type: ignore[attr-defined]
    assert len(draws) == 12
    plain = build("vidcom2")
    assert reseeded(plain, 3) is plain


def test_numbers_from_lines() -> None:
    def line(name: str, right: bool | None, kind: str = "a") -> dict[str, Any]:
        error = "no video" if right is None else None
        told = {"run": "x", "id": name, "video": name, "kind": kind, "right": right, "error": error}
        return {**told, "visual": 100, "kept": 25, "seconds": {"prefill": 0.5}}

    mine = [line("1", True), line("2", True), line("3", False, "b"), line("4", None)]
    theirs = [line("1", True), line("2", False), line("3", False, "b"), line("4", True)]
    summary = summarise(mine)
    assert (summary["n"], summary["right"], summary["failed"]) == (3, 2, 1)
    assert summary["kinds"]["b"]["accuracy"] == 0.0
    assert (summary["retention"], summary["seconds"]) == (0.25, {"prefill": 0.5})
    pair = compare(mine, theirs)
    assert pair is not None
    assert (pair["n"], pair["won"], pair["lost"], pair["relative"]) == (3, 1, 0, 2.0)
    assert pair["difference"] == pytest.approx(1 / 3)
    assert compare(mine, [line("9", True)]) is None
    assert summarise([line("4", None)])["accuracy"] is None
