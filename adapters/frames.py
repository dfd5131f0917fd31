"""Frames that the vision tower gives one by one, joined to videos by how they stand in the prompt.

Some processors write a video as images in a row and do not say which of them belong together. In the prompt the frames
of a video follow each other with nothing but their marks between; anything else between two of them starts a new video.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.capture import Video
from adapters.errors import UnsupportedError

_FIRST = 1 << 20  # tokens before a row's first frame: more than any gap counts


def runs(ids: Tensor, video: Tensor, count: int) -> Tensor:
    """Where runs of placeholders begin; nothing is read on the host.

    Args:
        ids: `[B, L]`.
        video: `[B, L]` bool, video placeholders.
        count: runs there are at most.

    Returns:
        `[count, 2]` per run, row by row: how many tokens stand between it and the row's previous run, and the token
        just before it. What lies behind the last run means nothing.
    """
    ids, length = ids.to(video.device), video.shape[1]
    columns = torch.arange(length, device=video.device).expand_as(video)
    last = torch.where(video, columns, -_FIRST).cummax(1).values
    last = torch.nn.functional.pad(last[:, :-1], (1, 0), value=-_FIRST)
    between = columns - last - 1
    begins = (video & (between > 0)).flatten()
    found = torch.sort(begins.logical_not().to(torch.uint8), stable=True).indices[:count]
    return torch.stack([between.flatten()[found], ids.roll(1, 1).flatten()[found]], dim=1)


def join(
    frames: Sequence[Video], rows: Sequence[Sequence[int]], found: Sequence[Sequence[int]], apart: int
) -> tuple[list[Video], list[list[int]]]:
    """Videos of more than one frame.

    Args:
        frames: each as a video of one frame.
        rows: per row of the batch, indices into `frames`; copies of a row (beams) have equal ones.
        found: `runs` on the host.
        apart: tokens between two frames of one video.

    Returns:
        The videos, and per row indices into them.

    Raises:
        UnsupportedError: frames that follow each other have different sizes, or different marks.
    """
    videos: list[Video] = []
    known: dict[tuple[int, ...], int] = {}
    joined: list[list[int]] = []
    upcoming = 0
    for row in rows:
        groups: list[list[int]] = []
        for number, index in enumerate(row):
            between, mark = found[upcoming + number]
            if not groups or between != apart:
                groups.append([index])
                continue
            before = frames[groups[-1][-1]]
            if before.grid != frames[index].grid or mark != found[upcoming + number - 1][1]:
                raise UnsupportedError(
                    "the frames of a video are cut into slices or differ in size, so that they make no [T, h, w] grid: "
                    "process videos with slice_mode=False (or max_slice_nums=1) and stack_frames=1, and put text "
                    "between two videos."
                )
            groups[-1].append(index)
        upcoming += len(row)
        for group in groups:
            if tuple(group) not in known:
                known[tuple(group)] = len(videos)
                videos.append(_video([frames[index] for index in group]))
        joined.append([known[tuple(group)] for group in groups])
    return videos, joined


def _video(frames: Sequence[Video]) -> Video:
    features = torch.cat([frame.features for frame in frames]) if len(frames) > 1 else frames[0].features
    return Video(features, frames[0].grid)
