"""Tokens gathered by the centre that is most like them, and averaged with it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compressors.functional.fit_to_budget import Edges

_CHUNK_VALUES = 1 << 23  # float32 values of scratch at a time


def most_similar(
    features: Tensor, source: Tensor, centres: Tensor, measure: Literal["cosine", "euclidean"] = "cosine"
) -> Tensor:
    """The most similar centre of each token; a centre belongs to itself.

    Args:
        features: `[T·N, C]`, any float dtype.
        source: flat indices of the tokens, `int64 [M]`.
        centres: flat indices of the centres, `int64 [m]`, ascending (ties go to the lower index).
        measure: highest cosine, or least distance.

    Returns:
        Flat index of each token's centre, `int64 [M]`. Scratch: blocks of tokens.
    """
    columns = features.index_select(0, centres).float()
    if measure == "cosine":
        columns, origin, offset = torch.nn.functional.normalize(columns, dim=1), None, None
    else:
        # ‖x - c‖² is least where x·c - ‖c‖²/2 is greatest; from the centres' mean, so that no digits cancel.
        origin = columns.mean(0)
        columns = columns - origin
        offset = columns.square().sum(1) / 2
    step = max(1, _CHUNK_VALUES // max(features.shape[1], centres.shape[0]))
    nearest = []
    for part in torch.split(source, step):
        rows = features.index_select(0, part).float()
        if origin is None or offset is None:
            # A token's own length changes nothing.
            nearest.append((rows @ columns.mT).argmax(1))
        else:
            nearest.append(((rows - origin) @ columns.mT - offset).argmax(1))
    place = centres[torch.cat(nearest)]
    itself = centres[torch.searchsorted(centres, source).clamp_max(centres.shape[0] - 1)]
    return torch.where(itself == source, source, place)


def centre_and_mean(
    source: Tensor, place: Tensor, centre_weight: float, places: int, *, least: bool = False, include: bool = True
) -> Edges:
    """Rows `w·centre + (1 - w)·mean(gathered)`; every centre is among the sources and flows into itself.

    Args:
        source: flat indices of the gathered tokens, `int64 [E]`.
        place: flat index of the centre each flows into, `int64 [E]`.
        centre_weight: w; 0 with `include` is the plain mean.
        places: T·N.
        least: take `w = max(centre_weight, 1 / (count + 1))`, where count is the number of gathered tokens.
        include: whether the centre is one of the gathered tokens that are counted and averaged.
    """
    itself = source == place
    counted = torch.ones(source.shape[0], device=source.device) if include else (~itself).float()
    count = torch.zeros(places, device=source.device).index_add_(0, place, counted)[place]
    weight = torch.full_like(count, centre_weight)
    if least:
        weight = torch.maximum(weight, 1 / (count + 1))
    # A centre that gathered nothing else is itself.
    weight = torch.where(count > 0, weight, 1.0)
    return Edges(source, place, counted * (1 - weight) / count.clamp_min(1) + torch.where(itself, weight, 0.0))
