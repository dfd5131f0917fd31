"""Statistics of token features over the whole video, in blocks, accumulated in float32 without a float32 copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.tokens import VideoTokens

_BLOCK_VALUES = 1 << 18  # values per block: its float32 scratch stays in a core's cache


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Per-channel statistics over all tokens of a video.

    Attributes:
        mean: float32 `[C]`.
        variance: float32 `[C]`, the population variance.
        finite: 0-d bool; False when a feature is NaN or Inf (or so large that its square overflows float32).
    """

    mean: Tensor
    variance: Tensor
    finite: Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """Some frames, or a part of one frame: `frames` and `places` select `values [f, n, C]` float32 from the video."""

    frames: slice
    places: slice
    values: Tensor


def blocks(tokens: VideoTokens) -> Iterator[Block]:
    """The features in float32, a block at a time; empty places read as zero."""
    rows = max(1, _BLOCK_VALUES // tokens.channels)
    frames_at_once = max(1, rows // tokens.places)
    places_at_once = min(rows, tokens.places)
    for frame in range(0, tokens.frames, frames_at_once):
        for place in range(0, tokens.places, places_at_once):
            frames = slice(frame, frame + frames_at_once)
            places = slice(place, place + places_at_once)
            values = tokens.features[frames, places].float()
            if tokens.valid is not None:
                values = torch.where(tokens.valid[frames, places].unsqueeze(-1), values, 0.0)
            yield Block(frames, places, values)


def channel_statistics(tokens: VideoTokens) -> ChannelStatistics:
    """Mean and population variance of every channel over the video's tokens, memoised on it."""
    return tokens.memo("channel_statistics", lambda: _channel_statistics(tokens))


def _channel_statistics(tokens: VideoTokens) -> ChannelStatistics:
    # Each block is centred on its own mean, so squares never cancel; blocks are then merged in float64.
    means, squares, sizes = [], [], []
    for block in blocks(tokens):
        size: Tensor | int = block.values.shape[0] * block.values.shape[1]
        mean = block.values.sum((0, 1))
        if tokens.valid is None:
            mean = mean / size
            centred = block.values - mean
        else:
            present = tokens.valid[block.frames, block.places]
            size = present.sum()
            mean = mean / size.clamp_min(1)
            centred = torch.where(present.unsqueeze(-1), block.values - mean, 0.0)
        means.append(mean)
        squares.append(centred.square_().sum((0, 1)))
        sizes.append(size)
    size64 = torch.stack(
        [s if isinstance(s, Tensor) else torch.tensor(s, device=tokens.device) for s in sizes]
    ).double()
    mean64 = torch.stack(means).double()
    mean = size64 @ mean64 / tokens.total
    variance = (torch.stack(squares).double().sum(0) + size64 @ (mean64 - mean).square_()) / tokens.total
    return ChannelStatistics(mean.float(), variance.float(), torch.isfinite(variance).all())


def low_variance_channels(tokens: VideoTokens, fraction: float = 0.5) -> Tensor:
    """float32 `[C]`, 1 at the `int(C·fraction)` channels of lowest variance (ties to the lower channel), else 0."""
    count = max(1, int(tokens.channels * fraction))
    lowest = torch.sort(channel_statistics(tokens).variance, stable=True).indices[:count]
    return torch.zeros(tokens.channels, device=tokens.device).scatter_(0, lowest, 1.0)


def finite_flag(tokens: VideoTokens) -> Tensor:
    """0-d bool on the features' device, False when a token's features hold NaN or Inf; reads nothing on the host.

    Uses the channel statistics where a method has computed them, else one pass of its own.
    """
    return tokens.memo("finite", lambda: _finite(tokens))


def _finite(tokens: VideoTokens) -> Tensor:
    if tokens.knows("channel_statistics"):
        return channel_statistics(tokens).finite
    extremes = [torch.stack(torch.aminmax(block.values)) for block in blocks(tokens)]
    return torch.isfinite(torch.stack(extremes)).all()
