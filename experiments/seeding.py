"""Chance that differs from video to video."""

from __future__ import annotations

import dataclasses
from typing import Any

from compressors.base import Compressor
from compressors.build import build
from compressors.composition import Composition
from compressors.methods import PARTS

_STRIDE, _RUNS = 1_000_003, 998_244_353


def reseeded(compressor: Compressor, number: int, draw: int = 0) -> Compressor:
    """The same compressor with another draw: `random` on its own would choose the same places in every video alike.

    Args:
        compressor: any; without a part that has a `seed` it is returned as it is.
        number: of the video.
        draw: of the run; where both are 0 the seeds are as they were set.
    """
    if not isinstance(compressor, Composition):
        return compressor
    parts: dict[str, Any] = {}
    for kind in PARTS:
        part = getattr(compressor, kind)
        if part is not None and hasattr(part, "seed"):
            parts[kind] = dataclasses.replace(part, seed=part.seed + _STRIDE * number + _RUNS * draw)
    return build(dataclasses.replace(compressor, **parts), cacher=compressor.cacher) if parts else compressor
