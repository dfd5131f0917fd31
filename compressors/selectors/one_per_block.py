"""One token of every block of the frame's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors.base import Selector
from compressors.budget import FrameBudgets
from compressors.functional.blocks import cell_of_place, first_of_each_cell
from compressors.functional.hashing import hash_tokens
from compressors.registry import register
from compressors.requirements import Grid, Requirement
from compressors.tokens import VideoTokens


@register("selector", "one_per_block")
@dataclass(frozen=True)
class OnePerBlock(Selector):
    """Each frame's grid is cut into exactly as many near-equal cells as it may keep tokens; one token of each stays.

    Cost: two sorts of T·N numbers; no pass over the features, no host reads.

    Attributes:
        choice: which token of a cell: by hash ("random"), nearest to its middle ("centre"), or of highest "score".
        seed: for "random".
    """

    choice: Literal["random", "centre", "score"] = "random"
    seed: int = 0

    needs_allocator: ClassVar[bool] = True

    @property
    def needs_scores(self) -> bool:
        return self.choice == "score"

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Grid()})

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        assert budgets.per_frame is not None
        cell = cell_of_place(budgets.per_frame, budgets.total, tokens).flatten()
        order = torch.sort(self._lot(tokens, scores, cell, budgets.total), stable=True).indices
        return first_of_each_cell(cell, order, budgets.total).sort().values

    def _lot(self, tokens: VideoTokens, scores: Tensor | None, cell: Tensor, total: int) -> Tensor:
        """What decides inside a cell, `[T·N]`: the lowest wins."""
        if self.choice == "random":
            return hash_tokens(self.seed, tokens.index, cell.shape[0], tokens.device)
        if self.choice == "score":
            assert scores is not None
            return -scores.flatten()
        return self._distance_to_centre(tokens, cell, total)

    def _distance_to_centre(self, tokens: VideoTokens, cell: Tensor, total: int) -> Tensor:
        """Squared distance of each place to its cell's centre of gravity, times the cell's size squared (integers)."""
        assert tokens.grid is not None
        place = torch.arange(tokens.places, device=tokens.device).repeat(tokens.frames)
        size = torch.zeros(total + 1, dtype=torch.int64, device=tokens.device).scatter_add_(
            0, cell, torch.ones_like(cell)
        )
        distance = torch.zeros_like(cell)
        for position in (place // tokens.grid[1], place % tokens.grid[1]):
            gravity = torch.zeros_like(size).scatter_add_(0, cell, position)
            distance += (position * size[cell] - gravity[cell]).square()
        return distance
