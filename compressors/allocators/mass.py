"""Budgets in proportion to a mass that every frame has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from compressors.allocators.uniqueness_mass import UniquenessMass
from compressors.allocators.weighted import WeightedAllocator
from compressors.base import FrameScorer
from compressors.errors import BuildError
from compressors.registry import register
from compressors.tokens import VideoTokens

_NOISE = 1e-5  # smaller masses are float32 rounding: frames that differ by no more are equal


@register("allocator", "mass")
@dataclass(frozen=True)
class MassProportional(WeightedAllocator):
    """`b_t = min(capacity_t, λ·capacity_t·m_t^power)` with a mass m_t ≥ 0 per token of frame t, and λ such that the
    budgets sum to the total.

    Where Frame Compression Adjustment moves a bounded share on top of the uniform split, here nothing is left of that
    split but the floor: a frame without mass gets `min_tokens`. Equal masses, and none at all, are the uniform split.

    Cost: that of the frame scorer. No host reads.

    Attributes:
        frame_scorer: masses per token, 0 or more; an instance, a registered name, or `{"name": …, params}`.
        power: 0 is the uniform split, 1 in proportion; more makes the heaviest frames heavier.
        min_tokens: least budget of a frame, as long as the total allows it: `min(min_tokens, K // T)`.
    """

    frame_scorer: FrameScorer | str | Mapping[str, Any] = field(default_factory=UniquenessMass)
    power: float = 1.0
    min_tokens: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.power < float("inf"):
            raise BuildError(f"allocator {self.name!r}: power={self.power} must be a number, 0 or more.")
        super().__post_init__()

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        mass = self._scorer(tokens).double().nan_to_num(nan=0.0, neginf=0.0).clamp_min(_NOISE)
        # Relative to the heaviest frame, so that no power overflows.
        return self.in_proportion((mass / mass.amax()) ** self.power, tokens, total)
