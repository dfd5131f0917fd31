"""Ragged selection with static shapes: how many per frame is a tensor, how many in all is a host integer.

No function here reads a tensor's value on the host. `K` slots are filled by counting, never by boolean indexing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressors import kernels
from compressors.tokens import VideoTokens


def count_per_frame(keep: Tensor, tokens: VideoTokens) -> Tensor:
    """How many of the kept flat indices `[K]` lie in each frame, `int64 [T]`."""
    counts = torch.zeros(tokens.frames, dtype=torch.int64, device=keep.device)
    return counts.scatter_add_(0, keep // tokens.places, torch.ones_like(keep))


def indices_of(mask: Tensor, total: int) -> Tensor:
    """Where `mask` is True, ascending, `int64 [total]`; `mask` must hold exactly `total` True values."""
    wanted = torch.arange(1, total + 1, device=mask.device)
    return torch.searchsorted(mask.flatten().cumsum(0), wanted)


def filled_frames(tokens: VideoTokens) -> Tensor:
    """The frames that hold any token, ascending, `int64`."""
    if tokens.counts is None:
        return torch.arange(tokens.frames, device=tokens.device)
    return indices_of(tokens.capacity > 0, sum(count > 0 for count in tokens.counts))


def ranks(scores: Tensor) -> Tensor:
    """Rank of each entry along the last dimension, 0 = highest; equal entries rank by index."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def push_back_invalid(scores: Tensor, tokens: VideoTokens) -> Tensor:
    """Scores `[T, N]` in which every empty place ranks behind every token."""
    if tokens.valid is None:
        return scores
    lowest = torch.finfo(scores.dtype).min
    return torch.where(tokens.valid, scores.clamp_min(lowest), float("-inf"))


def top_per_frame(scores: Tensor, per_frame: Tensor, total: int, tokens: VideoTokens) -> Tensor:
    """The `per_frame[t]` highest scores of each frame, as flat indices.

    Args:
        scores: `[T, N]`, higher = keep; ties go to the lower index.
        per_frame: `int64 [T]`, at most the frame's capacity, with sum `total`.
        total: K.

    Returns:
        Kept flat indices `t·N + n`, ascending, `int64 [K]`.
    """
    scores = push_back_invalid(scores, tokens)
    fused = kernels.fused_for(tokens.features)
    if fused is not None:
        keep: Tensor = fused.top_per_frame(scores, per_frame, total)
        return keep
    return indices_of(ranks(scores) < per_frame.unsqueeze(1), total)


def top_of_video(scores: Tensor, total: int, tokens: VideoTokens) -> Tensor:
    """The `total` highest scores of the whole video, as ascending flat indices `int64 [K]`."""
    flat = push_back_invalid(scores, tokens).flatten()
    best = torch.sort(flat, descending=True, stable=True).indices[:total]
    return best.sort().values


def slots(per_frame: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """For K slots filled frame by frame: the frame of each slot and its ordinal there, two `int64 [K]`."""
    ends = per_frame.cumsum(0)
    slot = torch.arange(total, device=per_frame.device)
    frame = torch.searchsorted(ends, slot, right=True)
    return frame, slot - (ends - per_frame)[frame]


def place_of(ordinal: Tensor, tokens: VideoTokens) -> Tensor:
    """Flat index of the `ordinal`-th token of the video, counting tokens only and not empty places."""
    if tokens.valid is None:
        return ordinal
    return torch.searchsorted(tokens.valid.flatten().cumsum(0), ordinal + 1)


def row_of_place(keep: Tensor, tokens: VideoTokens) -> Tensor:
    """For every place the row its token was kept as, `int64 [T·N]`, -1 where none was."""
    row = torch.full((tokens.frames * tokens.places,), -1, dtype=torch.int64, device=keep.device)
    return row.scatter_(0, keep, torch.arange(keep.shape[0], device=keep.device))
