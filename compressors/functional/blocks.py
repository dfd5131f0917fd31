"""A frame's grid cut into exactly as many near-equal cells as the frame has tokens to spend."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.tokens import VideoTokens


def cell_of_place(per_frame: Tensor, total: int, tokens: VideoTokens) -> Tensor:
    """The cell of every place, cells counted over the video: frame by frame, in raster order.

    A frame with budget b on an (h, w) grid has `clamp(round(√(b·h/w)), ⌈b/w⌉, min(h, b))` rows of cells, over which its
    b cells are spread evenly. A frame with empty places is cut as a strip of its tokens instead.

    Args:
        per_frame: `int64 [T]` with sum `total`.
        total: K.
        tokens: with a grid.

    Returns:
        `int64 [T, N]`, 0 … K-1, or K where a place belongs to no cell (it is empty, or its frame has no budget).
    """
    assert tokens.grid is not None
    height, width = tokens.grid
    place = torch.arange(tokens.places, device=tokens.device)
    budget = per_frame.unsqueeze(1)
    some = budget.clamp_min(1)

    wanted = torch.round(torch.sqrt(some.double() * height / width)).long()
    rows = torch.minimum(torch.maximum(wanted, -(-some // width)), some.clamp_max(height))
    row = _part(place // width, rows, height)
    first = row * some // rows
    cell = first + _part(place % width, (row + 1) * some // rows - first, width)

    if tokens.valid is not None:
        ordinal = tokens.valid.cumsum(1) - 1
        strip = _part(ordinal, some, tokens.capacity.clamp_min(1).unsqueeze(1))
        cell = torch.where((tokens.capacity == tokens.places).unsqueeze(1), cell, strip)
        cell = torch.where(tokens.valid, cell, total)
    start = (per_frame.cumsum(0) - per_frame).unsqueeze(1)
    return torch.where((budget > 0) & (cell < total), start + cell, total)


def _part(position: Tensor, parts: Tensor, length: int | Tensor) -> Tensor:
    """Which of `parts` near-equal stretches of 0 … length-1 holds a position: stretch j begins at ⌊j·length/parts⌋."""
    return ((position + 1) * parts - 1) // length


def first_of_each_cell(cell: Tensor, order: Tensor, total: int) -> Tensor:
    """The first token of each cell, in a given order of all places.

    Args:
        cell: `[T·N]`, the cell of every place (`total` = none).
        order: `int64 [T·N]`, a permutation of all places; what comes first in it wins its cell.
        total: K, the number of cells; none is empty.

    Returns:
        Flat index of each cell's winner, `int64 [K]`, in the order of the cells.
    """
    cells, position = torch.sort(cell[order], stable=True)
    return order[position][torch.searchsorted(cells, torch.arange(total, device=cell.device))]
