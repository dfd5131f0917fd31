"""`data=micro_stream`: generated streams with questions about now, earlier and before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from adapters.video import read_video
from compressors.errors import InputError
from experiments.datasets import Dataset, Sample, dataset_from
from experiments.datasets.micro_stream import KINDS
from experiments.micro.clips import COLOURS, PAIR, render
from experiments.micro.streams import endless_frames, render_stream, sample_stream


def load(folder: Path, **changes: Any) -> Dataset:
    settings = {"name": "micro_stream", "streams": 3, "seed": 0, "frames": 96, "periods": 2}
    return dataset_from(OmegaConf.create({**settings, "questions": None, "folder": str(folder), **changes}))


def test_a_stream_changes_its_moving_object_and_nothing_else() -> None:
    spec = sample_stream(np.random.default_rng(3), 96, 3)
    frames = render_stream(spec)
    assert spec.ends == (32, 64, 96)
    assert frames.shape == (96, 112, 112, 3)
    for period, (start, end) in zip(spec.periods, ((0, 32), (32, 64), (64, 96)), strict=True):
        assert np.array_equal(frames[start:end], render(period)[start:end])
    first, second, _ = spec.periods
    assert (first.cuts, first.flash_pair, first.distractors) == (second.cuts, second.flash_pair, second.distractors)
    assert (first.mover_start, first.mover_colour) != (second.mover_start, second.mover_colour)


def test_answers_are_those_of_the_moment(tmp_path: Path) -> None:
    dataset = load(tmp_path, streams=12)
    assert [s.samples for s in (load(tmp_path, streams=3),)] == [dataset.samples[: len(load(tmp_path).samples)]]
    for sample in dataset.samples:
        spec = dataset._specs[dataset.stream(sample)]  # type: ignore[attr-defined]
        end = int(sample.video.rpartition("-")[2].rstrip("]"))
        period = spec.periods[spec.ends.index(end)]
        flash = spec.periods[0].flash_pair * PAIR
        assert sample.kind.startswith("now") or sample.kind == "before_scenes" or flash + PAIR <= end
        if sample.kind == "now_colour":
            assert sample.expected == period.mover_colour
        if sample.kind == "before_scenes":
            assert int(sample.expected) == sum(cut * PAIR < end for cut in period.cuts)
        if sample.kind == "earlier_part":
            assert sample.expected == ("beginning", "middle", "end")[int(3 * (flash + 1) / end)]
    assert {s.kind for s in dataset.samples} == set(KINDS)
    assert {s.expected.startswith("not ") for s in dataset.samples if s.kind == "before_flash"} == {True, False}


def test_a_clip_ends_at_its_question(tmp_path: Path) -> None:
    dataset = load(tmp_path, streams=1, questions="now_colour")
    first, last = dataset.samples
    assert dataset.path(first) == dataset.path(last)
    shown = read_video(dataset.path(first), end=first.end).frames
    assert len(shown) == 48
    assert len(read_video(dataset.path(last), end=last.end).frames) == 96
    colour = np.array(COLOURS[first.expected])
    assert (np.abs(shown[-1].numpy().astype(int) - colour).max(-1) < 40).mean() > 0.01, "it is in sight"


def test_has_it_happened_before(tmp_path: Path) -> None:
    dataset = load(tmp_path)

    def right(expected: str, reply: str) -> bool:
        return dataset.is_right(Sample("x", "v", "?", expected, kind="before_flash"), reply)

    assert right("ring", "Ring.")
    assert right("not ring", "cross")
    assert not right("ring", "cross")
    assert not right("not ring", "ring")
    assert not right("not ring", "a cat"), "no shape is no answer"


def test_endless_frames_repeat() -> None:
    stream = endless_frames(0, clips=2, frames=16)
    frames = [next(stream) for _ in range(64)]
    assert all(np.array_equal(a, b) for a, b in zip(frames[:32], frames[32:], strict=True))
    assert not np.array_equal(frames[0], frames[16])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frames": 31}, "must be even and at least 16"),
        ({"frames": 64, "periods": 5}, "at least 16 for each"),
        ({"streams": 0}, "data.streams=0"),
        ({"questions": ["then"]}, "no 'then'; known: now_shape"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(tmp_path, **changes)
