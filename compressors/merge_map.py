"""`MergeMap`: merging as a sparse matrix, so that features, planes and pictures all follow the same map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 256  # channels mixed at a time,
_BLOCK_VALUES = 1 << 27  # fewer where there are many edges: bounds the float32 scratch whatever the width


@dataclass(frozen=True, eq=False)
class MergeMap:
    """Rows of the output as weighted sums of input tokens: features' = W·x, `W [K, T·N]` given by its edges.

    One source may feed several targets. Edges of weight zero are allowed (static shapes).

    Attributes:
        source: flat token index `t·N + n` of each edge, `int64 [E]`.
        target: output row of each edge in 0 … K-1 (row i sits at the place of kept token i), `int64 [E]`.
        weight: `float32 [E]`; the weights of a row sum to one unless a release does otherwise.
        rows: K.
    """

    source: Tensor
    target: Tensor
    weight: Tensor
    rows: int

    def apply(self, plane: Tensor) -> Tensor:
        """`[T·N, ...]` -> `[K, ...]` in the plane's dtype, accumulated in float32, a block of channels at a time."""
        flat = plane.reshape(plane.shape[0], -1)
        out = torch.empty(self.rows, flat.shape[1], dtype=plane.dtype, device=plane.device)
        weight = self.weight.unsqueeze(1)
        width = min(_BLOCK, max(1, _BLOCK_VALUES // max(1, self.source.shape[0])))
        for start in range(0, flat.shape[1], width):
            block = flat[:, start : start + width].index_select(0, self.source).float() * weight
            mixed = torch.zeros(self.rows, block.shape[1], device=plane.device).index_add_(0, self.target, block)
            out[:, start : start + width] = mixed.to(plane.dtype)
        return out.view(self.rows, *plane.shape[1:])

    def row_sums(self) -> Tensor:
        """Sum of the weights of each row, `float32 [K]`."""
        return torch.zeros(self.rows, device=self.weight.device).index_add_(0, self.target, self.weight)
