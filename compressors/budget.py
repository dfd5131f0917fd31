"""How many tokens a video may keep: decided once, on the host, before any score exists."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from compressors.errors import BudgetError

DEFAULT_RETENTION = 0.25


@dataclass(frozen=True)
class Budget:
    """A budget as the user states it: at most one of the three; all None means retention 0.25.

    Attributes:
        retention: share of the visual tokens kept, in (0, 1].
        tokens: tokens kept per video, at least 1.
        tokens_per_frame: mean tokens kept per frame (temporal group), above 0.

    Raises:
        BudgetError: two are given, or one is out of range.
    """

    retention: float | None = None
    tokens: int | None = None
    tokens_per_frame: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) > 1:
            listing = ", ".join(f"{name}={value}" for name, value in given.items())
            raise BudgetError(f"two budgets given ({listing}): keep one of them.")
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise BudgetError(f"{name}={value!r} is not a finite number.")
        if self.retention is not None and not 0 < self.retention <= 1:
            raise BudgetError(f"retention={self.retention} is outside (0, 1]: 0.25 keeps a quarter of the tokens.")
        if self.tokens is not None and (self.tokens < 1 or self.tokens != int(self.tokens)):
            raise BudgetError(f"tokens={self.tokens} must be a whole number of at least 1.")
        if self.tokens_per_frame is not None and self.tokens_per_frame <= 0:
            raise BudgetError(f"tokens_per_frame={self.tokens_per_frame} must be above 0.")

    def resolve(self, frames: int, places: int, total: int | None = None) -> int:
        """K, the number of tokens a video keeps: `min(total, max(1, round(retention * total)))`.

        Args:
            frames: T, temporal groups of the video.
            places: N, token places per frame.
            total: tokens in the video when some places are empty; T·N otherwise.
        """
        total = frames * places if total is None else total
        if self.tokens is not None:
            wanted = int(self.tokens)
        elif self.tokens_per_frame is not None:
            wanted = round(self.tokens_per_frame * frames)
        else:
            wanted = round((DEFAULT_RETENTION if self.retention is None else self.retention) * total)
        return min(total, max(1, wanted))

    def share(self, frames: int, places: int, total: int | None = None) -> float:
        """The retention this budget states, before it is rounded to whole tokens; at most 1."""
        total = frames * places if total is None else total
        if self.tokens is not None:
            return min(1.0, self.tokens / total)
        if self.tokens_per_frame is not None:
            return min(1.0, self.tokens_per_frame * frames / total)
        return DEFAULT_RETENTION if self.retention is None else self.retention


@dataclass(frozen=True, eq=False)
class FrameBudgets:
    """What a selector may spend.

    Attributes:
        total: K, known on the host.
        per_frame: `int64 [T]` with sum K, or None when the selector spends K over the whole video as it likes.
        max_per_frame: host-side upper bound of `per_frame` (for loops over picks).
    """

    total: int
    per_frame: Tensor | None
    max_per_frame: int
