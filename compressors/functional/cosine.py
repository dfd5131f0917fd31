"""Cosine similarity of tokens to their frame's mean and to the same place of another frame, a block at a time.

Everything is float32 and passes over the features in blocks, so nothing grows with T·N·C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compressors.functional.on_device import at_frames
from compressors.functional.statistics import blocks, column_sums
from compressors.tokens import VideoTokens

NO_COUNTERPART = 2.0  # dissimilarity of a token whose reference frame is empty at its place: all of it is new
LEADING = 3.0  # added to tokens of a frame without reference: above every dissimilarity, which is at most 2

_TINY = torch.finfo(torch.float32).tiny


def norms(tokens: VideoTokens) -> Tensor:
    """Length of every token, float32 `[T, N]`, 0 at empty places; memoised on the video."""
    return tokens.memo("norms", lambda: _norms_and_means(tokens)[0])


def frame_means(tokens: VideoTokens) -> Tensor:
    """Mean of each frame's tokens, float32 `[T, C]`, zero for a frame without tokens; memoised on the video."""
    return tokens.memo("frame_means", lambda: _norms_and_means(tokens)[1])


def _norms_and_means(tokens: VideoTokens) -> tuple[Tensor, Tensor]:
    """Both come from one pass, whichever is asked for first."""
    return tokens.memo("norms_and_means", lambda: _compute_norms_and_means(tokens))


def _compute_norms_and_means(tokens: VideoTokens) -> tuple[Tensor, Tensor]:
    lengths = tokens.features.new_empty(tokens.frames, tokens.places, dtype=torch.float32)
    sums = tokens.features.new_zeros(tokens.frames, tokens.channels, dtype=torch.float32)
    for block in blocks(tokens):
        lengths[block.frames, block.places] = torch.linalg.vector_norm(block.values, dim=-1)
        sums[block.frames] += column_sums(block.values)
    return lengths, sums / tokens.capacity.clamp_min(1).unsqueeze(1)


def cosine_to_frame_mean(tokens: VideoTokens) -> Tensor:
    """`cos(x[t, n], mean_n x[t, n])`, float32 `[T, N]`; 0 where either vector is zero. Memoised on the video."""
    return tokens.memo("cosine_to_frame_mean", lambda: _cosine_to_vectors(tokens, frame_means(tokens)))


def _cosine_to_vectors(tokens: VideoTokens, vectors: Tensor) -> Tensor:
    products = tokens.features.new_empty(tokens.frames, tokens.places, dtype=torch.float32)
    for block in blocks(tokens):
        products[block.frames, block.places] = block.dots(vectors[block.frames].unsqueeze(1)).squeeze(-1)
    return _cosine(products, norms(tokens), vectors.norm(dim=1, keepdim=True))


def cosine_to_frames(tokens: VideoTokens, reference: Sequence[int]) -> Tensor:
    """`cos(x[t, n], x[reference[t], n])`, float32 `[T, N]`; 0 where either vector is zero. Memoised on the video.

    Args:
        tokens: the video.
        reference: one frame index per frame, known on the host; a frame may be its own.
    """
    frames = tuple(reference)
    return tokens.memo(("cosine_to_frames", frames), lambda: _cosine_to_frames(tokens, frames))


def _cosine_to_frames(tokens: VideoTokens, reference: tuple[int, ...]) -> Tensor:
    products = tokens.features.new_empty(tokens.frames, tokens.places, dtype=torch.float32)
    for block in blocks(tokens):
        rows = [tokens.features[frame, block.places] for frame in reference[block.frames]]
        products[block.frames, block.places] = (block.values * torch.stack(rows).float()).sum(-1)
    length = norms(tokens)
    other = at_frames(length, reference)
    # An empty place may hold anything, NaN included, so its product is dropped rather than scaled.
    return _cosine(torch.where(other > 0, products, 0.0), length, other)


def cosine_of_rows(rows: Tensor, others: Tensor) -> Tensor:
    """`cos(rows[n], others[n])` for two `[N, C]` tensors of any float dtype, float32 `[N]`; 0 where a row is zero."""
    left, right = rows.float(), others.float()
    return _cosine((left * right).sum(-1), left.norm(dim=-1), right.norm(dim=-1))


def _cosine(products: Tensor, length: Tensor, other: Tensor) -> Tensor:
    return products / length.clamp_min(_TINY) / other.clamp_min(_TINY)


def dissimilarity_to_frames(tokens: VideoTokens, reference: Sequence[int | None]) -> Tensor:
    """`1 - cos(x[t, n], x[reference[t], n])`, float32 `[T, N]`, at most 2.

    A frame without reference comes before all others: its tokens score 3 more than their dissimilarity to the frame's
    mean, which ranks them among themselves.

    Args:
        tokens: the video.
        reference: frame index per frame, or None for a frame that is compared with nothing.
    """
    itself = [frame if other is None else other for frame, other in enumerate(reference)]
    dissimilarity = 1 - cosine_to_frames(tokens, itself)
    if tokens.valid is not None:
        dissimilarity = torch.where(at_frames(tokens.valid, itself), dissimilarity, NO_COUNTERPART)
    leading = LEADING + 1 - cosine_to_frame_mean(tokens)
    return torch.stack([(leading if other is None else dissimilarity)[t] for t, other in enumerate(reference)])


def dissimilarity_to_previous(tokens: VideoTokens, before: Tensor | None = None) -> Tensor:
    """`1 - cos` to the same place of the previous frame, float32 `[T, N]`.

    Args:
        tokens: the video, or a chunk of a stream.
        before: `[N, C]` the frame before the first one, when there was one; otherwise the first frame leads.
    """
    scores = dissimilarity_to_frames(tokens, [None, *range(tokens.frames - 1)])
    if before is None:
        return scores
    first = 1 - cosine_of_rows(tokens.features[0], before)
    return torch.cat([first.unsqueeze(0), scores[1:]])
