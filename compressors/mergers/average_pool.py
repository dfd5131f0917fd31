"""Spatial average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressors.base import Merger
from compressors.functional.blocks import cell_of_place
from compressors.functional.ragged import count_per_frame
from compressors.merge_map import MergeMap
from compressors.registry import register
from compressors.requirements import Grid, Requirement
from compressors.tokens import VideoTokens


@register("merger", "average_pool")
@dataclass(frozen=True)
class AveragePool(Merger):
    """The mean of each block that `one_per_block` cuts, at the place of the block's token.

    Cost: whole numbers of T·N, and T·N edges to mix; no host reads.
    """

    selectors: ClassVar[frozenset[str] | None] = frozenset({"one_per_block"})

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Grid()})

    def __call__(
        self, tokens: VideoTokens, keep: Tensor, scores: Tensor | None, targets: Tensor | None = None
    ) -> MergeMap:
        """One edge per place; places of no block have weight 0."""
        total = keep.shape[0]
        cell = cell_of_place(count_per_frame(keep, tokens), total, tokens).flatten()
        row_of_cell = torch.zeros(total + 1, dtype=torch.int64, device=keep.device)
        row_of_cell.scatter_(0, cell[keep], torch.arange(total, device=keep.device))
        size = torch.zeros(total + 1, device=keep.device).scatter_add_(
            0, cell, torch.ones_like(cell, dtype=torch.float32)
        )
        inside = cell < total
        # An empty place may hold anything, NaN included, so its edge starts at a real token.
        source = torch.where(inside, torch.arange(cell.shape[0], device=keep.device), keep[:1])
        weight = torch.where(inside, 1 / size[cell], 0.0)
        return MergeMap(source, row_of_cell[cell], weight, total)
