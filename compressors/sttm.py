"""STTM: a quadtree per frame, its nodes united over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors.base import Compression, Compressor
from compressors.errors import BuildError, InputError
from compressors.functional.bipartite import rows_of_groups
from compressors.functional.fit_to_budget import Edges, fit_draft
from compressors.functional.quadtree import Likeness, Nodes, Tree, cut, likeness, tree_of
from compressors.functional.ragged import count_per_frame
from compressors.registry import register
from compressors.requirements import Grid, Requirement
from compressors.tokens import VideoTokens


@register("compressor", "sttm")
@dataclass(frozen=True)
class Sttm(Compressor):
    """Spatio-temporal token merging (STTM, arXiv 2507.07990).

    - Space: each frame's grid is averaged 2×2 by 2×2 up to a few roots. A node stops where every child has a cosine of
      at least the threshold with it, else it splits.
    - Time: nodes of neighbouring frames, one containing the other, unite where their cosine reaches the threshold. A
      group is the mean of its nodes and sits at the top-left token of its earliest.

    Empty places are left out: a node is the mean of its children that hold tokens and is compared with these alone, and
    where a cell has no token there is no node.

    The release has thresholds and no budget. Without a `threshold`, one that leaves at most K groups where the next
    higher cosine leaves more is found by bisection over the cosines that occur (about log2 of their number of steps),
    then `fit_to_budget` ends at K.

    Cost: (L² + L)·T·N·C multiplications for L levels (3 on a 14×14 grid), and about log2(L²·T·N) cuts, each some
    operations on T·N numbers; holds L² + L numbers per token. No host reads; with a threshold one of T counts.

    Attributes:
        threshold: cosine at which nodes stop, or None to search it for the budget.
        temporal: cosine at which nodes unite over time: "same" as `threshold`, a number, or None to keep frames apart.
        root_level: levels between the roots and the coarsest level.
        head_dim: compare slices of this many channels and average their cosines, as attention heads would.
        weighted: means over tokens instead of means over nodes.
        incomplete: nodes at the edge of an odd grid have fewer than four children; "first" compares them with the first
            node of the level below too, as the release does; "own" with their own children only.
    """

    threshold: float | None = None
    temporal: float | Literal["same"] | None = "same"
    root_level: int = 1
    head_dim: int | None = None
    weighted: bool = False
    incomplete: Literal["own", "first"] = "own"

    no_allocator: ClassVar[str] = (
        "one threshold for all frames says how fine its trees are, so frames that differ more keep more by themselves"
    )

    def __post_init__(self) -> None:
        if isinstance(self.temporal, str) and self.temporal != "same":
            raise BuildError(f"sttm: temporal={self.temporal!r}; write same, a number, or null.")
        if self.root_level < 0:
            raise BuildError(f"sttm: root_level={self.root_level} must be at least 0.")

    @property
    def exact(self) -> bool:
        return self.threshold is None

    @property
    def merges(self) -> bool:
        return True

    @property
    def host_reads(self) -> int:
        return 0 if self.exact else 1

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Grid()})

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        """As the class says.

        Raises:
            InputError: channels that do not divide into heads.
        """
        if self.head_dim is not None and tokens.channels % self.head_dim:
            raise InputError(f"sttm: head_dim={self.head_dim} does not divide the {tokens.channels} channels.")
        tree = tree_of(tokens, self.root_level, self.weighted)
        alike = likeness(tokens, tree, self.head_dim, self.incomplete == "first")
        if self.threshold is not None:
            nodes = self._cut(alike, tree, alike.typical.new_full((), self.threshold))
            total = sum(_representatives(nodes).sum(1).tolist())
            keep, merge = rows_of_groups(nodes.group, nodes.weight, tokens, total)
        else:
            nodes = self._cut(alike, tree, self._search(alike, tree, total))
            present, group = nodes.group.flatten() >= 0, nodes.group.flatten().clamp_min(0)
            size = torch.zeros(group.shape[0], device=group.device).index_add_(0, group, present.float())
            alone = present & (size[group] == 1)
            edges = Edges(
                torch.arange(group.shape[0], device=group.device),
                group,
                torch.where(present & ~alone, nodes.weight.flatten(), 0.0),
            )
            keep, merge = fit_draft(tokens, alone.view_as(nodes.group), edges, -alike.typical, total)
        return Compression(tokens, keep, count_per_frame(keep, tokens), merge=merge, history=tokens.history)

    def _cut(self, alike: Likeness, tree: Tree, threshold: Tensor) -> Nodes:
        if self.temporal == "same":
            temporal = threshold
        else:
            temporal = torch.full_like(threshold, float("inf") if self.temporal is None else self.temporal)
        return cut(alike, tree, threshold, temporal)

    def _search(self, alike: Likeness, tree: Tree, total: int) -> Tensor:
        """The highest threshold found with at most `total` groups (the lowest cosine where there is none), 0-d."""
        cosines = [alike.within.flatten()]
        if self.temporal == "same":
            cosines.append(alike.between[:, :, 1:].flatten())
        cosine = torch.cat([*cosines, alike.typical.new_full((1,), float("inf"))])
        candidates = torch.where(cosine > float("-inf"), cosine, float("inf")).sort().values
        low = torch.zeros(1, dtype=torch.int64, device=candidates.device)
        high = torch.full_like(low, candidates.shape[0])
        for _ in range(candidates.shape[0].bit_length()):
            middle = (low + high) // 2
            nodes = self._cut(alike, tree, candidates[middle.clamp_max(candidates.shape[0] - 1)].squeeze(0))
            fits = _representatives(nodes).sum() <= total
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return candidates[low].squeeze(0)


def _representatives(nodes: Nodes) -> Tensor:
    """`[T, N]` bool, True at each group's representative."""
    place = torch.arange(nodes.group.numel(), device=nodes.group.device).view_as(nodes.group)
    return nodes.group == place
