"""Tokens linked to their likeness in the frame before: chains through time, and what flows along them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_VALUES = 1 << 24  # float32 values of scratch at a time


def best_in_frame_before(features: Tensor, members: Tensor, linked: Tensor) -> tuple[Tensor, Tensor]:
    """The member of the previous frame that is most like each member.

    Args:
        features: `[T, N, C]`, any float dtype.
        members: `[T, N]` bool.
        linked: `[T]` bool, whether a frame may look at the frame before it (never the first).

    Returns:
        Its cosine, float32 `[T, N]` (-inf where there is none), and its place, `int64 [T, N]`, ties to the lower.
        Cost T·N²·C, some frames at a time.
    """
    frames, places, channels = features.shape
    similarity = torch.full((frames, places), float("-inf"), device=features.device)
    parent = torch.arange(places, device=features.device).repeat(frames, 1)
    step = max(1, _CHUNK_VALUES // (places * max(places, channels)))
    for first in range(1, frames, step):
        last = min(frames, first + step)
        unit = torch.where(members[first - 1 : last].unsqueeze(2), features[first - 1 : last].float(), 0.0)
        unit = torch.nn.functional.normalize(unit, dim=2)
        cosine = (unit[1:] @ unit[:-1].mT).masked_fill_(~members[first - 1 : last - 1].unsqueeze(1), float("-inf"))
        best = cosine.max(2)
        some = members[first:last] & linked[first:last].unsqueeze(1)
        similarity[first:last] = torch.where(some, best.values, float("-inf"))
        parent[first:last] = best.indices
    return similarity, parent


def strongest(values: Tensor, group: Tensor, allowed: Tensor) -> Tensor:
    """Which entries are among the `allowed[g]` greatest of their group, bool `[T, N]`; ties go to the lower index.

    Args:
        values: `[T, N]`.
        group: `int64 [T]`, the group of each frame, ascending from 0.
        allowed: `int64 [T]`, for each frame how many entries its group may have.
    """
    frames, places = values.shape
    each = group.repeat_interleave(places, output_size=frames * places)
    order = torch.sort(values.flatten(), descending=True, stable=True).indices
    order = order[torch.sort(each[order], stable=True).indices]
    start = torch.searchsorted(each, each)  # the first entry of its group, in the sorted order as in the given one
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(frames * places, device=order.device))
    return ((rank - start) < allowed.unsqueeze(1).repeat(1, places).flatten()).view(frames, places)


@dataclass(frozen=True, eq=False)
class Chains:
    """Trees of tokens: each linked token hangs on its parent in the frame before; what hangs on nothing is a root.

    Attributes:
        linked: `[T, N]` bool, whether a token hangs on a parent.
        parent: `int64 [T, N]`, the parent's place in the frame before.
    """

    linked: Tensor
    parent: Tensor

    def roots(self) -> Tensor:
        """Flat index of the root of each token's tree, `int64 [T, N]`. A loop over frames."""
        frames, places = self.linked.shape
        own = torch.arange(frames * places, device=self.linked.device).view(frames, places)
        roots = [own[0]]
        for t in range(1, frames):
            roots.append(torch.where(self.linked[t], roots[-1][self.parent[t]], own[t]))
        return torch.stack(roots)

    def size(self, whole: bool = True) -> Tensor:
        """How many tokens each one's tree holds below and with it, float32 `[T, N]`.

        With `whole=False` only its direct children are counted, however long the chains that end in them: so a release
        divides, and its averages of longer chains weigh more than one.
        """
        frames, places = self.linked.shape
        sizes = [torch.ones(places, device=self.linked.device)]
        for t in range(frames - 1, 0, -1):
            arriving = self.linked[t].float() * (sizes[-1] if whole else 1.0)
            sizes.append(torch.ones_like(arriving).index_add_(0, self.parent[t], arriving))
        return torch.stack(sizes[::-1])

    def averages(self, features: Tensor, members: Tensor, size: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The average of each token with what hangs on it, some frames at a time, from the last to the first.

        Args:
            features: `[T, N, C]`, any float dtype.
            members: `[T, N]` bool; others read as zero.
            size: what the sums are divided by, `[T, N]`.

        Yields:
            The frames, and `[f, N, C]` float32: at a root, the average of its tree.
        """
        frames, places, channels = features.shape
        step = max(1, _CHUNK_VALUES // (places * max(places, channels)))
        carried = torch.zeros(places, channels, device=features.device)  # sums of the frame after
        for last in range(frames, 0, -step):
            first = max(0, last - step)
            result = torch.empty(last - first, places, channels, device=features.device)
            for t in range(last - 1, first - 1, -1):
                here = torch.where(members[t].unsqueeze(1), features[t].float(), 0.0)
                if t + 1 < frames:
                    here.index_add_(0, self.parent[t + 1], carried * self.linked[t + 1].unsqueeze(1))
                result[t - first] = here / size[t].unsqueeze(1)
                carried = here
            yield slice(first, last), result
