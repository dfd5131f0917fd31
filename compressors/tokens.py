"""`VideoTokens`: the visual tokens of one video, and what methods may know about them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

V = TypeVar("V")

# A flag that stays on the device (0-d bool, True = fine), and what to raise when it turns out False.
Check = tuple[Tensor, Callable[[], Exception]]


@dataclass(frozen=True, eq=False)
class VideoTokens:
    """The visual tokens of one video, after projector and pooling.

    T frames (temporal groups), N token places per frame on a grid (h, w), C channels.

    Attributes:
        features: `[T, N, C]`, any float dtype, any device.
        grid: (h, w) with h·w = N, or None when unknown. Never guessed.
        valid: `[T, N]` bool, False where a place holds no token (ragged input), or None when all do.
        counts: valid places per frame, known on the host; required with `valid`.
        query: `[Q, C]` vectors of the question.
        attention: `[T, N]` one layer's attention, one value per token.
        keys: `[T, N, D]` one layer's keys.
        frame_features: `[T, C']` pooled vision-tower output per frame.
        timestamps: `[T]` seconds.
        history: immutable state of a stream, as a previous `Compression.history` gave it.
        planes: further tensors `[T, N, ...]` that follow the tokens (DeepStack features).
        index: which video of a batch this is; seeds `random` so that two videos of one batch differ.
    """

    features: Tensor
    grid: tuple[int, int] | None = None
    valid: Tensor | None = None
    counts: tuple[int, ...] | None = None
    query: Tensor | None = None
    attention: Tensor | None = None
    keys: Tensor | None = None
    frame_features: Tensor | None = None
    timestamps: Tensor | None = None
    history: Any = None
    planes: Mapping[str, Tensor] = field(default_factory=dict)
    index: int = 0
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _checks: list[Check] = field(default_factory=list, repr=False)

    @property
    def frames(self) -> int:
        """T."""
        return self.features.shape[0]

    @property
    def places(self) -> int:
        """N, token places per frame."""
        return self.features.shape[1]

    @property
    def channels(self) -> int:
        """C."""
        return self.features.shape[2]

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def total(self) -> int:
        """Tokens in the video: T·N, or the number of valid places. Known on the host."""
        return sum(self.counts) if self.counts is not None else self.frames * self.places

    @property
    def capacity(self) -> Tensor:
        """Tokens per frame, `int64 [T]` on the features' device."""
        return self.memo("capacity", self._capacity)

    def _capacity(self) -> Tensor:
        if self.valid is None:
            return torch.full((self.frames,), self.places, dtype=torch.int64, device=self.device)
        return self.valid.sum(1)  # `counts`, without a copy from the host

    def memo(self, key: Hashable, compute: Callable[[], V]) -> V:
        """A statistic that several parts need, computed by the first that asks. `key` names it with its parameters."""
        if key not in self._memo:
            self._memo[key] = compute()
        return cast(V, self._memo[key])

    def knows(self, key: Hashable) -> bool:
        """Whether a statistic has been computed already."""
        return key in self._memo

    def check_later(self, passed: Tensor, error: Callable[[], Exception]) -> None:
        """Leave a check for whoever next reads from the device (`compressors.checks`); it costs no read of its own."""
        self._checks.append((passed, error))

    def forget_checks(self) -> None:
        """What an earlier compression left to check says nothing about the next one."""
        self._checks.clear()

    def with_(self, **changes: Any) -> VideoTokens:
        """A copy with fields replaced; memoised statistics go when the features, or which of them count, change."""
        if {"features", "valid", "counts"} & set(changes):
            changes.setdefault("_memo", {})
        changes.setdefault("_checks", [])
        return replace(self, **changes)
