"""Quadtrees over token grids: 2×2 averages up to a few roots; how alike nodes are within and between frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from compressors.functional.similarity import unit_vectors
from compressors.tokens import VideoTokens

_BLOCK_VALUES = 1 << 22  # float32 values per level at a time


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the tree over an N-place grid; level 0 has a node per place.

    Attributes:
        node: node that covers each place, `int64 [N]`.
        first: each place's node's top-left place, `int64 [N]`.
        share: weight of each place in its node's average, float32 `[N]`.
        parent: node of this level over each node of the level below, `int64 [n below]`; empty for level 0.
        mean: averages nodes of the level below, float32 `[n, n below]`; empty for level 0.
    """

    node: Tensor
    first: Tensor
    share: Tensor
    parent: Tensor
    mean: Tensor

    @property
    def nodes(self) -> int:
        return self.mean.shape[0] if self.mean.numel() else self.node.shape[0]


@cache
def levels_of(grid: tuple[int, int], root_level: int, weighted: bool, device: torch.device) -> tuple[Level, ...]:
    """The tree's levels, finest first, up to `root_level` below the coarsest (which has a side of at most 2).

    A side of odd length is halved with its first row or column on its own. Averages are over child nodes, or over
    places when `weighted`.
    """
    height, width = grid
    place = torch.arange(height * width)
    ones = torch.ones(height * width)
    levels = [Level(place, place, ones, place[:0], ones[:0])]
    rows, columns = place // width, place % width
    sides = (height, width)
    while min(sides) > 2:
        odd = (sides[0] % 2, sides[1] % 2)
        rows, columns = (rows + odd[0]) // 2, (columns + odd[1]) // 2
        below = levels[-1]
        halves = ((sides[0] + 1) // 2, (sides[1] + 1) // 2)
        node = rows * halves[1] + columns
        count = halves[0] * halves[1]
        parent = torch.zeros(below.nodes, dtype=torch.int64).scatter_(0, below.node, node)
        mass = torch.zeros(below.nodes).index_add_(0, below.node, ones) if weighted else torch.ones(below.nodes)
        mean = torch.zeros(count, below.nodes)
        mean[parent, torch.arange(below.nodes)] = mass
        mean /= mean.sum(1, keepdim=True)
        first = torch.full((count,), height * width).scatter_reduce_(0, node, place, "amin")[node]
        levels.append(Level(node, first, below.share * mean[node, below.node], parent, mean))
        sides = halves
    kept = levels[: max(1, len(levels) - root_level)]
    return tuple(Level(*(getattr(x, f).to(device) for f in Level.__dataclass_fields__)) for x in kept)


@dataclass(frozen=True, eq=False)
class Likeness:
    """All that a threshold is compared with, per place.

    Attributes:
        within: lowest cosine of a node with its children, for levels 1 … L-1, float32 `[L-1, T, N]`.
        between: cosine of the level-a node in the frame before with the level-b node over the same place, float32
            `[L, L, T, N]`, -inf in the first frame.
        typical: cosine of each token with its level-1 node, float32 `[T, N]`.
    """

    within: Tensor
    between: Tensor
    typical: Tensor


def likeness(tokens: VideoTokens, levels: tuple[Level, ...], head_dim: int | None, anchored: bool) -> Likeness:
    """Cosines within and between frames, whatever the threshold will be: L² + L products of T·N·C, in blocks of frames.

    Args:
        tokens: the video.
        levels: of its grid.
        head_dim: compare slices of this many channels and average their cosines; None compares whole vectors.
        anchored: a node with fewer than four children is compared with the first node of the level below too.
    """
    frames, places, channels = tokens.features.shape
    depth = len(levels)
    within = torch.ones(depth - 1, frames, places, device=tokens.device)
    between = torch.full((depth, depth, frames, places), float("-inf"), device=tokens.device)
    typical = torch.ones(frames, places, device=tokens.device)
    step = max(1, _BLOCK_VALUES // (places * channels))
    for start in range(0, frames, step):
        # One frame more than the block, for the comparison with the frame before it.
        lead = min(start, 1)
        stop = min(frames, start + step)
        means = [tokens.features[start - lead : stop].float()]
        for level in levels[1:]:
            means.append(level.mean @ means[-1])
        units = [_unit(mean, head_dim) for mean in means]
        part = slice(start, stop)
        for depth_, level in enumerate(levels[1:], 1):
            child, own = units[depth_ - 1][lead:], units[depth_][lead:]
            cosine = (child * own[:, level.parent]).sum(-1)
            parent = level.parent.expand_as(cosine)
            lowest = torch.full(own.shape[:2], 2.0, device=own.device).scatter_reduce(1, parent, cosine, "amin")
            if anchored:
                lone = (
                    torch.zeros(level.nodes, device=own.device).index_add_(
                        0, level.parent, own.new_ones(child.shape[1])
                    )
                    < 4
                )
                lowest = torch.where(lone, torch.minimum(lowest, (own @ child[:, 0].unsqueeze(2)).squeeze(2)), lowest)
            within[depth_ - 1, part] = lowest[:, level.node]
            if depth_ == 1:
                typical[part] = cosine
        for a, before in enumerate(levels):
            for b, after in enumerate(levels):
                earlier, later = units[a][:-1][:, before.node], units[b][1:][:, after.node]
                between[a, b, start + 1 - lead : stop] = (earlier * later).sum(-1)
    return Likeness(within, between, typical)


def _unit(values: Tensor, head_dim: int | None) -> Tensor:
    """Vectors whose dot product is the cosine, or the mean of the heads' cosines."""
    if head_dim is None:
        return unit_vectors(values)
    heads = unit_vectors(values.reshape(*values.shape[:-1], -1, head_dim))
    return heads.flatten(-2) * math.sqrt(head_dim / values.shape[-1])


@dataclass(frozen=True, eq=False)
class Nodes:
    """The tree cut at a threshold, and its nodes united between frames.

    Attributes:
        group: flat index of the representative (the earliest node's top-left token) of each token's group,
            `int64 [T, N]`.
        weight: of each token in the mean of its group's nodes, float32 `[T, N]`.
    """

    group: Tensor
    weight: Tensor


def cut(alike: Likeness, levels: tuple[Level, ...], spatial: Tensor, temporal: Tensor, weighted: bool) -> Nodes:
    """Nodes stop where all children are at least `spatial` alike; nodes of neighbouring frames unite at `temporal`.

    Over any place the nodes of two frames contain one another, so the places are the edges between nodes. Groups are
    the connected nodes, found by hooking and pointer jumping in a fixed number of rounds. No host reads.

    Args:
        alike: of the video.
        levels: of its grid.
        spatial: 0-d threshold.
        temporal: 0-d threshold; inf keeps frames apart.
        weighted: a group is the mean of its tokens instead of the mean of its nodes.
    """
    frames, places = alike.typical.shape
    device = spatial.device
    level = torch.zeros(frames, places, dtype=torch.int64, device=device)
    for depth in range(1, len(levels)):
        level = torch.where(alike.within[depth - 1] >= spatial, depth, level)
    # A node counts only where every node above it was split; going down from the root, the first to stop wins.
    place = torch.arange(places, device=device)
    frame = torch.arange(frames, device=device).unsqueeze(1)
    own = frame * places + place
    node = frame * places + torch.stack([x.first for x in levels])[level, place]
    similarity = alike.between[level.roll(1, 0), level, frame, place]
    linked = similarity >= temporal
    linked[0] = False
    later, earlier = torch.where(linked, node, own).flatten(), torch.where(linked, node.roll(1, 0), own).flatten()
    label = _components(later, earlier, frames * places)
    group = label[node]
    if weighted:
        ones = torch.ones(frames * places, device=device)
        size = torch.zeros_like(ones).index_add_(0, group.flatten(), ones)
        return Nodes(group, 1 / size[group])
    count = torch.zeros(frames * places, device=device).index_add_(0, group.flatten(), (node == own).float().flatten())
    return Nodes(group, torch.stack([x.share for x in levels])[level, place] / count[group])


def _components(later: Tensor, earlier: Tensor, count: int) -> Tensor:
    """The least member of each point's connected component, `int64 [count]`."""
    label = torch.arange(count, device=later.device)
    for _ in range(count.bit_length() + 2):
        a, b = label[later], label[earlier]
        label = label.scatter_reduce(0, torch.maximum(a, b), torch.minimum(a, b), "amin")
        for _ in range(3):
            label = label[label]
    for _ in range(count.bit_length()):
        label = label[label]
    return label
