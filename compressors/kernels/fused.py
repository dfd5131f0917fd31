"""The kernels' entry points: plain tensors in and out, as the operations in `compressors.functional` take them.

Every kernel reads the features once and writes tables of a value per token, per frame and channel, or per kept token.
Work is laid out so that equal tokens go through the same arithmetic wherever they stand. No atomic operations: results
do not depend on the order in which programs run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from compressors.kernels import centres, moments, ranking

_PROGRAMS = 1024  # about what keeps a large GPU busy; more only makes the tables of partial sums larger


def moment_sums(features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Over stretches s of n_s tokens: Σ n_s·mean_s, Σ n_s·variance_s, Σ n_s·mean_s².

    Args:
        features: `[T, N, C]`.
        valid: `[T, N]` bool, or None.

    Returns:
        Three float64 `[C]`.
    """
    frames, places, channels = features.shape
    tokens = frames * places
    tile = min(128, triton.next_power_of_2(channels))
    columns = triton.cdiv(channels, tile)
    rows = 32
    stretch = max(rows, triton.cdiv(triton.cdiv(tokens * columns, _PROGRAMS), rows) * rows)
    stretches = triton.cdiv(tokens, stretch)
    size = features.new_empty(stretches, 1, dtype=torch.float32)
    mean = features.new_empty(stretches, channels, dtype=torch.float32)
    variance = torch.empty_like(mean)
    _launch(
        moments.moments_kernel, (stretches, columns),
        features, features if valid is None else valid, size, mean, variance, tokens, channels, stretch,
        ROWS=rows, CHANNELS=tile, RAGGED=valid is not None,
    )  # fmt: skip
    wide = mean.double()
    weighted = wide * size
    return weighted.sum(0), (variance.double() * size).sum(0), (weighted * wide).sum(0)


def norms_and_sums(features: Tensor, valid: Tensor | None, mask: Tensor | None, unit: bool) -> tuple[Tensor, Tensor]:
    """Every token's norm, and the sum of each frame's tokens.

    Args:
        features: `[T, N, C]`.
        valid: `[T, N]` bool, or None; empty places count as zero.
        mask: float32 `[C]` that tokens are multiplied with first, or None.
        unit: sum tokens scaled to length 1, not as they are.

    Returns:
        Norms float32 `[T, N]`, sums float32 `[T, C]`.
    """
    frames, places, channels = features.shape
    width, rows, warps = _tile(channels)
    parts, share = _share(frames, places, rows)
    norm = features.new_empty(frames, places, dtype=torch.float32)
    sums = features.new_empty(frames, parts, channels, dtype=torch.float32)
    _launch(
        centres.norms_kernel, (frames, parts),
        features, features if valid is None else valid, features if mask is None else mask, norm, sums,
        places, channels, share,
        ROWS=rows, CHANNELS=width, RAGGED=valid is not None, MASKED=mask is not None, UNIT=unit, num_warps=warps,
    )  # fmt: skip
    return norm, sums.sum(1)


def similarities(
    features: Tensor,
    valid: Tensor | None,
    norm: Tensor,
    video_centres: Tensor,
    frame_centres: Tensor,
    bandwidths: tuple[float, ...] | None,
) -> tuple[Tensor, Tensor]:
    """Every token's similarity to two centres, whose masked channels are zero.

    Args:
        features: `[T, N, C]`.
        valid: `[T, N]` bool, or None.
        norm: float32 `[T, N]`, of the tokens on the compared channels.
        video_centres, frame_centres: float32 `[T, C]`; the first may be expanded from one row.
        bandwidths: of the Gaussian kernel; None for the cosine.

    Returns:
        Similarity to the video's and to the frame's centre, float32 `[T, N]` each.
    """
    frames, places, channels = features.shape
    width, rows, warps = _tile(channels)
    parts, share = _share(frames, places, rows)
    to_video, to_frame = torch.empty_like(norm), torch.empty_like(norm)
    _launch(
        centres.similarities_kernel, (frames, parts),
        features, features if valid is None else valid, norm, video_centres, frame_centres.contiguous(),
        to_video, to_frame, places, channels, share, video_centres.stride(0),
        ROWS=rows, CHANNELS=width, RAGGED=valid is not None,
        COSINE=bandwidths is None, BANDWIDTHS=bandwidths or (1.0,), num_warps=warps,
    )  # fmt: skip
    return to_video, to_frame


def top_per_frame(scores: Tensor, per_frame: Tensor, total: int) -> Tensor:
    """The `per_frame[t]` highest scores of each frame as ascending flat indices `int64 [total]`, ties to the lower.

    Args:
        scores: float32 `[T, N]`; NaN ranks first.
        per_frame: `int64 [T]` with sum `total`.
        total: K.
    """
    frames, places = scores.shape
    ends = per_frame.cumsum(0)
    keep = scores.new_zeros(total, dtype=torch.int64)
    width = triton.next_power_of_2(places)
    _launch(
        ranking.select_kernel, (frames,),
        scores.contiguous(), per_frame, ends, keep, places, total,
        PLACES=width, OTHERS=max(1, min(width, 8192 // width)),
    )  # fmt: skip
    return keep


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """On the device of the first tensor, which need not be the current one."""
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        kernel[grid](*arguments, **constants)


def _share(frames: int, places: int, rows: int) -> tuple[int, int]:
    """Programs per frame, and how many of a frame's tokens each takes, a multiple of `rows`."""
    parts = max(1, min(triton.cdiv(places, rows), triton.cdiv(_PROGRAMS, frames)))
    share = triton.cdiv(triton.cdiv(places, parts), rows) * rows
    return triton.cdiv(places, share), share


def _tile(channels: int) -> tuple[int, int, int]:
    """Channels (all of them, padded) and tokens that a program holds at one time, and how many warps it has."""
    width = triton.next_power_of_2(channels)
    rows = max(1, min(16, 8192 // width))
    return width, rows, 8 if width * rows > 4096 else 4
