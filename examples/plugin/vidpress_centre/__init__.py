"""Tokens nearest to the middle of the frame: where people point their cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressors import FrameBudgets, Grid, Method, Requirement, Selector, VideoTokens
from compressors.functional.ragged import top_per_frame


@dataclass(frozen=True)
class CentreFirst(Selector):
    """Keep the tokens nearest to a point of the frame.

    Attributes:
        row, column: the point, as shares of height and width; 0.5, 0.5 is the middle.
    """

    row: float = 0.5
    column: float = 0.5

    needs_allocator: ClassVar[bool] = True

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Grid()})

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        assert tokens.grid is not None
        assert budgets.per_frame is not None
        height, width = tokens.grid
        rows = (torch.arange(height, device=tokens.device) + 0.5) / height - self.row
        columns = (torch.arange(width, device=tokens.device) + 0.5) / width - self.column
        distance = (rows.square().unsqueeze(1) + columns.square()).flatten()
        return top_per_frame(-distance.expand(tokens.frames, -1), budgets.per_frame, budgets.total, tokens)


METHOD = Method(
    "centre_first",
    "tokens nearest to the middle of the frame",
    "example plugin",
    {"allocator": {"name": "fca"}, "selector": {"name": "centre_first"}},
)
