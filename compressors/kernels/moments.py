"""Channel statistics in one read of the features."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def moments_kernel(
    features,  # [tokens, channels]
    valid,  # [tokens] bool, read if RAGGED
    size,  # [stretches] float32
    mean,  # [stretches, channels] float32
    variance,  # [stretches, channels] float32
    tokens,
    channels,
    stretch,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RAGGED: tl.constexpr,
):
    """A program takes one stretch of tokens and CHANNELS channels, ROWS tokens at a time.

    Each tile is centred on its own mean, and tiles are merged by M2 = M2_a + M2_b + δ²·n_a·n_b/(n_a + n_b), so that
    nothing cancels in float32.
    """
    part = tl.program_id(0)
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < channels
    count = 0.0
    average = tl.zeros([CHANNELS], dtype=tl.float32)
    squares = tl.zeros([CHANNELS], dtype=tl.float32)
    last = tl.minimum((part + 1) * stretch, tokens)
    for first in range(part * stretch, last, ROWS):
        row = first + tl.arange(0, ROWS)
        present = row < last
        if RAGGED:
            present = present & (tl.load(valid + row, mask=present, other=0) != 0)
        there = present[:, None] & inside[None, :]
        where = row.to(tl.int64)[:, None] * channels + column[None, :]
        values = tl.load(features + where, mask=there, other=0.0).to(tl.float32)
        found = tl.sum(present.to(tl.float32), axis=0)
        tile_mean = tl.sum(values, axis=0) / tl.maximum(found, 1.0)
        centred = tl.where(there, values - tile_mean[None, :], 0.0)
        both = tl.maximum(count + found, 1.0)
        shift = tile_mean - average
        average += shift * (found / both)
        squares += tl.sum(centred * centred, axis=0) + shift * shift * (count * found / both)
        count += found
    tl.store(mean + part * channels + column, average, mask=inside)
    tl.store(variance + part * channels + column, squares / tl.maximum(count, 1.0), mask=inside)
    if tl.program_id(1) == 0:
        tl.store(size + part, count)
