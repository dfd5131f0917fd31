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
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the tree over an N-place grid; level 0 has a node per place.

    Attributes:
        node: node that covers each place, `int64 [N]`.
        parent: node of this level over each node of the level below, `int64 [n below]`; empty for level 0.
        mean: averages nodes of the level below, float32 `[n, n below]`; empty for level 0.
    """

    node: Tensor
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
    place = torch.arange(height * width, device=device)
    ones = torch.ones(height * width, device=device)
    levels = [Level(place, place[:0], ones[:0])]
    rows, columns = place // width, place % width
    sides = (height, width)
    while min(sides) > 2:
        odd = (sides[0] % 2, sides[1] % 2)
        rows, columns = (rows + odd[0]) // 2, (columns + odd[1]) // 2
        below = levels[-1]
        halves = ((sides[0] + 1) // 2, (sides[1] + 1) // 2)
        node = rows * halves[1] + columns
        count = halves[0] * halves[1]
        parent = torch.zeros(below.nodes, dtype=torch.int64, device=device).scatter_(0, below.node, node)
        mass = torch.zeros(below.nodes, device=device).index_add_(0, below.node, ones)
        if not weighted:
            mass = torch.ones_like(mass)
        mean = torch.zeros(count, below.nodes, device=device)
        mean[parent, torch.arange(below.nodes, device=device)] = mass
        mean /= mean.sum(1, keepdim=True)
        levels.append(Level(node, parent, mean))
        sides = halves
    return tuple(levels[: max(1, len(levels) - root_level)])


@dataclass(frozen=True, eq=False)
class Tree:
    """The levels over the tokens that a video has: a node without tokens does not exist, and averages leave it out.

    Attributes:
        levels: of the grid, finest first.
        weighted: averages are over tokens instead of child nodes.
        weights: for each level, how much each node counts in its parent's average, float32 `[T, n]`: 0 for a node
            without tokens; otherwise 1, or when `weighted` the share of its places that hold a token.
        first: for each level, the first token of the node over each place, as a place, `int64 [L, T, N]` (N where the
            node does not exist).
        share: for each level, the weight of each token in its node's average, float32 `[L, T, N]`.
    """

    levels: tuple[Level, ...]
    weighted: bool
    weights: list[Tensor]
    first: Tensor
    share: Tensor

    def exists(self, level: int) -> Tensor:
        """Whether the node over each place holds any token, bool `[T, N]`."""
        return self.weights[level][:, self.levels[level].node] > 0

    def means(self, values: Tensor, frames: slice) -> list[Tensor]:
        """The nodes' averages at every level, `[f, n, C]` float32; zero for a node that does not exist.

        Args:
            values: `[f, N, C]` of these frames, zero at empty places.
            frames: which they are.
        """
        means = [values]
        for depth, level in enumerate(self.levels[1:], 1):
            weight = self.weights[depth - 1][frames].unsqueeze(2)
            below = means[-1] * weight if self.weighted else means[-1]
            means.append(level.mean @ below / (level.mean @ weight).clamp_min(_TINY))
        return means


def tree_of(tokens: VideoTokens, root_level: int, weighted: bool) -> Tree:
    """The tree over a video with a grid; some of its places may be empty."""
    assert tokens.grid is not None
    frames, places = tokens.frames, tokens.places
    levels = levels_of((tokens.grid[0], tokens.grid[1]), root_level, weighted, tokens.device)
    present = torch.ones(frames, places, device=tokens.device) if tokens.valid is None else tokens.valid.float()
    place = torch.where(present > 0, torch.arange(places, device=tokens.device), places)
    weights, first, share = [present], [place], [present]
    for depth, level in enumerate(levels[1:], 1):
        total = (level.mean @ weights[-1].unsqueeze(2)).squeeze(2)
        part = level.mean[level.node, levels[depth - 1].node] * weights[-1][:, levels[depth - 1].node]
        share.append(share[-1] * part / total.clamp_min(_TINY)[:, level.node])
        least = torch.full_like(total, places, dtype=torch.int64)
        first.append(least.scatter_reduce(1, level.node.expand_as(place), place, "amin")[:, level.node])
        weights.append(total if weighted else (total > 0).float())
    return Tree(levels, weighted, weights, torch.stack(first), torch.stack(share))


@dataclass(frozen=True, eq=False)
class Likeness:
    """All that a threshold is compared with, per place.

    Attributes:
        within: lowest cosine of a node with its children, for levels 1 … L-1, float32 `[L-1, T, N]`; 2 for a node that
            does not exist.
        between: cosine of the level-a node in the frame before with the level-b node over the same place, float32
            `[L, L, T, N]`, -inf in the first frame and where one of the two does not exist.
        typical: cosine of each token with its level-1 node, float32 `[T, N]`.
    """

    within: Tensor
    between: Tensor
    typical: Tensor


def likeness(tokens: VideoTokens, tree: Tree, head_dim: int | None, anchored: bool) -> Likeness:
    """Cosines within and between frames, whatever the threshold will be: L² + L products of T·N·C, in blocks of frames.

    Args:
        tokens: the video.
        tree: over its tokens.
        head_dim: compare slices of this many channels and average their cosines; None compares whole vectors.
        anchored: a node with fewer than four children is compared with the first node of the level below too.
    """
    frames, places, channels = tokens.features.shape
    levels, depth = tree.levels, len(tree.levels)
    within = torch.ones(depth - 1, frames, places, device=tokens.device)
    between = torch.full((depth, depth, frames, places), float("-inf"), device=tokens.device)
    typical = torch.ones(frames, places, device=tokens.device)
    step = max(1, _BLOCK_VALUES // (places * channels))
    for start in range(0, frames, step):
        # One frame more than the block, for the comparison with the frame before it.
        lead = min(start, 1)
        stop = min(frames, start + step)
        values = tokens.features[start - lead : stop].float()
        if tokens.valid is not None:
            # An empty place may hold anything, NaN included.
            values = torch.where(tokens.valid[start - lead : stop].unsqueeze(2), values, 0.0)
        units = [_unit(mean, head_dim) for mean in tree.means(values, slice(start - lead, stop))]
        part = slice(start, stop)
        for depth_, level in enumerate(levels[1:], 1):
            child, own = units[depth_ - 1][lead:], units[depth_][lead:]
            cosine = (child * own[:, level.parent]).sum(-1)
            parent = level.parent.expand_as(cosine)
            there = tree.weights[depth_ - 1][part] > 0
            lowest = torch.full(own.shape[:2], 2.0, device=own.device)
            lowest = lowest.scatter_reduce(1, parent, torch.where(there, cosine, 2.0), "amin")
            if anchored:
                lone = (
                    torch.zeros(level.nodes, device=own.device).index_add_(
                        0, level.parent, own.new_ones(child.shape[1])
                    )
                    < 4
                ) & there[:, :1]
                lowest = torch.where(lone, torch.minimum(lowest, (own @ child[:, 0].unsqueeze(2)).squeeze(2)), lowest)
            within[depth_ - 1, part] = lowest[:, level.node]
            if depth_ == 1:
                typical[part] = cosine
        for a, before in enumerate(levels):
            for b, after in enumerate(levels):
                earlier, later = units[a][:-1][:, before.node], units[b][1:][:, after.node]
                both = tree.exists(a)[start - lead : stop - 1] & tree.exists(b)[start - lead + 1 : stop]
                cosine = torch.where(both, (earlier * later).sum(-1), float("-inf"))
                between[a, b, start + 1 - lead : stop] = cosine
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
            `int64 [T, N]`; -1 at empty places.
        weight: of each token in the mean of its group's nodes, float32 `[T, N]`.
    """

    group: Tensor
    weight: Tensor


def cut(alike: Likeness, tree: Tree, spatial: Tensor, temporal: Tensor) -> Nodes:
    """Nodes stop where all children are at least `spatial` alike; nodes of neighbouring frames unite at `temporal`.

    Over any place the nodes of two frames contain one another, so the places are the edges between nodes. Groups are
    the connected nodes, found by hooking and pointer jumping in a fixed number of rounds. No host reads.

    Args:
        alike: of the video.
        tree: over its tokens; if it is `weighted`, a group is the mean of its tokens instead of the mean of its nodes.
        spatial: 0-d threshold.
        temporal: 0-d threshold; inf keeps frames apart.
    """
    frames, places = alike.typical.shape
    device = spatial.device
    level = torch.zeros(frames, places, dtype=torch.int64, device=device)
    for depth in range(1, len(tree.levels)):
        level = torch.where(alike.within[depth - 1] >= spatial, depth, level)
    # A node counts only where every node above it was split; going down from the root, the first to stop wins.
    place = torch.arange(places, device=device)
    frame = torch.arange(frames, device=device).unsqueeze(1)
    own = frame * places + place
    first = tree.first[level, frame, place]
    node = torch.where(first < places, frame * places + first, own)  # what does not exist stays by itself
    similarity = alike.between[level.roll(1, 0), level, frame, place]
    linked = (similarity >= temporal) & (similarity > float("-inf"))
    later, earlier = torch.where(linked, node, own).flatten(), torch.where(linked, node.roll(1, 0), own).flatten()
    label = _components(later, earlier, frames * places)
    group, present = label[node], tree.weights[0]
    # A group has as many parts as nodes (each found at its first token), or as tokens.
    part = present if tree.weighted else present * (node == own)
    count = torch.zeros(frames * places, device=device).index_add_(0, group.flatten(), part.flatten())
    share = present if tree.weighted else tree.share[level, frame, place]
    return Nodes(torch.where(present > 0, group, -1), share / count.clamp_min(1)[group])


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
