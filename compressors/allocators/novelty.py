"""Novelty: more tokens for frames that show what the frame before did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from compressors.allocators.mass import MassProportional
from compressors.base import FrameScorer
from compressors.functional.cosine import cosine_to_frames
from compressors.functional.on_device import at_frames
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("frame_scorer", "novelty")
@dataclass(frozen=True)
class FrameNovelty(FrameScorer):
    """`mean_n clamp(1 - cos(x[t, n], x[t-1, n]), 0, 1)`: 0 for a still frame, 1 for one with nothing of the last.

    Frames without tokens are passed over; a token whose place was empty in the frame before is new. All of the first
    frame is new, but how new that is beside later frames its features cannot tell: it counts like the newest of
    them, so that a cut divides the budget evenly between the first frame and the frame after the cut, each of which
    brings a scene. A chunk of a stream starts anew.

    Cost: three passes over the features. No host reads.

    Attributes:
        first: the first frame's novelty: the "max" or the "mean" of the others; 1 where there are none.
    """

    first: Literal["max", "mean"] = "max"

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Masses `[T]` float32, 0 … 1; 0 for a frame without tokens."""
        counts = tokens.counts or (tokens.places,) * tokens.frames
        filled = [t for t, count in enumerate(counts) if count]
        before, last = [], filled[0]
        for t, count in enumerate(counts):
            before.append(last)
            last = t if count else last
        change = (1 - cosine_to_frames(tokens, before)).clamp(0.0, 1.0)
        if tokens.valid is not None:
            change = torch.where(at_frames(tokens.valid, before), change, 1.0)
            change = torch.where(tokens.valid, change, 0.0)
        novelty = change.sum(1) / tokens.capacity.clamp_min(1)
        if len(filled) < 2:
            first = torch.ones_like(novelty)
        else:
            later = at_frames(novelty, filled[1:])
            first = (later.amax() if self.first == "max" else later.mean()).expand_as(novelty)
        leads = torch.arange(tokens.frames, device=tokens.device) == filled[0]
        return torch.where(leads, first, novelty)


@register("allocator", "novelty")
@dataclass(frozen=True)
class Novelty(MassProportional):
    """Budgets in proportion to how much of a frame was not in the frame before; the allocator `mass` on `novelty`.

    Cost: that of its frame scorer, three passes over the features, and sorts of 2·T numbers; no host reads.
    """

    frame_scorer: FrameScorer | str | Mapping[str, Any] = field(default_factory=FrameNovelty)
