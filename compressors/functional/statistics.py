"""Statistics of token features over the whole video, in blocks: float32 arithmetic without a float32 copy of the whole.

What decides between tokens is never one matrix product over many of them: that may round equal rows differently,
depending on where they stand, and so break ties at random. Sums over tokens may be one (`column_sums`), and a product
per token where all of these run alike (`Block.dots`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compressors import kernels
from compressors.tokens import VideoTokens

_SCRATCH_SHARE = 1 / 28  # of the features' bytes: what float32 scratch may take at one time
_SCRATCH_LEAST = 1 << 17  # values; below that, the cost of a call outweighs its work
_SCRATCH_MOST = 1 << 20  # values per buffer; more does not make a processor's caches happier
_READ_TWICE = 1 << 19  # values that are still in a cache when they are read again
_LINE = 16  # float32 values in a cache line


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


@dataclass(eq=False, slots=True)  # not frozen: that would take longer to make, and there are many
class Block:
    """Whole frames, or a part of one frame; to be used before the next block is asked for.

    Attributes:
        frames, places: where it lies in `[T, N]`.
        values: `[f, n, C]` float32; empty places read as zero.
        own: whether `values` is a copy, free to be overwritten.
        spare: memory for one result of the block's size, or None where results are new tensors.
        alike: whether `dots` may use matrix products (`products_alike`).
    """

    frames: slice
    places: slice
    values: Tensor
    own: bool
    spare: Tensor | None
    alike: bool

    def times(self, factor: Tensor, last: bool = True) -> Tensor:
        """`values · factor`, which is good until the next product; if it is the `last`, `values` may be overwritten."""
        return torch.mul(self.values, factor, out=self._room(last))

    def minus(self, shift: Tensor) -> Tensor:
        """`values - shift`; may overwrite `values`."""
        return torch.sub(self.values, shift, out=self._room(True))

    def dots(self, vectors: Tensor) -> Tensor:
        """Every token times the k vectors of its frame, `[f, k, C]` -> `[f, n, k]`; may overwrite `values`.

        Equal tokens of a frame get equal products, wherever they stand. Where products are not alike, this is a sum of
        elementwise products: k of the block's size.
        """
        if not self.alike:
            last = vectors.shape[1] - 1
            sums = [self.times(vectors[:, j].unsqueeze(1), last=j == last).sum(-1) for j in range(last + 1)]
            return torch.stack(sums, dim=-1)
        frames, places, _ = self.values.shape
        each = [
            torch.bmm(tokens.unsqueeze(1), own.mT.expand(places, -1, -1))
            for tokens, own in zip(self.values.unbind(), vectors.unbind(), strict=True)
        ]
        return (each[0] if frames == 1 else torch.cat(each)).view(frames, places, -1)

    def _room(self, last: bool) -> Tensor | None:
        return self.values if self.own and last else self.spare


def blocks(tokens: VideoTokens, products: int = 1) -> Iterator[Block]:
    """The features in float32, a block at a time, in memory that all blocks share.

    Args:
        tokens: the video.
        products: how many results of its size (`Block.times`, `Block.minus`) are formed from each block: 1 or 2.
    """
    features = tokens.features.detach()
    places, channels = tokens.places, tokens.channels
    compiling = torch.compiler.is_compiling()
    own = features.dtype != torch.float32 or tokens.valid is not None
    alike = products_alike(tokens)
    if compiling:
        rows = tokens.frames * places  # a compiler fuses the passes by itself, and one block keeps its graph small
    else:
        rows = max(1, _buffer_values(features, buffers=products if own else 1) // channels)
    many, few = max(1, min(rows // places, tokens.frames)), min(places, -(-places // -(-places // rows)))

    def buffer() -> Tensor:
        return torch.empty(many, few, channels, device=features.device)

    copy = buffer() if own and not compiling else None
    spare = buffer() if not compiling and (products == 2 or not own) else None
    for frame, group in enumerate(torch.split(features, many)):
        for place, part in enumerate(torch.split(group, few, dim=1)):
            where = _stretch(frame * many, part.shape[0]), _stretch(place * few, part.shape[1])
            values = part
            if own:
                values = part.float() if copy is None else _part(copy, part).copy_(part)
            if tokens.valid is not None:
                absent = tokens.valid[where].logical_not().unsqueeze(-1)
                values = values.masked_fill(absent, 0.0) if copy is None else values.masked_fill_(absent, 0.0)
            room = None if spare is None else _part(spare, part)
            yield Block(*where, values, copy is not None, room, alike)


def _stretch(start: int, length: int) -> slice:
    return slice(start, start + length)


def products_alike(tokens: VideoTokens) -> bool:
    """Whether a batch of matrix products, one per token, gives equal tokens equal results, and fast.

    MKL puts all products of a batch, which are equal in shape, through one routine. What is left to differ is where in
    a cache line a token begins: with a multiple of 16 float32 channels, all begin at the same place.
    """
    features = tokens.features
    if features.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    if tokens.channels % _LINE or torch.get_float32_matmul_precision() != "highest":
        return False
    copied = features.dtype != torch.float32 or tokens.valid is not None
    along, across = features.stride()[:2], features.stride(2)
    return copied or (across == 1 and not any(stride % _LINE for stride in along))


def _part(buffer: Tensor, like: Tensor) -> Tensor:
    return buffer if buffer.shape == like.shape else buffer[: like.shape[0], : like.shape[1]]


def _buffer_values(features: Tensor, buffers: int) -> int:
    """How many float32 values each of so many buffers may hold."""
    share = int(features.numel() * features.element_size() * _SCRATCH_SHARE) // (4 * buffers)
    most = _SCRATCH_MOST if features.device.type == "cpu" else features.numel()
    return min(max(share, _SCRATCH_LEAST), most)


def column_sums(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted sum over the tokens of each frame, `[f, n, C]` and `[f, n]` -> `[f, C]`.

    A product with the weights is the fastest sum on a processor. Where products may be computed in reduced precision
    (TF32 on a GPU, or `torch.set_float32_matmul_precision`), and under a compiler, it is written as a sum.
    """
    exact = values.device.type == "cpu" and not torch.compiler.is_compiling()
    if exact and torch.get_float32_matmul_precision() == "highest":
        weight = values.new_ones(values.shape[:2]) if weight is None else weight
        return torch.bmm(weight.unsqueeze(1), values).squeeze(1)
    return (values if weight is None else values * weight.unsqueeze(-1)).sum(1)


def channel_statistics(tokens: VideoTokens) -> ChannelStatistics:
    """Mean and population variance of every channel over the video's tokens, memoised on it."""
    return tokens.memo("channel_statistics", lambda: _channel_statistics(tokens))


def _channel_statistics(tokens: VideoTokens) -> ChannelStatistics:
    # n·variance = Σ_stretches n_s·(variance_s + mean_s²) - n·mean².
    fused = kernels.fused_for(tokens.features)
    sums = _moment_sums(tokens) if fused is None else fused.moment_sums(tokens.features.detach(), tokens.valid)
    total, within, between = sums
    mean = total / tokens.total
    variance = ((within + (between - total * mean)) / tokens.total).clamp_min(0.0)
    return ChannelStatistics(mean, variance, torch.isfinite(variance).all())


def _moment_sums(tokens: VideoTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Over stretches s of n_s tokens, in float64 `[C]`: Σ n_s·mean_s, Σ n_s·variance_s and Σ n_s·mean_s².

    Each stretch is centred on its own mean, so that nothing cancels in float32.
    """
    total = torch.zeros(tokens.channels, dtype=torch.float64, device=tokens.device)
    within, between = torch.zeros_like(total), torch.zeros_like(total)
    for size, mean, variance in _moments(tokens):
        within += variance * size
        wide = mean.double()
        total += wide * size
        between += wide.square_().mul_(size)
    return total, within, between


def _moments(tokens: VideoTokens) -> Iterator[tuple[int | Tensor, Tensor, Tensor]]:
    """Block by block: how many tokens it holds, and the mean and population variance of every channel, float32."""
    features = tokens.features.detach()
    plain = features.device.type == "cpu" and not torch.compiler.is_compiling() and features.is_contiguous()
    if plain and tokens.valid is None and features.dtype != torch.float64:
        # What batch normalisation does: float32 sums straight from any dtype, without writing anything down.
        running = torch.zeros(2, tokens.channels)
        for part in torch.split(features.flatten(0, 1), max(1, _READ_TWICE // tokens.channels)):
            yield part.shape[0], *torch.batch_norm_update_stats(part, running[0], running[1], 0.0)
        return
    for block in blocks(tokens):
        present = None if tokens.valid is None else tokens.valid[block.frames, block.places].unsqueeze(-1)
        size = block.values.shape[0] * block.values.shape[1] if present is None else present.sum().clamp_min(1)
        mean = column_sums(block.values.reshape(1, -1, tokens.channels)).squeeze(0) / size
        centred = block.minus(mean)
        if present is not None:
            centred = torch.where(present, centred, 0.0)
        yield size, mean, column_sums(centred.square_().view(1, -1, tokens.channels)).squeeze(0) / size


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
    features = tokens.features.detach()
    if tokens.valid is None:
        return torch.isfinite(torch.stack(torch.aminmax(features))).all()
    extremes = torch.stack(torch.aminmax(features, dim=-1))
    return (torch.isfinite(extremes) | ~tokens.valid).all()
