"""`Recording`: what taps noted during one call of the vision tower, and its way onto the grid of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.family import Family


@dataclass(eq=False)
class Recording:
    """Values per patch, in the tower's own order; what follows each other stands along the first axis.

    A packed tower has P patches in all, a batched one F frames of n patches (class token left out).

    Attributes:
        attention: float32, `[P]` or `[F, n]`, summed over heads and query rows.
        queries: how many query rows were summed; None in a packed tower, where they are all the patches of a frame
            (with windows too: outside of its window a patch gets nothing).
        keys: float32, `[P, d]` or `[F, n, d]`, averaged over heads.
        frames: `[F, C]`, the pooled output of a tower that has one.
        hidden: `[P, C]` or `[F, n, C]`, the final features of a tower that pools nothing; references.
    """

    attention: list[Tensor] = field(default_factory=list)
    queries: int | None = None
    keys: list[Tensor] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)

    def on_grid(
        self, family: Family, model: PreTrainedModel, geometry: Sequence[Sequence[int]]
    ) -> list[dict[str, Tensor]]:
        """The fields of each video's `VideoTokens` that were tapped. Reads nothing on the host.

        - `attention [T, N]`: summed over heads, averaged over query rows and over the patches that make up a token.
        - `keys [T, N, d]`: averaged over heads and over the token's patches.
        - `frame_features [T, C]`: the pooled output, or the mean over a frame's final features, before projection.

        Args:
            family: knows how patches make frames and tokens.
            model: the whole model.
            geometry: (T, h, w) of each video, in tokens.
        """
        videos: list[dict[str, Tensor]] = [{} for _ in geometry]
        grids = [(h, w) for _, h, w in geometry]
        if self.attention:
            frames = self._split(family, model, self.attention, geometry)
            for video, values, grid in zip(videos, frames, grids, strict=True):
                rows = self.queries or values.shape[1]
                video["attention"] = family.merge_patches(model, values.unsqueeze(-1) / rows, grid).squeeze(-1)
        if self.keys:
            frames = self._split(family, model, self.keys, geometry)
            for video, values, grid in zip(videos, frames, grids, strict=True):
                video["keys"] = family.merge_patches(model, values, grid)
        if self.hidden:
            frames = self._split(family, model, self.hidden, geometry)
            for video, values in zip(videos, frames, strict=True):
                video["frame_features"] = values.mean(1, dtype=torch.float32)
        if self.frames:
            pooled = torch.split(torch.cat(self.frames), [t for t, _, _ in geometry])
            for video, values in zip(videos, pooled, strict=True):
                video["frame_features"] = values.float()
        return videos

    def _split(
        self, family: Family, model: PreTrainedModel, values: list[Tensor], geometry: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        return family.split_frames(model, torch.cat(values) if len(values) > 1 else values[0], geometry)
