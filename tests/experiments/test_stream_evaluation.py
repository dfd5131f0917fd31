"""`task=evaluate memory=…`: one pass per video, questions at their times."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adapters.micro import clip_path
from adapters.video import read_video
from experiments.datasets import Dataset, Sample
from experiments.micro.codec import write_clip
from experiments.reporting.collect import collect
from experiments.stream_evaluation import Watch, streams_of
from tests.experiments.conftest import Command


class Clip(Dataset):
    """Questions about one file, at some times."""

    name = "clip"

    def __init__(self, file: Path, *moments: tuple[float | None, float | None]) -> None:
        self.file = file
        self.samples = [Sample(f"{n}", f"{n}", "?", "!", start=s, end=e) for n, (s, e) in enumerate(moments)]

    def path(self, sample: Sample) -> Path:
        return self.file


class Pen:
    """In place of a session: notes what it is fed. Frames wait for their pair, as in Qwen2-VL."""

    def __init__(self) -> None:
        self.frames: list[torch.Tensor] = []
        self.times: list[float] = []
        self.calls: list[int] = []

    def feed(self, frames: torch.Tensor, timestamps: list[float]) -> Any:
        before = len(self.frames) // 2 * 2
        self.frames += list(frames)
        self.times += timestamps
        self.calls.append(len(timestamps))
        return SimpleNamespace(processed=len(self.frames) // 2 * 2 - before)

    @property
    def status(self) -> Any:
        spent = SimpleNamespace(last=0.1, median=9.0)
        return SimpleNamespace(stages=dict.fromkeys(("encode", "compress", "extend", "answer"), spent))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twenty frames at eight per second."""
    frames = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None, None] * 12, 64, 1).repeat(64, 2).repeat(3, 3)
    write_clip(tmp_path / "clip.mp4", frames)
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize("fps", [None, 4.0])
def test_a_question_comes_after_all_that_its_clip_shows_and_nothing_else(file: Path, fps: float | None) -> None:
    dataset = Clip(file, (None, 1.0), (None, 0.001), (None, None), (None, 1.0), (None, 1.3))
    (samples,) = streams_of(dataset).values()
    assert [sample.id for sample in samples] == ["1", "0", "3", "4", "2"]
    pen = Pen()
    asked = []
    for _, questions in Watch(pen, 3).moments(dataset, samples, fps):  # type: ignore[arg-type]
        shown = read_video(file, fps=fps, end=questions[0].end)
        assert pen.times == list(shown.timestamps)
        assert torch.equal(torch.stack(pen.frames), shown.frames)
        asked.append([question.id for question in questions])
    assert asked == [["1"], ["0", "3"], ["4"], ["2"]]
    assert max(pen.calls) == 3


def test_another_beginning_is_another_stream(file: Path) -> None:
    dataset = Clip(file, (None, 1.0), (0.5, 1.0), (0.0, 2.0), (0.5, 2.0))
    assert [[s.id for s in samples] for samples in streams_of(dataset).values()] == [["0", "2"], ["1", "3"]]
    pen = Pen()
    for _, (question,) in Watch(pen, 2).moments(dataset, [dataset.samples[1]], None):  # type: ignore[arg-type]
        assert torch.equal(torch.stack(pen.frames), read_video(file, start=0.5, end=question.end).frames)


def test_seconds_are_those_of_the_stages_since_the_question_before(file: Path) -> None:
    """Three feeds of a frame each: the first waits for its pair, so the first two are one step of two frames."""
    dataset = Clip(file, (None, 0.3), (None, 0.5))
    watch = Watch(Pen(), 1, iter([0.0, 0.1, 0.2, 0.9, 1.0, 1.0, 1.0, 1.2]).__next__)  # type: ignore[arg-type]
    moments = watch.moments(dataset, dataset.samples, None)
    next(moments)
    spent = watch.spent()
    assert {key: spent[key] for key in ("encode", "compress", "prefill")} == dict.fromkeys(
        ("encode", "compress", "prefill"), pytest.approx(0.1)
    )
    assert spent["decode_video"] > 0
    assert watch.frame_seconds == pytest.approx((0.1 + 0.7) / 2)
    next(moments)
    assert watch.spent()["encode"] == pytest.approx(0.1)


def read(folder: Path) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return json.loads((folder / "result.json").read_text()), {(line["run"], line["id"]): line for line in lines}


def test_a_stream_with_everything_in_memory_is_answered_like_its_clips(vidpress: Command, tmp_path: Path) -> None:
    data = (
        "task=evaluate",
        "data=micro_stream",
        "data.streams=1",
        "data.frames=64",
        "data.periods=2",
        "max_new_tokens=4",
    )
    data = (
        *data,
        "data.questions=[now_colour,earlier_shape,before_scenes]",
        f"data.folder={tmp_path / 'clips'}",
        "compressor=stc_pruner",
        "retention=0.25",
        "task.against=none",
    )
    for memory in ("none", "full", "window"):
        small = ("memory.recent=96", "task.chunk=6") if memory == "window" else ()
        code, out, err, _ = vidpress(*data, f"memory={memory}", *small, f"task.folder={memory}")
        assert code == 0, err
        assert ("Memory of the session" in out) == (memory != "none")
    (_, clips), (full, streamed), (window, _) = (read(tmp_path / name) for name in ("none", "full", "window"))
    assert clips.keys() == streamed.keys()
    for key, line in streamed.items():
        if key[0] == "none":  # the pruner sees chunks in a stream, and the whole clip otherwise
            assert line["answer"] == clips[key]["answer"]
            assert (line["visual"], line["kept"]) == (clips[key]["visual"],) * 2
            assert line["stream"]["held"] >= line["kept"]
            assert line["stream"]["frames"] == 2 * line["visual"] // 16
    assert {line["video"] for line in streamed.values()} == {"0/64/0"}
    pruned, whole = full["runs"]["stc_pruner"], full["runs"]["none"]
    assert pruned["retention"] == pytest.approx(0.25)
    assert pruned["stream"]["held"] < 0.5 * whole["stream"]["held"]
    assert whole["stream"]["reuse"] is None
    assert whole["stream"]["frame_seconds"] > 0
    assert window["runs"]["none"]["stream"]["largest_held"] < 0.5 * whole["stream"]["largest_held"]

    # A stopped run goes on, and watches again only what it must.
    path = tmp_path / "full" / "samples.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-3]))
    code, _, err, _ = vidpress(*data, "memory=full", "task.folder=full")
    assert code == 0, err
    again = path.read_text().splitlines(keepends=True)
    assert again[: len(lines) - 3] == lines[:-3]
    assert len(again) == len(lines)
    found = collect([tmp_path / "full", tmp_path / "window"]).samples
    assert set(found["settings"]) == {"task.chunk=2, memory=full", "task.chunk=6, memory=window"}
    assert found["device_bytes"].notna().all()


def test_a_published_benchmark_is_scored_by_its_protocol(vidpress: Command, tmp_path: Path) -> None:
    about = {"video": clip_path().name, "question": "Which shape flashed?", "options": ["ring", "cross"], "gt": 0}
    annotations: list[dict[str, Any]] = [
        {**about, "id": 1, "task": "EPM", "realtime": 4},
        {**about, "id": 2, "task": "OCR", "realtime": 2.5},
        {**about, "id": 3, "task": "OCR", "realtime": 1, "video": "none.mp4"},
        {
            "id": 4,
            "task": "REC",
            "video": clip_path().name,
            "activity": "flash",
            "test_info": [{"realtime": 1, "count": 0}],
        },
    ]
    (tmp_path / "ovo_bench_new.json").write_text(json.dumps(annotations))
    command = ("task=evaluate", "data=ovobench", "data.path=ovo_bench_new.json", f"data.videos={clip_path().parent}")
    for memory in ("none", "window"):
        name = f"task.folder={memory}"
        code, out, err, _ = vidpress(*command, "task.against=[]", "max_new_tokens=4", f"memory={memory}", name)
        assert code == 0, err
        assert "Score of ovobench" in out
        result, lines = read(tmp_path / memory)
        run = result["runs"]["vidcom2"]
        assert (run["n"], run["failed"]) == (3, 1)
        scores = run["protocol"]
        assert (scores["n"], scores["unanswered"]) == (4, 1)
        assert scores["tasks"].keys() == {"backward_EPM", "realtime_OCR", "forward_REC"}
        right = lines["vidcom2", "2"]["right"]
        assert scores["tasks"]["realtime_OCR"] == right / 2, "what could not be shown is wrong"
        assert scores["total"] == pytest.approx(sum(scores["groups"].values()) / 3)
        assert "none.mp4: no such file" in lines["vidcom2", "3"]["error"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("frames=16",), "frames=16 samples whole videos"),
        (("positions=contiguous",), "a session numbers positions itself"),
        (("task.chunk=0",), "task.chunk=0 must be a whole number"),
        (("memory.recent=0",), "recent=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_said_first(vidpress: Command, overrides: tuple[str, ...], told: str) -> None:
    code, _, err, _ = vidpress("task=evaluate", "memory=window", "data.clips=1", *overrides)
    assert code == 2
    assert told in err
