"""PruneVid, first stage: scenes by clustering, static places averaged over time, everything merged in space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressors.base import Compression, Compressor
from compressors.functional.cosine import cosine_to_frames, frame_means
from compressors.functional.density_peaks import density_peaks, nearest_centre
from compressors.functional.fit_to_budget import Edges, fit_draft
from compressors.functional.on_device import integers
from compressors.functional.ragged import count_per_frame, ranks
from compressors.functional.segmentation import contiguous_segments
from compressors.functional.water_filling import largest_remainder
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("compressor", "prunevid")
@dataclass(frozen=True)
class PruneVid(Compressor):
    """The first stage of PruneVid (arXiv 2412.16117), before the language model: merging in time and in space.

    - Scenes: the frame means are clustered around `⌊segment_share·T⌋` density peaks; each cluster keeps its longest run
      of frames, other runs join the longer neighbour.
    - A place is static in a scene if the mean cosine of its tokens over all pairs of frames is above `threshold`; its
      tokens become their temporal mean, in the scene's first frame.
    - Each group (a scene's static places, a frame's other tokens) is merged around density peaks; every token goes to
      the nearest centre, and a row is the plain mean of its tokens. The release keeps half of every group of more than
      14; here the groups share the budget in proportion to their sizes.

    If even the groups unmerged are fewer than the budget, the tokens least like the frame before return.

    Cost: distances within frames and scenes, O(T·N²·C), a loop over frames; holds every scene's mean, N·C float32. One
    read of T integers on the host.

    Attributes:
        segment_share: clusters per frame.
        threshold: τ.
        neighbours: k of the density.
    """

    segment_share: float = 0.25
    threshold: float = 0.8
    neighbours: int = 7

    no_allocator: ClassVar[str] = (
        "scenes and frames share the budget in proportion to what is left of them once static places are averaged "
        "(flashvid and fastvid take an allocator)"
    )

    @property
    def host_reads(self) -> int:
        return 1

    @property
    def merges(self) -> bool:
        return True

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        everyone = torch.ones(tokens.features.shape[:2], dtype=torch.bool, device=tokens.device)
        everyone = everyone if tokens.valid is None else tokens.valid
        segments = self.segments(tokens)
        means = [_temporal_mean(tokens, everyone, first, end, self.threshold) for first, end in segments]
        static = torch.stack([still for still, _ in means])
        scene = integers([s for s, (first, end) in enumerate(segments) for _ in range(first, end)], tokens.device)
        moving = everyone & ~static[scene]

        sizes = torch.cat([static.sum(1), moving.sum(1)])
        share = (total / sizes.sum().double()).clamp_max(1.0)
        budgets = torch.minimum(largest_remainder(sizes * share, total), sizes)
        for_static, for_moving = budgets[: len(segments)], budgets[len(segments) :]

        place = self._nearest(tokens.features, moving, for_moving)
        start = torch.arange(tokens.frames, device=tokens.device) * tokens.places
        row = start.unsqueeze(1) + place
        flows = moving & (for_moving > 0).unsqueeze(1)
        for number, ((first, end), (still, mean)) in enumerate(zip(segments, means, strict=True)):
            if end - first > 1:
                chosen = self._nearest(mean.unsqueeze(0), still.unsqueeze(0), for_static[number : number + 1])
                row[first:end] = torch.where(still, first * tokens.places + chosen, row[first:end])
                flows[first:end] |= still & (for_static[number] > 0)

        flat, going = row.flatten(), flows.flatten()
        count = torch.zeros(flat.shape[0], device=flat.device).index_add_(0, flat, going.float())
        weight = torch.where(going, 1 / count[flat].clamp_min(1), 0.0)
        edges = Edges(torch.arange(flat.shape[0], device=flat.device), flat, weight)
        change = 1 - cosine_to_frames(tokens, [0, *range(tokens.frames - 1)])
        keep, merge = fit_draft(tokens, torch.zeros_like(everyone), edges, change, total)
        return Compression(tokens, keep, count_per_frame(keep, tokens), None, merge, tokens.history)

    def segments(self, tokens: VideoTokens) -> list[tuple[int, int]]:
        """(first, past the last) frame of every scene; the method's one read on the host."""
        means = frame_means(tokens).unsqueeze(0)
        every = torch.ones(means.shape[:2], dtype=torch.bool, device=tokens.device)
        number = max(1, int(tokens.frames * self.segment_share))
        centres = ranks(density_peaks(means, every, self.neighbours)) < number
        labels: list[int] = nearest_centre(means, every, centres)[0].tolist()
        return contiguous_segments(labels)

    def _nearest(self, features: Tensor, members: Tensor, budgets: Tensor) -> Tensor:
        """The place of each member's cluster, around as many density peaks of its set as the budget says."""
        peaks = density_peaks(features, members, self.neighbours)
        centres = members & (ranks(peaks) < budgets.unsqueeze(1))
        return nearest_centre(features, members, centres)


def _temporal_mean(
    tokens: VideoTokens, present: Tensor, first: int, end: int, threshold: float
) -> tuple[Tensor, Tensor]:
    """Which places are static in frames first … end-1, bool `[N]`, and every place's mean there, float32 `[N, C]`."""
    length = end - first
    total = torch.zeros(tokens.places, tokens.channels, device=tokens.device)
    if length == 1:
        return torch.zeros_like(present[0]), total
    units = torch.zeros_like(total)
    for t in range(first, end):
        values = torch.where(present[t].unsqueeze(1), tokens.features[t].float(), 0.0)
        total += values
        units += torch.nn.functional.normalize(values, dim=1)
    # The sum of cosines over all ordered pairs is ‖Σ u‖² less the L cosines of a token with itself.
    cosine = (units.square().sum(1) - length) / (length * (length - 1))
    return (cosine > threshold) & present[first:end].all(0), total / length
