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


def still_runs(same: Tensor) -> Tensor:
    """For how many frames up to and including each one a place has stayed the same, `int64 [T, N]`.

    Args:
        same: `[T, N]` bool, whether the token is like the one of the same place in the frame before; row 0 is False.
    """
    frame = torch.arange(same.shape[0], device=same.device).unsqueeze(1)
    return frame - torch.where(same, 0, frame).cummax(0).values


def windows_by_gain(still: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Cut a video into windows so that as many tokens as possible repeat within their window.

    A place is static in a window if it stays the same throughout; a window of d + 1 frames with c static places gains
    c·d. Dynamic programme over the last frame i: `best[i] = max_d best[i-d-1] + gain`, where a window of one frame
    gains nothing and the shortest window wins a tie. O(T·(N + T)), a loop over frames, no host reads.

    Args:
        still: `still_runs`, `int64 [T, N]`.
        longest: frames a window may have.

    Returns:
        For each frame i, as the last of a window: the best window's first frame, and its number of static places,
        both `int64 [T]`. Follow them from the last frame backwards. A window of one frame has no static place.
    """
    frames = still.shape[0]
    reached = torch.zeros(frames, frames + 1, dtype=torch.int64, device=still.device)
    reached.scatter_add_(1, still, torch.ones_like(still))
    static = reached.flip(1).cumsum(1).flip(1)[:, :frames]  # [i, d]: places that stayed the same for d frames up to i
    span = torch.arange(frames, device=still.device)
    gain = static * span
    best = torch.zeros(frames + 1, dtype=torch.int64, device=still.device)  # best[i + 1] for the frames up to i
    chosen = []
    for i in range(frames):
        most = min(i, longest - 1)
        value = best[i - most : i + 1].flip(0) + gain[i, : most + 1]
        # Values and spans in one number: argmax alone does not say which of equal values it returns.
        chosen.append((value * (frames + 1) - span[: most + 1]).argmax())
        best[i + 1] = value.amax()
    length = torch.stack(chosen)
    count = static.gather(1, length.unsqueeze(1)).squeeze(1)
    return span - length, torch.where(length > 0, count, 0)


def contiguous_segments(labels: list[int]) -> list[tuple[int, int]]:
    """(first, past the last) frame of every segment, from cluster labels per frame that may be scattered.

    Each label keeps its longest run of frames (the first of equals); every other run, from the first on, joins the
    longer of the runs beside it (the earlier of equals).
    """
    runs: list[list[int]] = []  # label, length
    for label in labels:
        if runs and runs[-1][0] == label:
            runs[-1][1] += 1
        else:
            runs.append([label, 1])
    kept: dict[int, list[int]] = {}
    for run in runs:
        if run[0] not in kept or run[1] > kept[run[0]][1]:
            kept[run[0]] = run
    while True:
        scattered = [i for i, run in enumerate(runs) if kept[run[0]] is not run]
        if not scattered:
            break
        i = scattered[0]
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(runs)]
        longer = max(beside, key=lambda j: (runs[j][1], -j))
        runs[longer][1] += runs[i][1]
        del runs[i]
    edges = [0]
    for _, length in runs:
        edges.append(edges[-1] + length)
    return list(pairwise(edges))
