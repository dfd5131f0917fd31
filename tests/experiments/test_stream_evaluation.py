"""`task=evaluate memory=…`: one pass per video, questions at their times."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adapters.video import read_video
from experiments.datasets import Dataset, Sample
from experiments.micro.codec import write_clip
from experiments.stream_evaluation import Watch, streams_of


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
        return SimpleNamespace(seconds=0.5, processed=len(self.frames) // 2 * 2 - before)

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
    watch = Watch(Pen(), 1)  # type: ignore[arg-type]
    moments = watch.moments(dataset, dataset.samples, None)
    next(moments)
    spent = watch.spent()
    assert {key: spent[key] for key in ("encode", "compress", "prefill")} == dict.fromkeys(
        ("encode", "compress", "prefill"), pytest.approx(0.1)
    )
    assert spent["decode_video"] > 0
    assert watch.frame_seconds == 0.5
    next(moments)
    assert watch.spent()["encode"] == pytest.approx(0.1)
