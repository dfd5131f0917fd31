"""Statistics of token features over the whole video, in blocks: float32 arithmetic without a float32 copy of the whole.

Sums are elementwise products and reductions, never matrix products: those would follow the process's settings for
reduced precision (TF32, bfloat16, autocast), and may round equal rows differently, which would break ties at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.tokens import VideoTokens

_SCRATCH_SHARE = 1 / 64  # of the features' bytes: what the float32 values of one block may take
_SCRATCH_LEAST = 1 << 17  # values; below that, the cost of a call outweighs its work
_SCRATCH_MOST = 1 << 20  # values; more does not make a processor's caches happier


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Per-channel statistics over all tokens of a video.

    Attributes:
        mean: float64 `[C]`.
        variance: float64 `[C]`, the population variance.
        finite: 0-d bool; False when a feature is NaN or Inf (or so large that its square overflows float32).
    """

    mean: Tensor
    variance: Tensor
    finite: Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """Whole frames, or a part of one frame.

    Attributes:
        frames, places: where it lies in `[T, N]`.
        values: `[f, n, C]` float32; empty places read as zero.
        own: whether `values` is a copy, free to be overwritten.
    """

    frames: slice
    places: slice
    values: Tensor
    own: bool

    def times(self, factor: Tensor) -> Tensor:
        """`values · factor`; overwrites `values` where it may."""
        return self.values.mul_(factor) if self.own else self.values * factor

    def minus(self, shift: Tensor) -> Tensor:
        """`values - shift`; overwrites `values` where it may."""
        return self.values.sub_(shift) if self.own else self.values - shift


def blocks(tokens: VideoTokens) -> Iterator[Block]:
    """The features in float32, a block at a time."""
    places, channels = tokens.places, tokens.channels
    rows = max(1, _block_values(tokens) // channels)
    many, few = max(1, rows // places), min(places, -(-places // -(-places // rows)))
    for frame in range(0, tokens.frames, many):
        for place in range(0, places, few):
            where = slice(frame, min(frame + many, tokens.frames)), slice(place, min(place + few, places))
            raw = tokens.features[where]
            values = raw.float()
            if tokens.valid is not None:
                values = torch.where(tokens.valid[where].unsqueeze(-1), values, 0.0)
            yield Block(*where, values, own=values is not raw)


def _block_values(tokens: VideoTokens) -> int:
    size = tokens.features.numel()
    if torch.compiler.is_compiling():
        return size  # a compiler fuses the passes by itself, and one block keeps its graph small
    share = int(size * tokens.features.element_size() * _SCRATCH_SHARE) // 4
    most = _SCRATCH_MOST if tokens.device.type == "cpu" else size
    return min(max(share, _SCRATCH_LEAST), most)


def channel_statistics(tokens: VideoTokens) -> ChannelStatistics:
    """Mean and population variance of every channel over the video's tokens, memoised on it."""
    return tokens.memo("channel_statistics", lambda: _channel_statistics(tokens))


def _channel_statistics(tokens: VideoTokens) -> ChannelStatistics:
    # Each block is centred on its own mean, so that nothing cancels in float32; blocks are merged in float64:
    # n·variance = Σ_blocks [Σ(x - mean_b)² + sum_b²/n_b] - sum²/n.
    total = torch.zeros(tokens.channels, dtype=torch.float64, device=tokens.device)
    squares, between = torch.zeros_like(total), torch.zeros_like(total)
    for block in blocks(tokens):
        present = None if tokens.valid is None else tokens.valid[block.frames, block.places].unsqueeze(-1)
        partial = block.values.sum((0, 1))
        size = block.values.shape[0] * block.values.shape[1] if present is None else present.sum().clamp_min(1)
        centred = block.minus(partial / size)
        if present is not None:
            centred = torch.where(present, centred, 0.0)
        squares += centred.square_().sum((0, 1))
        wide = partial.double()
        total += wide
        between += wide * wide / size
    mean = total / tokens.total
    variance = ((squares + (between - total * mean)) / tokens.total).clamp_min(0.0)
    return ChannelStatistics(mean, variance, torch.isfinite(variance).all())


def low_variance_channels(tokens: VideoTokens, fraction: float = 0.5) -> Tensor:
    """float32 `[C]`, 1 at the `int(C·fraction)` channels of lowest variance (ties to the lower channel), else 0."""
    count = max(1, int(tokens.channels * fraction))
    lowest = torch.sort(channel_statistics(tokens).variance, stable=True).indices[:count]
    return torch.zeros(tokens.channels, device=tokens.device).scatter_(0, lowest, 1.0)


def finite_flag(tokens: VideoTokens) -> Tensor:
    """0-d bool on the features' device, False when a token's features hold NaN or Inf; reads nothing on the host.

    Uses the channel statistics where a method has computed them, else one pass of its own.
    """
    if tokens.knows("channel_statistics"):
        return channel_statistics(tokens).finite
    return tokens.memo("finite", lambda: _finite(tokens))


def _finite(tokens: VideoTokens) -> Tensor:
    extremes = [torch.stack(torch.aminmax(block.values)) for block in blocks(tokens)]
    return torch.isfinite(torch.stack(extremes)).all()
