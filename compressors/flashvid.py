"""FlashVID: diverse attended tokens of every frame, the rest merged along time and then in space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.attention_merging import AllocatorSpec, WithAllocator
from compressors.base import Compression
from compressors.budget import FrameBudgets
from compressors.functional.cosine import frame_means
from compressors.functional.cosine_rows import CosineRows
from compressors.functional.density_peaks import density_peaks, nearest_centre
from compressors.functional.fit_to_budget import Edges, fit_draft
from compressors.functional.max_min import max_min
from compressors.functional.on_device import integers
from compressors.functional.ragged import count_per_frame, ranks
from compressors.functional.segmentation import neighbour_similarity, threshold_cuts
from compressors.functional.shares import in_proportion
from compressors.functional.statistics import blocks
from compressors.functional.temporal_links import Chains, best_in_frame_before, strongest
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("compressor", "flashvid")
@dataclass(frozen=True)
class FlashVid(WithAllocator):
    """FlashVID's outer stage (arXiv 2602.08024): attention and diversity based selection, tree-based merging.

    - Segments: a cut wherever the cosine of consecutive frame means is below `segment_threshold`, and at the
      `segments - 1` lowest in any case.
    - Selection (ADTS): of a frame's budget b, `⌈α·b⌉` tokens by greedy max-min on `(1 - cos)·attention`: the first is
      the token of greatest weighted distance to its nearest neighbour.
    - Merging in time (TSTM): a token that was not selected joins its best match among those of the frame before, if
      their cosine is above `threshold` and both lie in one segment; the strongest links first, as long as enough tokens
      for the segment's budget remain. A tree becomes its mean, in which every token counts once.
    - Merging in space: each frame's remaining tokens are merged around density peaks, as many as its part of the
      segment's budget; a row is the mean of all tokens that reached it.

    The release gives all frames the same b. An `allocator` may set it instead: a frame then selects `⌈α·b⌉`, and a
    segment merges its other tokens into as many rows as its frames have left.

    Cost: similarities within and between neighbouring frames, O(T·N²·C); a loop over the picks of a frame, all frames
    at once, and loops over frames. No reads on the host; the release's form reads its number of rows.

    Attributes:
        segment_threshold, segments: see above; `segments=None` makes the whole video one segment.
        selection_share: α.
        selection: what weighs the distances: the "attention", attention and relevance to the segment's mean frame
            ("attention_event"), or nothing ("diversity").
        threshold: τ of the links.
        neighbours: k of the density, at most as many as there are centres.
        layer, row: which attention (`Attention`).
        expansion: factor on the budget; the release keeps 1.25 times as much for a later stage inside the model.
        rounding: "exact" keeps exactly K; "up" is the release: budgets are rounded up; a tree's sum is divided by its
            root's direct children and itself, so that longer chains weigh more than one; and in a segment of one frame
            the merged rows are made of all tokens, the selected ones included. Where the release then emits a place
            twice, the selected token stays as it is and the merged row is left out.
        allocator: sets every frame's b; None gives all the same.
    """

    segment_threshold: float = 0.9
    segments: int | None = 8
    selection_share: float = 0.7
    selection: Literal["attention", "attention_event", "diversity"] = "attention"
    threshold: float = 0.8
    neighbours: int = 7
    layer: int = -2
    row: Literal["cls", "column_mean", "pool_head"] = "column_mean"
    expansion: float = 1.0
    rounding: Literal["exact", "up"] = "exact"
    allocator: AllocatorSpec = None

    @property
    def host_reads(self) -> int:
        if not self.exact:
            return 1
        return 0 if self.frames_by is None else self.frames_by.host_reads

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        assert tokens.attention is not None
        attention = tokens.attention.float()
        budgets = self._budgets(tokens, attention, total, retention)
        assert budgets.per_frame is not None
        selected = torch.ceil(self.selection_share * budgets.per_frame.double()).long()
        plain = self._select(tokens, attention, selected, math.ceil(self.selection_share * budgets.max_per_frame))
        everyone = torch.ones_like(plain) if tokens.valid is None else tokens.valid
        segment = self.segment_of_frame(tokens)
        rest = everyone & ~plain
        if not self.exact:
            alone = _per_group(torch.ones_like(segment), segment) == 1
            rest = torch.where(alone.unsqueeze(1), everyone, rest)
        edges = self._merge(tokens, rest, segment, budgets.per_frame - selected)
        if not self.exact:
            edges = Edges(edges.source, edges.place, torch.where(plain.flatten()[edges.place], 0.0, edges.weight))
            is_row = plain.flatten().float().index_add(0, edges.place, (edges.weight > 0).float()) > 0
            total = int(is_row.sum())
        keep, merge = fit_draft(tokens, plain, edges, attention, total)
        return Compression(tokens, keep, count_per_frame(keep, tokens), attention, merge, self.next_history(tokens))

    def _budgets(self, tokens: VideoTokens, attention: Tensor, total: int, retention: float) -> FrameBudgets:
        """Every frame's b."""
        if self.frames_by is not None:
            return self.frames_by.spend(tokens, attention, total)
        counts = tokens.counts or (tokens.places,) * tokens.frames
        if self.exact:
            each = in_proportion(total, counts)
        else:
            each = [min(count, math.ceil(count * retention * self.expansion)) for count in counts]
        return FrameBudgets(sum(each), integers(each, tokens.device), max(each))

    def segment_of_frame(self, tokens: VideoTokens) -> Tensor:
        """The segment of each frame, ascending from 0, `int64 [T]`."""
        segment = torch.zeros(tokens.frames, dtype=torch.int64, device=tokens.device)
        if self.segments is not None and tokens.frames > 1:
            similarity = neighbour_similarity(frame_means(tokens))
            segment[1:] = threshold_cuts(similarity, self.segment_threshold, self.segments).cumsum(0)
        return segment

    def _select(self, tokens: VideoTokens, attention: Tensor, selected: Tensor, most: int) -> Tensor:
        """The `selected[t]` (at most `most`) diverse, attended tokens of each frame, bool `[T, N]`."""
        weight = None
        if self.selection != "diversity":
            weight = attention
        if self.selection == "attention_event":
            weight = attention * self._relevance(tokens)
        chosen = []
        step = CosineRows.groups_at_once(tokens.places)
        for start in range(0, tokens.frames, step):
            part = slice(start, start + step)
            rows = CosineRows(tokens.features[part], None if tokens.valid is None else tokens.valid[part])
            weights = None if weight is None else weight[part]
            chosen.append(max_min(rows, selected[part], most, weights))
        return torch.cat(chosen)

    def _relevance(self, tokens: VideoTokens) -> Tensor:
        """Mean product of each token with the mean tokens of its segment's frames, float32 `[T, N]`."""
        segment = self.segment_of_frame(tokens)
        means = frame_means(tokens)
        event = torch.zeros_like(means).index_add_(0, segment, means)[segment]
        event = event / _per_group(torch.ones_like(segment), segment).unsqueeze(1)
        relevance = tokens.features.new_empty(tokens.frames, tokens.places, dtype=torch.float32)
        for block in blocks(tokens):
            relevance[block.frames, block.places] = (block.values @ event[block.frames].unsqueeze(2)).squeeze(2)
        return relevance

    def _merge(self, tokens: VideoTokens, rest: Tensor, segment: Tensor, merged: Tensor) -> Edges:
        """One edge per token, of weight 0 where it flows nowhere.

        Args:
            tokens: the video.
            rest: bool `[T, N]`, the tokens to merge.
            segment: of each frame, `int64 [T]`.
            merged: rows each frame adds to its segment's budget, `int64 [T]`.
        """
        budget = _per_group(merged, segment)
        spare = (_per_group(rest.sum(1), segment) - budget).clamp_min(0)
        linked = torch.zeros_like(segment, dtype=torch.bool)
        linked[1:] = segment[1:] == segment[:-1]
        similarity, parent = best_in_frame_before(tokens.features, rest, linked)
        links = (similarity > self.threshold) & strongest(similarity, segment, spare)
        chains = Chains(links, parent)

        remaining = rest & ~links
        number = remaining.sum(1)
        left = _per_group(number, segment).clamp_min(1)
        if self.exact:
            wanted = (number * budget + left - 1) // left
        else:
            wanted = torch.ceil(
                number * (budget.double() / left)
            ).long()  # with the release's rounding: 100·(7/100) > 7
        wanted = torch.minimum(wanted, number)
        place = torch.empty(tokens.frames, tokens.places, dtype=torch.int64, device=tokens.device)
        size = chains.size(whole=self.exact)
        for frames, values in chains.averages(tokens.features, rest, size):
            peaks = density_peaks(values, remaining[frames], self.neighbours, wanted[frames], break_ties=self.exact)
            centres = remaining[frames] & (ranks(peaks) < wanted[frames].unsqueeze(1))
            place[frames] = nearest_centre(values, remaining[frames], centres)
        first = torch.arange(tokens.frames, device=tokens.device).unsqueeze(1) * tokens.places
        root = chains.roots().flatten()
        row = (first + place).flatten()[root]
        flows = rest.flatten() & (wanted > 0)[root // tokens.places]
        # Every token counts once; in the release every root does.
        counted = flows if self.exact else flows & remaining.flatten()
        number = torch.zeros(row.shape[0], device=row.device).index_add_(0, row, counted.float()).clamp_min(1)
        weight = 1 / number[row] if self.exact else 1 / number[row] / size.flatten()[root]
        return Edges(torch.arange(row.shape[0], device=row.device), row, torch.where(flows, weight, 0.0))


def _per_group(values: Tensor, group: Tensor) -> Tensor:
    """For each entry the sum over its group, both `int64 [T]`."""
    return torch.zeros_like(values).index_add_(0, group, values)[group]
