"""A stable top-k per frame, with another k in every frame, in one launch."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def select_kernel(
    scores,  # [frames, places] float32
    per_frame,  # [frames] int64
    ends,  # [frames] int64, its cumulative sum
    keep,  # [total] int64
    places,
    total,
    PLACES: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """A program takes one frame: a token's rank is how many others come before it, counted OTHERS at a time.

    NaN counts as the highest score, so that ranks are a permutation whatever the scores are.
    """
    frame = tl.program_id(0)
    place = tl.arange(0, PLACES)
    inside = place < places
    own = tl.load(scores + frame * places + place, mask=inside, other=float("-inf"))
    own = tl.where(own == own, own, float("inf"))
    rank = tl.zeros([PLACES], dtype=tl.int32)
    for first in range(0, places, OTHERS):
        other = first + tl.arange(0, OTHERS)
        score = tl.load(scores + frame * places + other, mask=other < places, other=float("-inf"))
        score = tl.where(score == score, score, float("inf"))
        higher = score[None, :] > own[:, None]
        sooner = (score[None, :] == own[:, None]) & (other[None, :] < place[:, None])
        ahead = (higher | sooner) & (other < places)[None, :]
        rank += tl.sum(ahead.to(tl.int32), axis=1)
    budget = tl.load(per_frame + frame)
    start = tl.load(ends + frame) - budget
    chosen = inside & (rank < budget)
    slot = start + tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    tl.store(keep + slot, (frame * places + place).to(tl.int64), mask=chosen & (slot < total))
