"""FastVID: dynamic segments, salient tokens by attention, the rest merged around density peaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.attention_merging import AllocatorSpec, WithAllocator
from compressors.base import Compression
from compressors.functional.cosine import frame_means
from compressors.functional.density_peaks import density_peaks
from compressors.functional.fit_to_budget import Edges, fit_draft
from compressors.functional.gathering import centre_and_mean, most_similar
from compressors.functional.on_device import integers
from compressors.functional.ragged import count_per_frame, indices_of, push_back_invalid, ranks
from compressors.functional.segmentation import neighbour_similarity, segments_of, threshold_cuts
from compressors.functional.shares import evenly, in_proportion
from compressors.registry import register
from compressors.requirements import FrameFeatures, Requirement
from compressors.tokens import VideoTokens


@register("compressor", "fastvid")
@dataclass(frozen=True)
class FastVid(WithAllocator):
    """FastVID (arXiv 2503.11187): dynamic temporal segmentation and density-based merging.

    - Segments (DySeg): a cut wherever `cos(f_t, f_{t+1}) < threshold`, and at the `segments - 1` lowest in any case.
    - Salient tokens: in every frame the tokens of highest attention, `1 - context_share` of its budget.
    - Context tokens (DTM): every `anchor_stride`-th frame of a segment, counted from its end, is an anchor and holds an
      equal part of the segment's context budget. An anchor's centres are its best non-salient tokens by
      `density_peaks`; around them *each* anchor gathers all non-salient tokens of the segment by cosine, and a centre
      becomes
      `w·centre + (1 - w)·mean(gathered)`, `w = max(centre_weight, 1/(count + 1))`. So one token may flow into several
      rows. A segment that is one frame is no special case.

    The releases give all frames the same budget. An `allocator` may set them instead: a segment then spends what its
    frames have, its salient tokens in proportion to the frames' budgets.

    Cost: distances within anchor frames, `O(N²·C)` each, and every token of a segment against its anchors' centres,
    about `O(T·N·K·C)` in all for one long segment; in blocks. Memory: an edge for every token and anchor of its
    segment. One read of at most T integers on the host.

    Attributes:
        threshold: of the frame similarity, below which a segment ends.
        segments: least number of segments (as far as there are frames).
        duplicate: a frame more similar than this to the next of its segment gets no budget and is no anchor (its tokens
            are still gathered), and the others share what it would have had; None leaves none out.
        context_share: d, the share of context tokens.
        anchor_stride: p.
        centre_weight: β.
        include_centre: whether a centre counts among the tokens it gathers (the original release) or not (the Qwen
            release).
        neighbours: k of the density.
        frame_descriptor: what frames are compared by: the vision tower's "pooled" output, or their tokens' "mean".
        layer, row: which attention ranks the salient tokens (`Attention`).
        rounding: "exact" gives each segment its share of exactly K tokens; "segment" (the Qwen release) gives each
            frame `⌊R·N⌋` and splits by segment; "frame" (the original release) splits each frame's `⌊R·N⌋` and rounds
            each anchor down. The last two miss K.
        allocator: sets the frames' budgets; None gives all the same.
    """

    threshold: float = 0.9
    segments: int = 8
    duplicate: float | None = None
    context_share: float = 0.4
    anchor_stride: int = 4
    centre_weight: float = 0.6
    include_centre: bool = True
    neighbours: int = 4
    frame_descriptor: Literal["pooled", "mean"] = "pooled"
    layer: int = -1
    row: Literal["cls", "column_mean", "pool_head"] = "pool_head"
    rounding: Literal["exact", "segment", "frame"] = "exact"
    allocator: AllocatorSpec = None

    @property
    def requirements(self) -> frozenset[Requirement]:
        return super().requirements | (frozenset({FrameFeatures()}) if self.frame_descriptor == "pooled" else set())

    @property
    def host_reads(self) -> int:
        return 1 if self.frames_by is None else 1 + self.frames_by.host_reads

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        assert tokens.attention is not None
        attention = tokens.attention.float()
        counts = tokens.counts or (tokens.places,) * tokens.frames
        budgets = None if self.frames_by is None else self.frames_by.spend(tokens, attention, total).per_frame
        segments, spent = self._segments(tokens, budgets, total)
        shares = self._shares(segments, counts, spent, total, retention)
        salient = [0] * tokens.frames
        context = [0] * tokens.frames
        for segment, share in zip(segments, shares, strict=True):
            self._split(segment, share, counts, spent, salient, context)
        plain = ranks(push_back_invalid(attention, tokens)) < integers(salient, tokens.device).unsqueeze(1)
        rest = ~plain if tokens.valid is None else tokens.valid & ~plain
        merged = [self._merge(tokens, rest, segment, counts, salient, context) for segment in segments]
        if not self.exact:
            total = sum(salient) + sum(context)
        keep, merge = fit_draft(tokens, plain, Edges.join(merged, tokens.device), attention, total)
        return Compression(tokens, keep, count_per_frame(keep, tokens), attention, merge, self.next_history(tokens))

    def _segments(
        self, tokens: VideoTokens, budgets: Tensor | None, total: int
    ) -> tuple[list[Segment], list[int] | None]:
        """The video's segments, and the allocator's budgets; the method's one read on the host."""
        if tokens.frames == 1:
            return [Segment(range(1), [0])], None if budgets is None else [total]
        descriptors = tokens.frame_features if self.frame_descriptor == "pooled" else frame_means(tokens)
        assert descriptors is not None
        similarity = neighbour_similarity(descriptors)
        cuts = threshold_cuts(similarity, self.threshold, self.segments)
        repeats = similarity > (float("inf") if self.duplicate is None else self.duplicate)
        codes = cuts + 2 * repeats
        if budgets is not None:
            codes = torch.cat([codes + 4 * budgets[:-1], 4 * budgets[-1:]])
        read: list[int] = codes.tolist()
        spans = segments_of([code % 2 == 1 for code in read[: tokens.frames - 1]])
        segments = [
            Segment(range(first, end), [t for t in range(first, end) if t == end - 1 or read[t] % 4 < 2])
            for first, end in spans
        ]
        return segments, None if budgets is None else [code // 4 for code in read]

    def _shares(
        self,
        segments: Sequence[Segment],
        counts: Sequence[int],
        spent: Sequence[int] | None,
        total: int,
        retention: float,
    ) -> list[Share]:
        """What each segment may spend, on salient and on context tokens."""
        if self.rounding == "frame":
            frame = [int(count * retention) for count in counts]
            context = [int(budget * self.context_share) for budget in frame]
            return [
                Share(sum(frame[t] - context[t] for t in s.span), sum(context[t] for t in s.span)) for s in segments
            ]
        if spent is not None:
            budgets = [sum(spent[t] for t in s.span) for s in segments]
        elif self.rounding == "segment":
            budgets = [sum(int(counts[t] * retention) for t in s.span) for s in segments]
        else:
            budgets = in_proportion(total, [sum(counts[t] for t in s.span) for s in segments])
        context = [int(budget * self.context_share) for budget in budgets]
        return [Share(budget - part, part) for budget, part in zip(budgets, context, strict=True)]

    def _split(
        self,
        segment: Segment,
        share: Share,
        counts: Sequence[int],
        spent: Sequence[int] | None,
        salient: list[int],
        context: list[int],
    ) -> None:
        """A segment's share over its frames: salient tokens evenly (the rest to the first frames) or as the allocator
        says, context tokens over the anchors (the rest to the last); nowhere more than a frame holds."""
        weights = [1 if spent is None else spent[t] for t in segment.frames]
        for t, number in zip(segment.frames, in_proportion(share.salient, weights), strict=True):
            salient[t] = min(number, counts[t])
        anchors = segment.frames[:: -self.anchor_stride]
        each = share.context // len(anchors)
        for t, number in zip(anchors, evenly(share.context, len(anchors)), strict=True):
            context[t] = min(each if self.rounding == "frame" else number, counts[t] - salient[t])

    def _merge(
        self,
        tokens: VideoTokens,
        rest: Tensor,
        segment: Segment,
        counts: Sequence[int],
        salient: Sequence[int],
        context: Sequence[int],
    ) -> Edges:
        """The rows of a segment's anchors, each gathered from all of the segment's tokens that are not salient."""
        source = torch.cat([_members(rest, t, counts[t] - salient[t]) for t in segment.span])
        flat = tokens.features.flatten(0, 1)
        edges = []
        for t in segment.frames:
            if context[t]:
                peaks = density_peaks(
                    tokens.features[t : t + 1], rest[t : t + 1], self.neighbours, break_ties=self.exact
                )
                centres = t * tokens.places + indices_of(ranks(peaks) < context[t], context[t])
                place = most_similar(flat, source, centres)
                edges.append(
                    centre_and_mean(
                        source, place, self.centre_weight, flat.shape[0], least=True, include=self.include_centre
                    )
                )
        return Edges.join(edges, tokens.device)


@dataclass(frozen=True)
class Segment:
    """A stretch of frames that belong together, and those of them that are not left out as near-duplicates."""

    span: range
    frames: list[int]


@dataclass(frozen=True)
class Share:
    """How many tokens a segment may spend."""

    salient: int
    context: int


def _members(mask: Tensor, frame: int, number: int) -> Tensor:
    """Flat indices of a frame's `number` True places."""
    return frame * mask.shape[1] + indices_of(mask[frame], number)
