"""`Unit`: the tokens of a stream that stay or go together, and where they sit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Vector = tuple[int, ...]  # a position: one number per axis (1, or 3 for M-RoPE)


@dataclass(frozen=True, eq=False)
class Unit:
    """One temporal group of frames, one turn of a dialogue, or the prompt's opening.

    Attributes:
        start: the position where it begins.
        following: where what comes after it begins.
        positions: `[axes, n]`, the position of each of its n tokens.
    """

    start: Vector
    following: Vector
    positions: Tensor

    @property
    def tokens(self) -> int:
        """n."""
        return self.positions.shape[1]

    @property
    def extent(self) -> Vector:
        """How far it moves what comes after it, on each axis."""
        return minus(self.following, self.start)

    def moved(self, by: Sequence[int]) -> Unit:
        """The same tokens elsewhere."""
        shift = self.positions.new_tensor(list(by)).unsqueeze(1)
        return Unit(plus(self.start, by), plus(self.following, by), self.positions + shift)


def plus(one: Sequence[int], other: Sequence[int]) -> Vector:
    """Positions added, axis by axis."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


def minus(one: Sequence[int], other: Sequence[int]) -> Vector:
    """How far `one` is from `other`, axis by axis."""
    return tuple(a - b for a, b in zip(one, other, strict=True))
