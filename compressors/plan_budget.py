"""`plan_budget`: sizes before any feature exists, for engines that lay out placeholders first; frames for a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from compressors.base import Allocator, Compressor
from compressors.budget import DEFAULT_RETENTION, Budget
from compressors.build import build
from compressors.composition import Composition
from compressors.errors import BudgetError
from compressors.tokens import VideoTokens


@dataclass(frozen=True)
class BudgetPlan:
    """What is known of a compression beforehand.

    Attributes:
        total: K, tokens the video will keep.
        per_frame: tokens of each frame (temporal group), or None when they depend on the features.
        groups: T, temporal groups.
        frames: frames of the video that make up the T groups.
        retention: K / (T·N).
    """

    total: int
    per_frame: tuple[int, ...] | None
    groups: int
    frames: int
    retention: float


def plan_budget(
    frames: int | Literal["auto"],
    places: int,
    method: str | Compressor = "vidcom2",
    *,
    retention: float | None = None,
    tokens: int | None = None,
    tokens_per_frame: float | None = None,
    available: int | None = None,
    auto_retention: float = DEFAULT_RETENTION,
    frames_per_group: int = 1,
    **parts: Any,
) -> BudgetPlan:
    """How many tokens a method will keep of a video of `frames` (T) frames with `places` (N) tokens each.

    With `frames="auto"` the token budget decides how many frames are looked at: a compressed video holds more frames in
    the same number of tokens. T is the largest number of temporal groups of which `tokens` still are the share
    `auto_retention`, so `auto_retention=1` samples what fits uncompressed and 0.25 four times as many frames.

    Args:
        frames: T, temporal groups, or "auto".
        places: N, tokens per temporal group.
        method: a method's name or a compressor, with `**parts` as in `build`.
        retention, tokens, tokens_per_frame: the budget; at most one, and for "auto" it is `tokens`.
        available: for "auto": frames the video has; where they run out, retention rises. None is no limit.
        auto_retention: for "auto": the least share of the tokens to keep; only a budget below it for one group keeps
            less.
        frames_per_group: frames of the video in a temporal group: 2 for the Qwen models. "auto" samples whole groups,
            except from a video that has not even one.

    Raises:
        BudgetError: a budget out of range, sizes below 1, a method whose total depends on the features, or "auto"
            without `tokens`.

    Example:
        >>> plan_budget(32, 196, "vidcom2", retention=0.25).total
        1568
        >>> plan_budget(4, 10, "one_per_block", tokens=10).per_frame
        (3, 2, 3, 2)
        >>> plan = plan_budget("auto", 196, tokens=1568, available=900)
        >>> plan.frames, plan.retention
        (32, 0.25)
    """
    if frames != "auto" and (isinstance(frames, str) or frames < 1):
        raise BudgetError(f"frames={frames} must be at least 1, or 'auto'.")
    if places < 1 or frames_per_group < 1:
        raise BudgetError(f"places={places} and frames_per_group={frames_per_group} must both be at least 1.")
    compressor = build(method, **parts)
    if not compressor.exact:
        raise BudgetError(
            f"{compressor.title} does not keep an exact number of tokens, so nothing is known beforehand: "
            f"use a method other than none and without _released or _paper (for all tokens of fewer frames: any exact "
            f"method with auto_retention=1, which leaves them as they are)."
        )
    budget = Budget(retention, tokens, tokens_per_frame)
    groups = _groups(budget, places, available, auto_retention, frames_per_group) if frames == "auto" else frames
    sampled = groups * frames_per_group
    if frames == "auto" and available is not None:
        sampled = min(sampled, available)
    total = budget.resolve(groups, places)
    per_frame = _per_frame(compressor, groups, places, total)
    return BudgetPlan(total, per_frame, groups, sampled, total / (groups * places))


def _groups(budget: Budget, places: int, available: int | None, least: float, frames_per_group: int) -> int:
    """T for `frames="auto"`."""
    if budget.tokens is None:
        raise BudgetError("frames='auto' chooses frames for a number of tokens: give the budget as tokens=2048, say.")
    if not 0 < least <= 1:
        raise BudgetError(f"auto_retention={least} is outside (0, 1]: 0.25 looks at four times the frames.")
    if available is not None and available < 1:
        raise BudgetError(f"available={available}: the video must have at least 1 frame.")
    # What 0.1 cannot say exactly in binary must not cost a frame.
    affordable = math.floor(budget.tokens / (places * least) + 1e-9)
    if available is not None:
        affordable = min(affordable, available // frames_per_group)
    return max(1, affordable)


def _per_frame(compressor: Compressor, frames: int, places: int, total: int) -> tuple[int, ...] | None:
    """Tokens of each frame where they are known beforehand."""
    if total == frames * places:
        return (places,) * frames
    allocator: Allocator | None = compressor.allocator if isinstance(compressor, Composition) else None
    if allocator is None or not allocator.known_beforehand:
        return None
    budgets = allocator(VideoTokens(torch.empty(frames, places, 0)), None, total)
    return tuple(budgets.tolist())
