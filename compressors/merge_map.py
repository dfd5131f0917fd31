"""`MergeMap`: merging as a sparse matrix, so that features, planes and pictures all follow the same map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_BLOCK = 256  # channels mixed at a time


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
        if not self.rows:
            return flat.new_empty(0, *plane.shape[1:])
        # Edges row by row, so that every row is a weighted sum over one stretch of them (a "bag"), in a fixed order.
        target, order = torch.sort(self.target, stable=True)
        source, weight = self.source[order], self.weight[order]
        starts = torch.searchsorted(target, torch.arange(self.rows, device=target.device))
        mixed = []
        for block in torch.split(flat, _BLOCK, dim=1):
            values = block.float().contiguous()
            sums = embedding_bag(source, values, starts, mode="sum", per_sample_weights=weight)
            mixed.append(sums.to(plane.dtype))
        return torch.cat(mixed, dim=1).view(self.rows, *plane.shape[1:])

    def row_sums(self) -> Tensor:
        """Sum of the weights of each row, `float32 [K]`."""
        return torch.zeros(self.rows, device=self.weight.device).index_add_(0, self.target, self.weight)
