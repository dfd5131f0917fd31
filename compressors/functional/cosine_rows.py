"""Rows of the cosine matrix of each group of tokens, for greedy methods that ask for one row per pick."""

from __future__ import annotations

import torch
from torch import Tensor

_MATRIX_VALUES = 1 << 27  # similarities held at once (512 MiB); a larger group gets its rows one at a time
_BLOCK_VALUES = 1 << 22  # feature values in float32 at once (16 MiB)


class CosineRows:
    """Cosine similarity within G groups of n tokens; all groups are asked at once.

    Small groups (a frame each) have their n × n matrices computed once. A group whose matrix would be too large has
    each row computed when it is asked for, at one pass over its features, so that no matrix over all frames ever
    exists. Matrix products are the only affordable way here, so a process that allows reduced precision in float32
    products (TF32) gets similarities of that precision.

    Args:
        features: `[G, n, C]`, any float dtype; not copied.
        valid: `[G, n]` bool, or None when every place holds a token. An empty place has similarity 0 to everything.
    """

    def __init__(self, features: Tensor, valid: Tensor | None = None) -> None:
        self.features = features
        self.valid = valid
        self.groups, self.size, self.channels = features.shape
        self.inverse = self._inverse_norms()
        self.matrix = self._matrix() if self.groups <= _MATRIX_VALUES // self.size**2 else None

    @staticmethod
    def groups_at_once(size: int) -> int:
        """How many groups of `size` tokens to treat together, so that their matrices stay within bounds."""
        return max(1, _MATRIX_VALUES // size**2)

    def row(self, pick: Tensor) -> Tensor:
        """Similarity of token `pick[g]` to all tokens of its group, float32 `[G, n]`; `pick` is `int64 [G]`."""
        group = torch.arange(self.groups, device=pick.device)
        if self.matrix is not None:
            return self.matrix[group, pick]
        picked = self.features[group, pick].float() * self.inverse[group, pick].unsqueeze(1)
        return self._products(picked.unsqueeze(1)).squeeze(1)

    def nearest(self) -> Tensor:
        """Highest similarity of each token to another token of its group, float32 `[G, n]`; -inf if there is none."""
        result = torch.empty_like(self.inverse)
        step = self.size if self.matrix is not None else max(1, _BLOCK_VALUES // max(self.size, self.channels))
        for start in range(0, self.size, step):
            rows = torch.arange(start, min(start + step, self.size), device=result.device)
            if self.matrix is not None:
                similarity = self.matrix.clone()
            else:
                similarity = self._products(self._unit(slice(None), slice(start, start + step)))
            similarity[:, rows - start, rows] = float("-inf")
            if self.valid is not None:
                similarity.masked_fill_(~self.valid.unsqueeze(1), float("-inf"))
            result[:, start : start + step] = similarity.amax(2)
        return result

    def _inverse_norms(self) -> Tensor:
        inverse = self.features.new_empty(self.groups, self.size, dtype=torch.float32)
        for groups, places in self._blocks():
            values = self.features[groups, places].float()
            norm = values.square().sum(-1).sqrt()
            inverse[groups, places] = torch.where(norm > 0, 1 / norm, 0.0)
        return inverse if self.valid is None else torch.where(self.valid, inverse, 0.0)

    def _matrix(self) -> Tensor:
        matrix = self.features.new_empty(self.groups, self.size, self.size, dtype=torch.float32)
        step = max(1, _BLOCK_VALUES // (self.size * self.channels))
        for start in range(0, self.groups, step):
            unit = self._unit(slice(start, start + step), slice(None))
            torch.bmm(unit, unit.transpose(1, 2), out=matrix[start : start + step])
        return matrix

    def _products(self, rows: Tensor) -> Tensor:
        """`rows [G, r, C]` (of unit length) times every token, float32 `[G, r, n]`."""
        result = rows.new_empty(self.groups, rows.shape[1], self.size)
        for groups, places in self._blocks():
            result[groups, :, places] = rows[groups] @ self._unit(groups, places).transpose(1, 2)
        return result

    def _unit(self, groups: slice, places: slice) -> Tensor:
        values = self.features[groups, places].float() * self.inverse[groups, places].unsqueeze(2)
        if self.valid is None:
            return values
        # An empty place may hold NaN, which no factor makes zero.
        return values.masked_fill_(~self.valid[groups, places].unsqueeze(2), 0.0)

    def _blocks(self) -> list[tuple[slice, slice]]:
        rows = max(1, _BLOCK_VALUES // self.channels)
        groups_at_once, places_at_once = max(1, rows // self.size), min(rows, self.size)
        return [
            (slice(group, group + groups_at_once), slice(place, place + places_at_once))
            for group in range(0, self.groups, groups_at_once)
            for place in range(0, self.size, places_at_once)
        ]
