"""How similar every token is to its frame's and to the video's centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.functional.statistics import blocks, low_variance_channels
from compressors.tokens import VideoTokens

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

    def __call__(self, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        """Similarity to the video's centre and to the frame's centre, both float32 `[T, N]`."""
        return tokens.memo(self, lambda: self._compute(tokens))

    def _compute(self, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        if self.channels == "low_variance":
            mask = low_variance_channels(tokens, self.fraction)
        else:
            mask = torch.ones(tokens.channels, device=tokens.device)
        inverse, sums = self._norms_and_sums(tokens, mask)
        capacity = tokens.capacity.unsqueeze(1)
        frame_centres = sums / capacity.clamp_min(1)
        video_centres = self._video_centres(sums, capacity)
        centres = torch.stack([video_centres, frame_centres], dim=2)
        products = tokens.features.new_empty(tokens.frames, tokens.places, 2, dtype=torch.float32)
        for block in blocks(tokens):
            products[block.frames, block.places] = block.values @ centres[block.frames]
        products = products * inverse.unsqueeze(2)
        lengths = centres.square().sum(1).unsqueeze(1)
        if self.kernel == "cosine":
            similarity = products / lengths.sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        else:
            # ‖x̂ - c‖² = ‖x̂‖² - 2 x̂·c + ‖c‖², where ‖x̂‖² is 0 for a zero token.
            distance = ((inverse > 0).float().unsqueeze(2) - 2 * products + lengths).clamp_min(0.0)
            similarity = torch.stack([torch.exp(distance / (-2 * a)) for a in self.bandwidths]).sum(0)
        return similarity[..., 0], similarity[..., 1]

    def _norms_and_sums(self, tokens: VideoTokens, mask: Tensor) -> tuple[Tensor, Tensor]:
        """1/‖x‖ on the masked channels `[T, N]` (0 for a zero token), and the sum of tokens per frame `[T, C]`, masked."""
        inverse = tokens.features.new_empty(tokens.frames, tokens.places, dtype=torch.float32)
        sums = tokens.features.new_zeros(tokens.frames, tokens.channels, dtype=torch.float32)
        for block in blocks(tokens):
            norm = (block.values.square() @ mask).sqrt()
            scale = torch.where(norm > 0, 1 / norm, 0.0)
            inverse[block.frames, block.places] = scale
            weight = scale if self.centres == "unit" else (norm > 0).float()
            sums[block.frames] += (weight.unsqueeze(1) @ block.values).squeeze(1)
        return inverse, sums * mask

    def _video_centres(self, sums: Tensor, capacity: Tensor) -> Tensor:
        """The video centre each frame is compared with, `[T, C]`: one for all, or one per window of frames."""
        frames = sums.shape[0]
        width = frames if self.window is None else min(self.window, frames)
        centres = [
            (sums[start : start + width].sum(0) / capacity[start : start + width].sum().clamp_min(1)).expand(
                min(width, frames - start), -1
            )
            for start in range(0, frames, width)
        ]
        return torch.cat(centres)
