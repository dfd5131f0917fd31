"""Cosine similarity between the tokens of a frame, of a window of frames, or of the video, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK_VALUES = 1 << 23  # float32 values of scratch at a time


@dataclass(frozen=True, eq=False)
class SimilarityBlock:
    """Some rows of the similarity matrices of some windows.

    Attributes:
        windows: B consecutive windows of M tokens each.
        rows: R consecutive tokens of each.
        start: flat index `t·N + n` of each window's first token, `int64 [B, 1]`.
        values: cosines, float32 `[B, R, M]`.
    """

    start: Tensor
    rows: slice
    values: Tensor


def similarity_blocks(values: Tensor, valid: Tensor | None, window: int) -> Iterator[SimilarityBlock]:
    """The cosine of every token with every token of its window of frames, windows and rows in ascending order.

    Args:
        values: `[T, N, D]`, any float dtype.
        valid: `[T, N]` bool, or None; empty places have cosine 0 with everything.
        window: frames that belong together: frames 0 … window-1, and so on; the last window may be shorter.
    """
    frames, places, channels = values.shape
    whole = frames // window * window
    for first, last, width in ((0, whole, window), (whole, frames, frames - whole)):
        tokens = width * places
        windows_at_once = max(1, _BLOCK_VALUES // max(1, tokens * max(tokens, channels)))
        rows_at_once = max(1, _BLOCK_VALUES // max(1, windows_at_once * tokens))
        for frame in range(first, last, max(1, windows_at_once * width)):
            chosen = slice(frame, min(last, frame + windows_at_once * width))
            unit = unit_vectors(values[chosen], None if valid is None else valid[chosen]).view(-1, tokens, channels)
            start = torch.arange(frame, chosen.stop, width, device=values.device).unsqueeze(1) * places
            for row in range(0, tokens, rows_at_once):
                rows = slice(row, min(tokens, row + rows_at_once))
                yield SimilarityBlock(start, rows, unit[:, rows] @ unit.mT)


def unit_vectors(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """`[..., D]` scaled to length 1, float32; zero vectors and empty places are zero."""
    scaled = torch.nn.functional.normalize(values.float(), dim=-1)
    return scaled if valid is None else torch.where(valid.unsqueeze(-1), scaled, 0.0)


def nearest_target(values: Tensor, valid: Tensor | None, target: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The target of highest cosine for every token, among the targets of its window of frames.

    Args:
        values: `[T, N, D]`, any float dtype.
        valid: `[T, N]` bool, or None.
        target: `[T, N]` bool.
        window: as in `similarity_blocks`.

    Returns:
        Its flat index `t·N + n`, `int64 [T, N]` (ties to the lower one), and `[T, N]` bool: False where the window
        holds no target, and the index means nothing. No host reads. Cost T·N·(window·N)·D multiplications, a block at
        a time.
    """
    index = torch.empty(target.numel(), dtype=torch.int64, device=values.device)
    found = torch.empty(target.numel(), dtype=torch.bool, device=values.device)
    flat = target.flatten()
    for block in similarity_blocks(values, valid, window):
        column = torch.arange(block.values.shape[2], device=values.device)
        allowed = flat[block.start + column].unsqueeze(1)
        best = block.values.masked_fill_(~allowed, float("-inf")).max(2)
        row = block.start + column[block.rows]
        index[row] = block.start + best.indices
        found[row] = best.values > float("-inf")
    return index.view_as(target), found.view_as(target)


def nearest_of(values: Tensor, valid: Tensor | None, chosen: Tensor, allowed: Tensor) -> Tensor:
    """The token of highest cosine among K given ones, for every token of the video.

    Args:
        values: `[T, N, D]`, any float dtype.
        valid: `[T, N]` bool, or None.
        chosen: flat indices, ascending, `int64 [K]`.
        allowed: bool `[K]`, which of them may be the answer.

    Returns:
        Its flat index, `int64 [T, N]` (ties to the lower one). Cost T·N·K·D multiplications, a block of tokens at
        a time.
    """
    flat = values.flatten(0, 1)
    columns = unit_vectors(flat.index_select(0, chosen))
    rows_at_once = max(1, _BLOCK_VALUES // max(chosen.shape[0], flat.shape[1]))
    nearest = []
    for row in range(0, flat.shape[0], rows_at_once):
        rows = slice(row, row + rows_at_once)
        unit = unit_vectors(flat[rows], None if valid is None else valid.flatten()[rows])
        nearest.append((unit @ columns.mT).masked_fill_(~allowed, float("-inf")).argmax(1))
    return chosen[torch.cat(nearest)].view(values.shape[:2])
