"""Greedy selection in groups of tokens: each frame under an allocator, else segments of the video or all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.budget import FrameBudgets
from compressors.functional.cosine_rows import CosineRows
from compressors.functional.ragged import indices_of
from compressors.functional.water_filling import water_filling
from compressors.tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class Group:
    """Some groups that are treated at once.

    Attributes:
        rows: similarities within each of the G groups of n tokens.
        scores: `[G, n]` of the token scores, or None.
        budgets: `int64 [G]`.
        picks: host-side upper bound of `budgets`.
    """

    rows: CosineRows
    scores: Tensor | None
    budgets: Tensor
    picks: int


def select_in_groups(
    tokens: VideoTokens,
    scores: Tensor | None,
    budgets: FrameBudgets,
    segment: int | None,
    choose: Callable[[Group], Tensor],
) -> Tensor:
    """Kept flat indices of a selector that chooses within groups, ascending, `int64 [K]`.

    With `budgets.per_frame` each frame is a group. Without, `segment` consecutive frames are one (None: the whole
    video), and the total is shared in proportion to their tokens. As many groups as memory allows are treated at
    once.

    Args:
        tokens: the video.
        scores: `[T, N]` or None.
        budgets: what may be spent.
        segment: frames per group when there is no allocator.
        choose: `Group -> [G, n]` bool with the group's budget of True values.
    """
    if budgets.per_frame is not None:
        length, share, picks = 1, budgets.per_frame, budgets.max_per_frame
    else:
        length = tokens.frames if segment is None else min(segment, tokens.frames)
        share, picks = _share(tokens, budgets.total, length)
    at_once = CosineRows.groups_at_once(length * tokens.places)
    whole = tokens.frames // length
    spans = [(first, min(first + at_once, whole), length) for first in range(0, whole, at_once)]
    if whole * length < tokens.frames:
        spans.append((whole, whole + 1, tokens.frames - whole * length))
    chosen = [
        _choose(
            tokens, scores, share[first:last], picks, slice(first * length, (last - 1) * length + size), size, choose
        )
        for first, last, size in spans
    ]
    return indices_of(torch.cat(chosen), budgets.total)


def _choose(
    tokens: VideoTokens,
    scores: Tensor | None,
    budgets: Tensor,
    picks: int,
    frames: slice,
    length: int,
    choose: Callable[[Group], Tensor],
) -> Tensor:
    """The tokens chosen in some frames, which make groups of `length` frames: bool, flat."""
    groups = budgets.shape[0]
    size = length * tokens.places
    valid = None if tokens.valid is None else tokens.valid[frames].reshape(groups, size)
    rows = CosineRows(tokens.features[frames].reshape(groups, size, tokens.channels), valid)
    part = None if scores is None else scores[frames].reshape(groups, size)
    return choose(Group(rows, part, budgets, min(picks, size))).flatten()


def _share(tokens: VideoTokens, total: int, length: int) -> tuple[Tensor, int]:
    """Budgets of segments of `length` frames in proportion to their tokens, and a host-side bound of them."""
    counts = tokens.counts or (tokens.places,) * tokens.frames
    sizes = [sum(counts[start : start + length]) for start in range(0, tokens.frames, length)]
    whole = torch.nn.functional.pad(tokens.capacity, (0, -tokens.frames % length))
    capacity = whole.view(-1, length).sum(1)  # `sizes`, without a copy from the host
    largest = -(-total * max(sizes) // tokens.total) + 1
    return water_filling(capacity, capacity, total), min(total, largest)
