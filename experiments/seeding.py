"""Chance that differs from video to video."""

from __future__ import annotations

import dataclasses
from typing import Any

from compressors.base import Compressor
from compressors.composition import Composition
from compressors.methods import PARTS

_STRIDE = 1_000_003


def reseeded(compressor: Compressor, number: int) -> Compressor:
    """The same compressor with another draw: `random` on its own would choose the same places in every video alike.

    Args:
        compressor: any; without a part that has a `seed` it is returned as it is.
        number: of the video; 0 leaves the seeds as they were set.
    """
    if not isinstance(compressor, Composition):
        return compressor
    parts: dict[str, Any] = {}
    for kind in PARTS:
        part = getattr(compressor, kind)
        if part is not None and hasattr(part, "seed"):
            parts[kind] = dataclasses.replace(part, seed=part.seed + _STRIDE * number)
    return dataclasses.replace(compressor, **parts) if parts else compressor
