"""Cutting a video into segments."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def neighbour_similarity(descriptors: Tensor) -> Tensor:
    """Cosine of each frame's descriptor `[T, C]` to the next frame's, float32 `[T-1]`."""
    unit = torch.nn.functional.normalize(descriptors.float(), dim=1)
    return (unit[:-1] * unit[1:]).sum(1)


def threshold_cuts(similarity: Tensor, threshold: float, least: int) -> Tensor:
    """Where a video is cut: after frame t if its similarity to the next is below the threshold or among the lowest.

    Args:
        similarity: `[T-1]`.
        threshold: a lower similarity is a cut.
        least: the `least - 1` lowest similarities are cuts in any case (ties to the lower index), so that there are at
            least `min(least, T)` segments.

    Returns:
        bool `[T-1]`.
    """
    lowest = torch.sort(similarity, stable=True).indices[: max(0, least - 1)]
    return (similarity < threshold).scatter(0, lowest, True)


def segments_of(cuts: list[bool]) -> list[tuple[int, int]]:
    """(first, past the last) frame of every segment, from the cuts between T = len(cuts) + 1 frames."""
    edges = [0, *(t + 1 for t, cut in enumerate(cuts) if cut), len(cuts) + 1]
    return list(pairwise(edges))
