"""How similar every token is to its frame's and to the video's centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors import kernels
from compressors.errors import BuildError
from compressors.functional.statistics import blocks, column_sums, low_variance_channels, products_alike
from compressors.tokens import VideoTokens

_TINY = torch.finfo(torch.float32).tiny

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class CentreSimilarity:
    """What is compared and how; equal settings share one computation per video.

    Attributes:
        channels: "low_variance" compares on the `int(C·fraction)` channels of lowest variance, "all" on all.
        fraction: share of the channels for "low_variance".
        kernel: "gaussian": Σ_a exp(-‖x-c‖²/(2a)) over the bandwidths, on unit tokens; "cosine": cos(x, c).
        bandwidths: the a of the Gaussian kernel.
        centres: "unit" averages tokens of unit length (centres are not renormalised), "raw" tokens as they are.
        window: frames per video centre; None = one centre for the whole video.
    """

    channels: Literal["low_variance", "all"] = "low_variance"
    fraction: float = 0.5
    kernel: Literal["gaussian", "cosine"] = "gaussian"
    bandwidths: tuple[float, ...] = BANDWIDTHS
    centres: Literal["unit", "raw"] = "unit"
    window: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise BuildError(f"fraction={self.fraction} is outside (0, 1]: 0.5 compares on half of the channels.")
        if self.window is not None and self.window < 1:
            raise BuildError(f"window={self.window} must be at least 1 frame, or null for the whole video.")
        if not self.bandwidths or min(self.bandwidths) <= 0:
            raise BuildError(f"bandwidths={self.bandwidths} must be one or more numbers above 0.")

    def __call__(self, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        """Similarity to the video's centre and to the frame's centre, both float32 `[T, N]`."""
        return tokens.memo(self, lambda: self._compute(tokens))

    def _compute(self, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        mask = None if self.channels == "all" else low_variance_channels(tokens, self.fraction)
        fused = kernels.fused_for(tokens.features)
        features = tokens.features.detach()
        if fused is None:
            norm, sums = self._norms_and_sums(tokens, mask)
        else:
            norm, sums = fused.norms_and_sums(features, tokens.valid, mask, self.centres == "unit")
        capacity = tokens.capacity.unsqueeze(1)
        video_centres, centres = self._video_centres(sums, capacity), sums.div_(capacity.clamp_min(1))
        if fused is not None:
            bandwidths = self.bandwidths if self.kernel == "gaussian" else None
            video, frame = fused.similarities(features, tokens.valid, norm, video_centres, centres, bandwidths)
            return video, frame
        product = self._products(tokens, video_centres, centres)
        length = torch.stack([torch.linalg.vector_norm(c, dim=1) for c in (video_centres, centres)], dim=1)
        similarity = self._kernel(product, norm.unsqueeze(2), length.unsqueeze(1))
        return similarity[..., 0], similarity[..., 1]

    def _norms_and_sums(self, tokens: VideoTokens, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """On the masked channels: ‖x‖ `[T, N]`, and the sum of a frame's tokens `[T, C]`, of length 1 or raw."""
        norms = []
        sums = tokens.features.new_zeros(tokens.frames, tokens.channels, dtype=torch.float32)
        for block in blocks(tokens):
            masked = block.values if mask is None else block.times(mask)
            norm = torch.linalg.vector_norm(masked, dim=-1)
            norms.append(norm.flatten())
            weight = norm.clamp_min(_TINY).reciprocal_() if self.centres == "unit" else None
            sums[block.frames].add_(column_sums(masked, weight))
        return torch.cat(norms).view(tokens.frames, tokens.places), sums

    def _products(self, tokens: VideoTokens, *centres: Tensor) -> Tensor:
        """Every token times its frame's k centres, each `[T, C]` -> `[T, N, k]`."""
        products = []
        for block in blocks(tokens, products=1 if products_alike(tokens) else len(centres)):
            vectors = torch.stack([centre[block.frames] for centre in centres], dim=1)
            products.append(block.dots(vectors).flatten(0, 1))
        return torch.cat(products).view(tokens.frames, tokens.places, len(centres))

    def _video_centres(self, sums: Tensor, capacity: Tensor) -> Tensor:
        """The video centre that each frame is compared with, `[T, C]`: one for all, or one per window of frames."""
        frames = sums.shape[0]
        if self.window is None:
            return (sums.sum(0) / capacity.sum()).expand(frames, -1)
        centres = []
        for start in range(0, frames, self.window):
            inside = slice(start, min(start + self.window, frames))
            centre = sums[inside].sum(0) / capacity[inside].sum().clamp_min(1)
            centres.append(centre.expand(inside.stop - start, -1))
        return torch.cat(centres)

    def _kernel(self, product: Tensor, norm: Tensor, length: Tensor) -> Tensor:
        """Similarity of tokens with centres: their products, the tokens' norms and the centres' (broadcast)."""
        cosine = product / norm.clamp_min(_TINY)
        if self.kernel == "cosine":
            return torch.where(length > 0, cosine / length, 0.0)
        # ‖x̂ - c‖² = ‖x̂‖² - 2 x̂·c + ‖c‖², where ‖x̂‖² is 1, or 0 for a zero token.
        distance = torch.where(norm > 0, 1.0, 0.0).sub(cosine, alpha=2).add_(length.square()).clamp_min_(0.0)
        similarity = torch.zeros_like(distance)
        for a in self.bandwidths:
            similarity += torch.exp(distance / (-2 * a))
        return similarity


@dataclass(frozen=True)
class ByCentres:
    """The settings of a component that scores by `CentreSimilarity`, in plain values, checked when it is built."""

    channels: Literal["low_variance", "all"] = "low_variance"
    fraction: float = 0.5
    kernel: Literal["gaussian", "cosine"] = "gaussian"
    bandwidths: Sequence[float] = BANDWIDTHS
    centres: Literal["unit", "raw"] = "unit"
    window: int | None = None

    def __post_init__(self) -> None:
        self.similarity  # checks its settings when the scorer is built  # noqa: B018

    @property
    def similarity(self) -> CentreSimilarity:
        return CentreSimilarity(
            self.channels, self.fraction, self.kernel, tuple(self.bandwidths), self.centres, self.window
        )
