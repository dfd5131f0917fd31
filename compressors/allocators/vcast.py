"""V-CAST's budgets: more tokens where the video's path through feature space bends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.base import Allocator
from compressors.errors import BuildError
from compressors.functional.cosine import frame_means
from compressors.functional.ragged import filled_frames
from compressors.functional.water_filling import water_filling
from compressors.registry import register
from compressors.tokens import VideoTokens

_LEAST_LENGTH = 1e-8  # shorter steps between frames have no direction


@register("allocator", "vcast")
@dataclass(frozen=True)
class Curvature(Allocator):
    """Curvature budgets of V-CAST (arXiv 2603.27650): a floor, and `softmax(curvature / temperature)` of the rest.

    With f_t the unit mean of frame t, `curvature_t = 1 - cos(f_t - f_{t-1}, f_{t+1} - f_t)`, and 1 at both ends and
    where the video stands still. Frames without tokens are left out of the path.

    Cost: one pass over the features for the frame means; no host reads (one of T counts for "released").

    Attributes:
        temperature: of the softmax.
        min_tokens: least budget of a frame, as long as the total allows it: `min(min_tokens, K // T)`.
        rounding: "exact" spends the total by water-filling and largest remainder; "released" rounds down, gives the
            whole remainder to the frame with the largest fraction, keeps at least `T·min_tokens`, and a lone frame
            whole.
    """

    temperature: float = 0.7
    min_tokens: int = 1
    rounding: Literal["exact", "released"] = "exact"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BuildError(f"allocator 'vcast': temperature={self.temperature} must be above 0.")
        if self.min_tokens < 0:
            raise BuildError(f"allocator 'vcast': min_tokens={self.min_tokens} must be 0 or more.")

    @property
    def exact(self) -> bool:
        return self.rounding == "exact"

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        floor = min(self.min_tokens, total // tokens.frames)
        counts = tokens.counts or (tokens.places,) * tokens.frames
        base = tokens.capacity.clamp_max(floor)
        rest = total - sum(min(floor, count) for count in counts)
        return base + water_filling(self.weights(tokens), tokens.capacity - base, rest)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets as the release rounds them, `int64 [T]`."""
        if tokens.frames == 1:
            return tokens.capacity
        total = max(round(tokens.total * retention), tokens.frames * self.min_tokens)
        base = tokens.capacity.clamp_max(self.min_tokens)
        room = tokens.capacity - base
        wanted = self.weights(tokens) * (total - tokens.frames * self.min_tokens)
        extra = torch.minimum(wanted.floor().long(), room)
        fraction = torch.where(extra < room, wanted - wanted.floor(), -1.0)
        left = total - tokens.frames * self.min_tokens - extra.sum()
        first = torch.zeros_like(room).scatter(0, fraction.argmax(0, keepdim=True), 1)
        return base + torch.minimum(extra + first * left, room)

    def weights(self, tokens: VideoTokens) -> Tensor:
        """`softmax(curvature / temperature)` over the frames that hold tokens, float32 `[T]`; 0 for the others."""
        curvature = self.curvature(tokens)
        present = tokens.capacity > 0
        return torch.softmax(torch.where(present, curvature / self.temperature, float("-inf")), dim=0)

    def curvature(self, tokens: VideoTokens) -> Tensor:
        """How sharply the path of frame means turns at each frame, 0 … 2, float32 `[T]`."""
        path = filled_frames(tokens)
        unit = torch.nn.functional.normalize(frame_means(tokens)[path], dim=1)
        step = unit.diff(dim=0)
        length = step.norm(dim=1).clamp_min(_LEAST_LENGTH)
        turn = 1 - (step[:-1] * step[1:]).sum(1) / (length[:-1] * length[1:])
        curvature = unit.new_ones(tokens.frames)
        return curvature.scatter(0, path[1:-1], turn)
