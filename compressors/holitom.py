"""HoliTom: windows in which as many tokens as possible stand still; what stands still is averaged over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors.attention_merging import AttentionMerging
from compressors.base import Compression
from compressors.functional.cosine import cosine_to_frames
from compressors.functional.density_peaks import density_peaks
from compressors.functional.fit_to_budget import Edges, fit_draft
from compressors.functional.gathering import centre_and_mean, most_similar
from compressors.functional.on_device import integers
from compressors.functional.ragged import count_per_frame, indices_of, ranks
from compressors.functional.segmentation import still_runs, windows_by_gain
from compressors.functional.shares import in_proportion
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("compressor", "holitom")
@dataclass(frozen=True)
class HoliTom(AttentionMerging):
    """HoliTom's outer stage (arXiv 2505.21334): temporal averaging of what stands still, then spatial compression.

    - Windows: a place is static in frames s … e if `cos(x[t, n], x[t+1, n]) > threshold` throughout; windows maximise
      the number of tokens saved, `Σ |static|·(e - s)`, by dynamic programming.
    - Budget: of the `T·N - saved` tokens that are left after averaging, each group (a window's static places, a frame's
      other tokens) keeps the same share.
    - Static places: their temporal means, merged around density peaks (`density_peaks`, at most as many neighbours as
      centres): each goes to the nearest centre, which becomes `β·centre + (1 - β)·mean(others)`. A row sits in its
      window's first frame.
    - Other tokens: the most attended ones as they are; a part `context_share` of them merged around density peaks
      among the rest instead.

    Cost: cosine to the previous frame, a dynamic programme of T steps, distances within each window's means, O(N²·C),
    and with `context_share` within each frame. One read of T integers on the host.

    Attributes:
        threshold: τ, of the cosine to the previous frame.
        longest: frames a window may have.
        centre_weight: β.
        neighbours: k of the density.
        context_share: D.
        layer, row: which attention ranks the other tokens (`Attention`).
        rounding: "exact" keeps exactly K; "up" is the release, which rounds the static groups to the nearest and every
            frame's other tokens up.
    """

    threshold: float = 0.8
    longest: int = 1024
    centre_weight: float = 0.6
    neighbours: int = 7
    context_share: float = 0.0
    layer: int = -2
    row: Literal["cls", "column_mean", "pool_head"] = "column_mean"
    rounding: Literal["exact", "up"] = "exact"

    no_allocator: ClassVar[str] = (
        "once static places are averaged over their windows, every window and frame keeps the same share of what is "
        "left, so the redundancy itself sets the budgets (flashvid and fastvid take an allocator)"
    )

    @property
    def host_reads(self) -> int:
        return 1

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        assert tokens.attention is not None
        attention = tokens.attention.float()
        counts = tokens.counts or (tokens.places,) * tokens.frames
        still, windows = self.windows(tokens)
        moving = [counts[t] - w.static for w in windows for t in w.frames]
        groups = [*(w.static for w in windows), *moving]
        if self.exact:
            budgets = in_proportion(total, groups)
        else:
            share = min(1.0, retention * tokens.total / sum(groups))
            budgets = [round(w.static * share) for w in windows] + [math.ceil(n * share) for n in moving]
            total = sum(budgets)
        budgets = [min(budget, group) for budget, group in zip(budgets, groups, strict=True)]
        for_static, for_moving = budgets[: len(windows)], budgets[len(windows) :]

        static = torch.cat([self._static(still, w).expand(len(w.frames), -1) for w in windows])
        rest = ~static if tokens.valid is None else tokens.valid & ~static
        edges = [
            self._merge_window(tokens, static[w.first], w, budget)
            for w, budget in zip(windows, for_static, strict=True)
            if budget
        ]
        merged = [round(self.context_share * budget) for budget in for_moving]
        dominant = [budget - part for budget, part in zip(for_moving, merged, strict=True)]
        rank = ranks(torch.where(rest, attention, float("-inf")))
        plain = rest & (rank < integers(dominant, tokens.device).unsqueeze(1))
        if any(merged):
            left = [size - number for size, number in zip(moving, dominant, strict=True)]
            edges.append(self._merge_frames(tokens, rest & ~plain, merged, left))
        keep, merge = fit_draft(tokens, plain, Edges.join(edges, tokens.device), attention, total)
        return Compression(tokens, keep, count_per_frame(keep, tokens), attention, merge, tokens.history)

    def windows(self, tokens: VideoTokens) -> tuple[Tensor, list[Window]]:
        """How long each place has stood still `[T, N]`, and the windows; the method's one read on the host."""
        same = cosine_to_frames(tokens, [0, *range(tokens.frames - 1)]) > self.threshold
        same[0] = False
        still = still_runs(same)
        first, static = windows_by_gain(still, self.longest)
        codes = (first * (tokens.places + 1) + static).tolist()
        windows: list[Window] = []
        last = tokens.frames - 1
        while last >= 0:
            begin, number = divmod(codes[last], tokens.places + 1)
            windows.append(Window(begin, last, number))
            last = begin - 1
        return still, windows[::-1]

    def _static(self, still: Tensor, window: Window) -> Tensor:
        """Places that stand still in a window, bool `[N]`."""
        span = window.last - window.first
        return still[window.last] >= span if span else torch.zeros_like(still[0], dtype=torch.bool)

    def _merge_window(self, tokens: VideoTokens, static: Tensor, window: Window, budget: int) -> Edges:
        """The rows of a window's static places: temporal means, merged around density peaks."""
        mean = tokens.features[window.first].to(torch.float32, copy=True)
        for t in window.frames[1:]:
            mean += tokens.features[t]
        mean = torch.where(static.unsqueeze(1), mean / len(window.frames), 0.0)
        neighbours = min(self.neighbours, budget)
        peaks = density_peaks(mean.unsqueeze(0), static.unsqueeze(0), neighbours, break_ties=self.exact)[0]
        place = indices_of(static, window.static)
        centres = indices_of(ranks(peaks) < budget, budget)
        nearest = most_similar(mean, place, centres, "euclidean")
        edges = centre_and_mean(place, nearest, self.centre_weight, tokens.places, include=False)
        frame = torch.arange(window.first, window.last + 1, device=tokens.device).unsqueeze(1) * tokens.places
        weight = (edges.weight / len(window.frames)).expand(len(window.frames), -1)
        return Edges(
            (frame + edges.source).flatten(),
            (frame[:1] + edges.place).expand(len(window.frames), -1).flatten(),
            weight.flatten(),
        )

    def _merge_frames(self, tokens: VideoTokens, rest: Tensor, merged: Sequence[int], sizes: Sequence[int]) -> Edges:
        """The rows of each frame's remaining tokens, merged around density peaks."""
        fewer = integers(merged, tokens.device)
        peaks = density_peaks(tokens.features, rest, self.neighbours, fewer, break_ties=self.exact)
        flat = tokens.features.flatten(0, 1)
        edges = []
        for t in range(tokens.frames):
            if merged[t]:
                source = t * tokens.places + indices_of(rest[t], sizes[t])
                centres = t * tokens.places + indices_of(ranks(peaks[t]) < merged[t], merged[t])
                place = most_similar(flat, source, centres, "euclidean")
                edges.append(centre_and_mean(source, place, self.centre_weight, flat.shape[0], include=False))
        return Edges.join(edges, tokens.device)


@dataclass(frozen=True)
class Window:
    """Frames first … last and how many places stand still in all of them."""

    first: int
    last: int
    static: int

    @property
    def frames(self) -> range:
        return range(self.first, self.last + 1)
