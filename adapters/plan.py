"""The plan of one prompt: which video belongs to which row, and what each keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.capture import Capture, Video
from compressors.base import Compression, Compressor
from compressors.budget import Budget
from compressors.errors import InputError
from compressors.requirements import Query
from compressors.tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class Planned:
    """One video with its compression."""

    video: Video
    compression: Compression

    @property
    def dropped(self) -> int:
        """Placeholders that leave the prompt."""
        return self.compression.tokens.total - self.compression.kept

    @property
    def stays(self) -> Tensor:
        """Bool, one per visual placeholder in order: whether it stays. Reads nothing on the host."""
        tokens, mask = self.compression.tokens, self.compression.mask.flatten()
        return mask if tokens.valid is None else mask[front(tokens.valid.flatten(), tokens.total)]


@dataclass(frozen=True, eq=False)
class Plan:
    """What every row of a batch keeps. Beams of one sample share their videos' compressions.

    Attributes:
        rows: per row, its videos in order.
        fresh: the distinct videos, in order of appearance.
    """

    rows: tuple[tuple[Planned, ...], ...]
    fresh: tuple[Planned, ...]

    @property
    def identity(self) -> bool:
        """Nothing is dropped or changed."""
        return all(planned.compression.identity for planned in self.fresh)

    @property
    def merges(self) -> bool:
        return any(planned.compression.merge is not None for planned in self.fresh)

    def dropped(self, row: int) -> int:
        """Placeholders that leave a row."""
        return sum(planned.dropped for planned in self.rows[row])


def front(mask: Tensor, count: int) -> Tensor:
    """Indices of a 1-D mask's True values, whose number is known: no read on the host."""
    return torch.sort(mask.logical_not().to(torch.uint8), stable=True).indices[:count]


def assign(counts: Sequence[int], places: Sequence[int], expand: int) -> list[list[int]]:
    """Which captured videos each row holds.

    Args:
        counts: placeholders of each row.
        places: placeholders of each captured video, in order.
        expand: rows per sample (beams, return sequences). The videos may have been encoded once per sample, or once
            per row; then the first row's copies stand for all.

    Returns:
        Per row, indices into `places`.

    Raises:
        InputError: placeholders and videos do not match.
    """
    per_row = expand > 1 and sum(places) == sum(counts)
    rows: list[list[int]] = []
    upcoming = 0
    for row, count in enumerate(counts):
        copy = row % expand != 0
        if copy and not per_row:
            rows.append(rows[-1])
            continue
        found: list[int] = []
        while count > 0 and upcoming < len(places):
            found.append(upcoming)
            count -= places[upcoming]
            upcoming += 1
        if count != 0:
            raise InputError(
                f"row {row} has {counts[row]} video placeholders, but the videos encoded for it have "
                f"{[places[i] for i in found]}: pass input_ids and pixel_values_videos from one processor call."
            )
        rows.append(rows[-1] if copy else found)
    if upcoming != len(places):
        raise InputError(f"{len(places)} videos were encoded, but the prompt has placeholders for {upcoming} of them.")
    return rows


def make_plan(
    compressor: Compressor,
    budget: Budget,
    capture: Capture,
    videos: Sequence[Video],
    rows: Sequence[Sequence[int]],
    query: Callable[[int], Tensor],
    planes: Callable[[], Mapping[int, Mapping[str, Tensor]]],
) -> Plan:
    """Compress every distinct video once and lay the results out by row.

    Args:
        compressor: what to apply.
        budget: for each video.
        capture: where the compressions are kept for a second run of the same prompt.
        videos: the captured videos.
        rows: per row, indices into `videos` (`assign`).
        query: row -> the question's vectors `[Q, C]`; called only when needed.
        planes: index -> further per-token tensors of that video; called only when needed.
    """
    first_row: dict[int, int] = {}
    for row, indices in enumerate(rows):
        for index in indices:
            first_row.setdefault(index, row)
    asks = any(isinstance(need, Query) for need in compressor.requirements)
    if capture.plan is None or len(capture.plan) != len(first_row):
        capture.plan = []
        for ordinal, (index, row) in enumerate(first_row.items()):
            video = videos[index]
            tokens = VideoTokens(
                video.features,
                grid=video.grid,
                valid=video.valid,
                counts=video.counts,
                query=query(row) if asks else None,
                planes=planes().get(index, {}) if compressor.merges else {},
                index=ordinal,
                **video.tapped,
            )
            capture.plan.append(compressor(tokens, budget))
        capture.tapped = None
    planned = {
        index: Planned(videos[index], compression) for index, compression in zip(first_row, capture.plan, strict=True)
    }
    return Plan(
        tuple(tuple(planned[index] for index in indices) for indices in rows),
        tuple(planned.values()),
    )
