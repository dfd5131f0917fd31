"""How much of a frame changed since a reference frame: per place, and which places changed most."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Similarity = Literal["cosine", "l1", "l2", "dot"]
_TINY = 1e-12


def row_norms(features: Tensor) -> Tensor:
    """Euclidean norm of every place: `[..., N, C]` -> `[..., N]` float32 (float64 of float64)."""
    wide = torch.promote_types(features.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(features, dim=-1, dtype=wide)
    return norms


def place_similarity(features: Tensor, reference: Tensor, kind: Similarity, norms: Tensor | None = None) -> Tensor:
    """How alike each place is to the same place of a reference, higher = more alike.

    Args:
        features: `[F, N, C]`.
        reference: `[F, N, C]`, or anything that broadcasts to it.
        kind: cosine, dot product, or minus the L1 or L2 distance.
        norms: `row_norms(reference)`, where the caller has it.

    Returns:
        `[F, N]` float32.
    """
    if kind == "l1":
        return (features.float() - reference.float()).abs_().sum(-1).neg_()
    if kind == "l2":
        return row_norms(features - reference).neg_()
    dots = (features.float() * reference.float()).sum(-1)
    if kind == "dot":
        return dots
    return dots / (row_norms(features) * (row_norms(reference) if norms is None else norms)).clamp_min_(_TINY)


def least_similar(similarity: Tensor, count: int) -> Tensor:
    """The `count` least similar places of every frame, ascending; ties go to the lower index.

    Args:
        similarity: `[F, N]`.
        count: U, known on the host.

    Returns:
        `int64 [F, U]`.
    """
    order = torch.sort(similarity, dim=-1, stable=True).indices
    return torch.sort(order[:, :count], dim=-1).values


def changed_share(frame: Tensor, candidates: Tensor, alike: float) -> Tensor:
    """Share of a frame's places that are not alike in each of some candidates.

    Args:
        frame: `[N, C]`, rows of unit length.
        candidates: `[R, N, C]`, likewise.
        alike: the cosine from which on two places are alike.

    Returns:
        `[R]` float32 in [0, 1].
    """
    return (torch.einsum("nc,rnc->rn", frame, candidates) < alike).float().mean(-1)
