"""`positions="contiguous"`: the gaps that dropped tokens leave in the position ids are closed.

Original positions are the default and need nothing: the kept tokens keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class VideoSpan:
    """One video inside a row: its keep mask `[T, h, w]` bool; its placeholders follow the previous span's."""

    keep: Tensor
    trailing: int = 0

    @property
    def places(self) -> int:
        return self.keep.numel() + self.trailing


def contiguous_1d(positions: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
    """Consecutive positions: every token moves down by the number of tokens dropped before it.

    Args:
        positions: `[B, L]`.
        dropped: `[B, L]` bool.

    Returns:
        New positions `[B, L]` (of kept tokens; the others' mean nothing) and the shift of what follows, `[B, 1]`.
    """
    before = dropped.long().cumsum(1)
    return positions - before, before[:, -1:]


def contiguous_mrope(
    positions: Tensor, video: Tensor, rows: Sequence[Sequence[VideoSpan]], groups: Literal["video", "frame"]
) -> tuple[Tensor, Tensor]:
    """Each axis dense-ranked over a group's kept tokens; text after the group continues at its maximum plus one.

    A group is what the model gives one block of positions: a video, or each frame of it.

    Args:
        positions: `[3, B, L]` original positions.
        video: `[B, L]` bool, video placeholders.
        rows: the videos of each row, in order.
        groups: what a group is.

    Returns:
        New positions `[3, B, L]` and the shift of what follows, `[B, 1]`.
    """
    new, shifts = positions.clone(), positions.new_zeros(positions.shape[1], 1)
    for row, spans in enumerate(rows):
        if spans:
            new[:, row], shifts[row, 0] = _row(positions[:, row], video[row], spans, groups)
    return new, shifts


def _row(
    positions: Tensor, video: Tensor, spans: Sequence[VideoSpan], groups: Literal["video", "frame"]
) -> tuple[Tensor, Tensor]:
    """One row: `[3, L]` -> new `[3, L]` and its total shift."""
    length = positions.shape[1]
    ranks, extents, sizes = [], [], []
    for span in spans:
        rank, extent = _dense_ranks(span.keep, groups)
        ranks.append(rank)
        extents.append(extent)
        sizes += [span.keep[0].numel()] * span.keep.shape[0] if groups == "frame" else [span.keep.numel()]
    # Placeholders in order, without reading where they are: a stable sort brings them to the front.
    columns = torch.sort(video.logical_not().to(torch.uint8), stable=True).indices[: sum(sizes)]
    counts = torch.tensor(sizes).to(positions.device, non_blocking=True)  # a blocking copy would wait for the device
    ends = counts.cumsum(0)
    first, last = columns[ends - counts], columns[ends - 1]
    start = positions[0, first]
    resume = positions[0, (last + 1).clamp(max=length - 1)]
    moved = (resume - start - torch.cat(extents)).cumsum(0)  # shift of the text after each group
    before = torch.cat([moved.new_zeros(1), moved[:-1]])
    begun = torch.zeros(length, dtype=torch.long, device=positions.device).index_fill(0, first, 1).cumsum(0)
    new = positions - torch.cat([moved.new_zeros(1), moved])[begun]
    spread = torch.repeat_interleave(start - before, counts, output_size=sum(sizes))
    new[:, columns] = spread + torch.cat(ranks, dim=1)
    return new, moved[-1]


def _dense_ranks(keep: Tensor, groups: Literal["video", "frame"]) -> tuple[Tensor, Tensor]:
    """Ranks `[3, T·h·w]` of every place among the kept values of each axis, and each group's largest extent."""
    frames = keep.shape[0]
    if groups == "video":
        present = [keep.any(2).any(1), keep.any(2).any(0), keep.any(1).any(0)]
        time, down, across = (axis.long().cumsum(0) - 1 for axis in present)
        ranks = torch.stack(
            [
                time[:, None, None].expand_as(keep),
                down[None, :, None].expand_as(keep),
                across[None, None, :].expand_as(keep),
            ]
        )
        return ranks.reshape(3, -1), torch.stack([axis.sum() for axis in present]).amax().view(1)
    rows, columns = keep.any(2), keep.any(1)
    down, across = rows.long().cumsum(1) - 1, columns.long().cumsum(1) - 1
    ranks = torch.stack(
        [
            torch.zeros_like(keep, dtype=torch.long),
            down[:, :, None].expand_as(keep),
            across[:, None, :].expand_as(keep),
        ]
    )
    extent = torch.stack([keep.view(frames, -1).any(1).long(), rows.sum(1), columns.sum(1)]).amax(0)
    return ranks.reshape(3, -1), extent
