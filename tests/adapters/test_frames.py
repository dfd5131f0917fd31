"""Frames that are encoded one by one, joined to videos by what stands between them; masks made of marks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapters.capture import Video
from adapters.errors import UnsupportedError
from adapters.frames import join, runs
from tests.adapters import tiny
from vidpress import press

ROWS = (
    # (token, is it a placeholder): `9` and `8` are marks, `5` is text
    "5 9 v v 8 9 v v 8 5 5 9 v v 8",
    "5 5 5 5 5 5 5 5 5 9 v v v v 8",
)


def prompt(rows: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[7 if token == "v" else int(token) for token in row.split()] for row in rows])
    return ids, ids == 7


def frame(places: int, seed: int) -> Video:
    return Video(torch.full((1, places, 2), float(seed)), (1, places))


def test_frames_with_nothing_but_marks_between_are_one_video() -> None:
    found = runs(*prompt(ROWS), count=6).tolist()
    frames = [frame(2, 0), frame(2, 1), frame(2, 2), frame(4, 3)]
    videos, rows = join(frames, [[0, 1, 2], [3]], found, apart=2)
    assert rows == [[0, 1], [2]]
    assert [tuple(video.features.shape) for video in videos] == [(2, 2, 2), (1, 2, 2), (1, 4, 2)]
    assert videos[0].features[:, 0, 0].tolist() == [0.0, 1.0]


def test_rows_of_one_sample_share_their_videos() -> None:
    found = runs(*prompt(ROWS[:1] * 2), count=6).tolist()
    videos, rows = join([frame(2, i) for i in range(3)], [[0, 1, 2], [0, 1, 2]], found, apart=2)
    assert rows == [[0, 1], [0, 1]]
    assert len(videos) == 2


@pytest.mark.parametrize("row", ["9 v v 8 9 v v v 8", "9 v v 8 6 v v 8"], ids=["sizes", "slices"])
def test_what_makes_no_grid_is_refused(row: str) -> None:
    ids, video = prompt((row,))
    found = runs(ids, video, count=2).tolist()
    with pytest.raises(UnsupportedError, match="slice_mode=False"):
        join([frame(2, 0), frame(int(video.sum()) - 2, 1)], [[0, 1]], found, apart=2)


def test_a_model_that_does_not_generate_is_refused() -> None:
    model = tiny.build(tiny.FAMILIES["gemma4"])
    model.config.text_config.use_bidirectional_attention = "all"
    with pytest.raises(UnsupportedError, match="use_bidirectional_attention='all'"):
        press(model, "vidcom2")
