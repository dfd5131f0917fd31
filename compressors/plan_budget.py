"""`plan_budget`: sizes before any feature exists, for engines that lay out placeholders first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from compressors.base import Allocator, Compressor
from compressors.budget import Budget
from compressors.build import build
from compressors.composition import Composition
from compressors.errors import BudgetError
from compressors.tokens import VideoTokens


@dataclass(frozen=True)
class BudgetPlan:
    """What is known of a compression beforehand.

    Attributes:
        total: K, tokens the video will keep.
        per_frame: tokens of each frame, or None when they depend on the features.
    """

    total: int
    per_frame: tuple[int, ...] | None


def plan_budget(
    frames: int,
    places: int,
    method: str | Compressor = "vidcom2",
    *,
    retention: float | None = None,
    tokens: int | None = None,
    tokens_per_frame: float | None = None,
    **parts: Any,
) -> BudgetPlan:
    """How many tokens a method will keep of a video of `frames` (T) frames with `places` (N) tokens each.

    Args:
        frames: T, temporal groups.
        places: N, tokens per frame.
        method: a method's name or a compressor, with `**parts` as in `build`.
        retention, tokens, tokens_per_frame: the budget; at most one.

    Raises:
        BudgetError: a budget out of range, sizes below 1, or a method whose total depends on the features.

    Example:
        >>> plan_budget(32, 196, "vidcom2", retention=0.25).total
        1568
        >>> plan_budget(4, 10, "one_per_block", tokens=10).per_frame
        (3, 2, 3, 2)
    """
    if frames < 1 or places < 1:
        raise BudgetError(f"frames={frames} and places={places} must both be at least 1.")
    compressor = build(method, **parts)
    if not compressor.exact:
        raise BudgetError(
            f"{compressor.title} does not keep an exact number of tokens, so nothing is known beforehand: "
            f"use a preset without _released or _paper."
        )
    total = Budget(retention, tokens, tokens_per_frame).resolve(frames, places)
    if total == frames * places:
        return BudgetPlan(total, (places,) * frames)
    allocator: Allocator | None = compressor.allocator if isinstance(compressor, Composition) else None
    if allocator is None or not allocator.known_beforehand:
        return BudgetPlan(total, None)
    budgets = allocator(VideoTokens(torch.empty(frames, places, 0)), None, total)
    return BudgetPlan(total, tuple(budgets.tolist()))
