"""The compressor that does not compress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressors.base import Compression, Compressor, identity
from compressors.budget import Budget
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("compressor", "none")
@dataclass(frozen=True)
class NoCompression(Compressor):
    """Keeps every token as it is, whatever the budget: the other side of every comparison.

    Cost: none.
    """

    no_allocator: ClassVar[str] = "it keeps every token (it does not split into parts)"

    @property
    def exact(self) -> bool:
        return False

    def __call__(self, tokens: VideoTokens, budget: Budget | None = None) -> Compression:
        return identity(tokens)

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        return identity(tokens)
