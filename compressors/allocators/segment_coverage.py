"""Segment coverage: every segment of the video gets its share, however short it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compressors.allocators.mass import MassProportional
from compressors.base import FrameScorer
from compressors.errors import BuildError
from compressors.functional.cosine import frame_means
from compressors.functional.ragged import filled_frames
from compressors.functional.segmentation import neighbour_similarity, threshold_cuts
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("frame_scorer", "segment_coverage")
@dataclass(frozen=True)
class SegmentCoverage(FrameScorer):
    """`(tokens of the video / segments) / tokens of the frame's segment`: tokens of short segments weigh more.

    A segment ends where the cosine between the means of neighbouring frames falls below a threshold (as in FastVID,
    arXiv 2503.11187). Frames without tokens are left out.

    Cost: one pass over the features. No host reads.

    Attributes:
        threshold: of the cosine, below which a segment ends.
        segments: least number of segments, as far as there are frames: cuts are made at the lowest cosines.
    """

    threshold: float = 0.84
    segments: int = 1

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise BuildError(f"frame_scorer 'segment_coverage': threshold={self.threshold} is no cosine in [-1, 1].")
        if self.segments < 1:
            raise BuildError(f"frame_scorer 'segment_coverage': segments={self.segments} must be at least 1.")

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Masses `[T]` float32, 0 for a frame without tokens."""
        path = filled_frames(tokens)
        similarity = neighbour_similarity(frame_means(tokens)[path])
        cuts = threshold_cuts(similarity, self.threshold, self.segments).long()
        segment = torch.cat([cuts.new_zeros(1), cuts.cumsum(0)])
        size = tokens.capacity[path]
        # As many slots as frames: how many segments there are stays on the device.
        whole = torch.zeros_like(size).scatter_add(0, segment, size)
        mass = tokens.total / (segment[-1] + 1) / whole[segment]
        return frame_means(tokens).new_zeros(tokens.frames).scatter(0, path, mass.float())


@register("allocator", "segment_coverage")
@dataclass(frozen=True)
class SegmentShares(MassProportional):
    """Each segment's share is equal, and split evenly among its frames; the allocator `mass` on `segment_coverage`.

    With `power=0.5` a segment of L frames gets a share in proportion to √L, with `power=0` to L.

    Cost: that of its frame scorer, one pass over the features, and sorts of 2·T numbers; no host reads.
    """

    frame_scorer: FrameScorer | str | Mapping[str, Any] = field(default_factory=SegmentCoverage)
