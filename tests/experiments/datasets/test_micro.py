"""`data=micro`: held-out clips, the same on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from adapters.video import read_video
from compressors.errors import InputError
from experiments.datasets import Dataset, dataset_from
from experiments.micro.questions import QUESTION_NAMES


def load(folder: Path, **changes: Any) -> Dataset:
    settings = {"name": "micro", "clips": 3, "seed": 0, "questions": None, "sizes": None, "folder": str(folder)}
    return dataset_from(OmegaConf.create(settings | changes))


def test_clips_are_the_same_every_time_and_differ_by_seed(tmp_path: Path) -> None:
    one, again, other = load(tmp_path), load(tmp_path), load(tmp_path, seed=1)
    assert one.samples == again.samples
    assert len(one.samples) == 3 * len(QUESTION_NAMES)
    assert len({sample.id for sample in [*one.samples, *other.samples]}) == 2 * len(one.samples)
    assert [s.expected for s in one.samples] != [s.expected for s in other.samples]


def test_files_are_made_once(tmp_path: Path) -> None:
    dataset = load(tmp_path / "cache", clips=1)
    path = dataset.path(dataset.samples[0])
    assert read_video(path).frames.shape == (16, 112, 112, 3)
    before = path.stat().st_mtime_ns
    assert dataset.path(dataset.samples[-1]) == path
    assert path.stat().st_mtime_ns == before
    assert [file.name for file in path.parent.iterdir()] == [path.name], "no partial file is left"


def test_more_clips_begin_with_the_same(tmp_path: Path) -> None:
    assert load(tmp_path, clips=5).samples[: 3 * len(QUESTION_NAMES)] == load(tmp_path).samples


def test_kinds_and_sizes(tmp_path: Path) -> None:
    dataset = load(tmp_path, questions=["scenes"], sizes="64x112x112", clips=2)
    assert [sample.kind for sample in dataset.samples] == ["scenes", "scenes"]
    assert read_video(dataset.path(dataset.samples[1])).frames.shape == (64, 112, 112, 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clips": 0}, "data.clips=0 must be a whole number, 1 or more"),
        ({"seed": -1}, "data.seed=-1"),
        ({"questions": ["flash"]}, "no 'flash'; known: flash_shape"),
        ({"sizes": ["8x8x8"]}, "no '8x8x8'; known: 16x112x112"),
        ({"questions": []}, "empty list"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(tmp_path, **changes)
