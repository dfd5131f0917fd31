"""What the methods share that keep the most attended tokens and merge the rest: FastVID, HoliTom, FlashVID."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from compressors.base import Allocator, Compressor
from compressors.errors import BuildError
from compressors.registry import make
from compressors.requirements import Attention, Requirement
from compressors.tokens import VideoTokens

AllocatorSpec = Allocator | str | Mapping[str, Any] | None


class AttentionMerging(Compressor):
    """A method that is one piece: it ranks tokens by a vision tower's attention and merges what it does not keep.

    Attributes:
        layer, row: which attention (`Attention`).
        rounding: "exact" keeps exactly K; any other word is a release's own counting.
    """

    layer: int
    row: Literal["cls", "column_mean", "pool_head"]
    rounding: str

    @property
    def requirements(self) -> frozenset[Requirement]:
        # One property for both classes: `super()` in properties is beyond torch.compile.
        inner = frozenset() if self.frames_by is None else self.frames_by.requirements
        return inner | {Attention(self.layer, self.row)}

    @property
    def frames_by(self) -> Allocator | None:
        """The allocator inside, if there is one."""
        return None

    @property
    def exact(self) -> bool:
        return self.rounding == "exact"

    @property
    def merges(self) -> bool:
        return True


class WithAllocator(AttentionMerging):
    """One whose frames have budgets, which an allocator may set.

    Attributes:
        allocator: an instance, a registered name, or `{"name": …, params}`; None is the method's own even share.
    """

    allocator: AllocatorSpec

    def __post_init__(self) -> None:
        if self.allocator is None:
            return
        allocator = cast(Allocator, make("allocator", self.allocator))
        if not self.exact:
            raise BuildError(
                f"{self.name}: rounding={self.rounding!r} counts as the release does, so it takes no allocator: "
                f"use rounding='exact'."
            )
        if not allocator.exact:
            raise BuildError(f"{self.name}: {allocator!r} misses the budget; use its exact form.")
        object.__setattr__(self, "allocator", allocator)

    @property
    def frames_by(self) -> Allocator | None:
        assert self.allocator is None or isinstance(self.allocator, Allocator)
        return self.allocator

    def next_history(self, tokens: VideoTokens) -> Any:
        return tokens.history if self.frames_by is None else self.frames_by.next_history(tokens)

    @property
    def takes_gaps(self) -> bool:
        return self.frames_by is None or self.frames_by.takes_gaps
