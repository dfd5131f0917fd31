"""Norms and centres in one read of the features, similarities to the centres in another."""

from __future__ import annotations

import triton
import triton.language as tl

_TINY: tl.constexpr = tl.constexpr(1.1754943508222875e-38)  # smallest normal float32


@triton.jit
def _load(features, valid, row, present, column, inside, channels, RAGGED: tl.constexpr):
    """Tokens as float32, empty places and what lies outside as zero."""
    if RAGGED:
        present = present & (tl.load(valid + row, mask=present, other=0) != 0)
    where = row.to(tl.int64)[:, None] * channels + column[None, :]
    return tl.load(features + where, mask=present[:, None] & inside[None, :], other=0.0).to(tl.float32)


@triton.jit
def norms_kernel(
    features,  # [frames·places, channels]
    valid,  # [frames·places] bool, read if RAGGED
    mask,  # [channels] float32, read if MASKED
    norm,  # [frames·places] float32
    sums,  # [frames, parts, channels] float32
    places,
    channels,
    share,  # tokens of a frame that a program takes, a multiple of ROWS
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RAGGED: tl.constexpr,
    MASKED: tl.constexpr,
    UNIT: tl.constexpr,
):
    frame, part = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, CHANNELS)
    inside = column < channels
    total = tl.zeros([CHANNELS], dtype=tl.float32)
    if MASKED:
        compared = tl.load(mask + column, mask=inside, other=0.0)
    last = tl.minimum((part + 1) * share, places)
    for first in range(part * share, last, ROWS):
        place = first + tl.arange(0, ROWS)
        present = place < last
        row = frame * places + place
        values = _load(features, valid, row, present, column, inside, channels, RAGGED)
        if MASKED:
            values = values * compared[None, :]
        length = tl.sqrt(tl.sum(values * values, axis=1))
        tl.store(norm + row, length, mask=present)
        if UNIT:
            values = values * (1.0 / tl.maximum(length, _TINY))[:, None]
        total += tl.sum(values, axis=0)
    tl.store(sums + (frame * tl.num_programs(1) + part).to(tl.int64) * channels + column, total, mask=inside)


@triton.jit
def _similarity(product, norm, length, COSINE: tl.constexpr, BANDWIDTHS: tl.constexpr):
    """Of tokens with a centre: Σ_a exp(-‖x̂ - c‖²/(2a)) by ‖x̂ - c‖² = ‖x̂‖² - 2 x̂·c + ‖c‖², or the cosine."""
    cosine = product / tl.maximum(norm, _TINY)
    if COSINE:
        result = tl.where(length > 0, cosine / tl.maximum(length, _TINY), 0.0)
    else:
        distance = tl.maximum(tl.where(norm > 0, 1.0, 0.0) - 2 * cosine + length * length, 0.0)
        result = tl.zeros_like(distance)
        for i in tl.static_range(len(BANDWIDTHS)):
            result += tl.exp(distance * (-0.5 / BANDWIDTHS[i]))
    return result


@triton.jit
def similarities_kernel(
    features,  # [frames·places, channels]
    valid,  # [frames·places] bool, read if RAGGED
    norm,  # [frames·places] float32
    video_centres,  # [frames, channels] float32, rows `video_stride` apart
    frame_centres,  # [frames, channels] float32
    to_video,  # [frames·places] float32
    to_frame,  # [frames·places] float32
    places,
    channels,
    share,
    video_stride,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RAGGED: tl.constexpr,
    COSINE: tl.constexpr,
    BANDWIDTHS: tl.constexpr,
):
    frame, part = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, CHANNELS)
    inside = column < channels
    video = tl.load(video_centres + frame * video_stride + column, mask=inside, other=0.0)
    own = tl.load(frame_centres + frame * channels + column, mask=inside, other=0.0)
    video_length = tl.sqrt(tl.sum(video * video, axis=0))
    own_length = tl.sqrt(tl.sum(own * own, axis=0))
    last = tl.minimum((part + 1) * share, places)
    for first in range(part * share, last, ROWS):
        place = first + tl.arange(0, ROWS)
        present = place < last
        row = frame * places + place
        values = _load(features, valid, row, present, column, inside, channels, RAGGED)
        length = tl.load(norm + row, mask=present, other=1.0)
        product = tl.sum(values * video[None, :], axis=1)
        tl.store(to_video + row, _similarity(product, length, video_length, COSINE, BANDWIDTHS), mask=present)
        product = tl.sum(values * own[None, :], axis=1)
        tl.store(to_frame + row, _similarity(product, length, own_length, COSINE, BANDWIDTHS), mask=present)
