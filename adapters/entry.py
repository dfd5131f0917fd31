"""The decoder entry: where the prompt's embeddings, positions and masks lose the dropped tokens.

Nothing here reads a value on the host except `measure`, once per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from adapters.attention import check_jumps, needs_mask, one_sequence
from adapters.errors import UnsupportedError
from adapters.family import Family
from adapters.plan import Plan, front
from adapters.positions import VideoSpan, contiguous_1d, contiguous_mrope
from adapters.record import Moved, Record, newest
from adapters.support import UNEVEN_TURNS
from compressors.base import Compression

Positions = Literal["original", "contiguous"]
Newlines = Literal["raster", "last"]
"""Where the newlines of a grid's rows stand after compression: where they stood, or behind their frame's tokens."""


@dataclass(eq=False)
class Entry:
    """One prompt on its way through the base model; lives from its forward's start to its end.

    Attributes:
        ids: `[B, L]` the new tokens.
        video: `[B, L]` bool, video placeholders among them.
        arguments: what the base model was called with, and what the press was told besides.
        record: of the cache the prompt continues, or None.
        mask: the 2-D physical mask, for decoders that only see what others made of it.
        expand: rows per sample.
        first: False when generation runs the same prompt again (no cache).
        generating: inside `generate`.
        total: tokens up to the last of these, where `generate` says it; else 0.
        cache: the cache in use.
        encoded: what the vision tower gave for this prompt, each output with its `Capture`.
        result: the record to leave on the cache.
        started: when the forward began.
    """

    ids: Tensor
    video: Tensor
    arguments: Mapping[str, Any]
    record: Record | None
    mask: Tensor | None
    expand: int
    first: bool
    generating: bool
    total: int = 0
    cache: Any = None
    encoded: list[Any] = field(default_factory=list)
    result: Record | None = None
    started: Any = None

    def two_dimensional_mask(self, given: Any) -> Tensor | None:
        """The padding mask behind what the decoder was given.

        Raises:
            UnsupportedError: a caller's own 4-D mask, which says nothing about padding.
        """
        if is_padding_mask(given):
            return cast(Tensor | None, given)
        if not self.generating and not is_padding_mask(self.arguments.get("attention_mask")):
            raise UnsupportedError(
                "a 4-D attention_mask was passed to forward(): pass the 2-D padding mask (or none) instead."
            )
        return self.mask


def is_padding_mask(mask: Any) -> bool:
    """Whether a mask says which tokens are padding, and nothing else: a 2-D one, or none at all."""
    return mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)


@dataclass(frozen=True)
class Measures:
    """The prompt's sizes on the host.

    Attributes:
        lengths: new tokens of each row, padding excluded.
        videos: video placeholders of each row.
        questions: question tokens of each row; 0 where nobody asks.
        past: slots the cache holds already.
        geometry: (T, h, w) of each captured piece.
        further: what the family wants to know besides (`Family.further`).
    """

    lengths: list[int]
    videos: list[int]
    questions: list[int]
    past: int
    geometry: list[list[int]]
    further: list[int] = field(default_factory=list)


def measure(
    valid: Tensor,
    video: Tensor,
    cache: Any,
    geometry: Tensor,
    question: Tensor | None = None,
    further: Tensor | None = None,
) -> Measures:
    """Read everything that must be known on the host, in one transfer."""
    rows = video.shape[0]
    past = cache.get_seq_length() if cache is not None else 0
    asked = question.sum(1) if question is not None else torch.zeros_like(video[:, 0], dtype=torch.int64)
    parts = [valid.sum(1), video.sum(1), asked, geometry.flatten()]
    if further is not None:
        parts.append(further)
    if isinstance(past, Tensor):
        parts.append(past.view(1))
    values = torch.cat([part.to(video.device, non_blocking=True) for part in parts]).tolist()
    if isinstance(past, Tensor):
        past = values.pop()
    lengths, videos, questions = (values[i * rows : (i + 1) * rows] for i in range(3))
    flat, rest = values[3 * rows : 3 * rows + geometry.numel()], values[3 * rows + geometry.numel() :]
    return Measures(lengths, videos, questions, past, [flat[i : i + 3] for i in range(0, len(flat), 3)], rest)


def new_valid(mask: Tensor | None, embeds: Tensor) -> Tensor:
    """`[B, L]` bool: which of the new tokens are not padding."""
    rows, length = embeds.shape[:2]
    if mask is None:
        return torch.ones(rows, length, dtype=torch.bool, device=embeds.device)
    return mask[:, -length:].to(embeds.device).bool()


def keep_mask(video: Tensor, plan: Plan, *, structural: bool) -> Tensor:
    """`[B, L]` bool: tokens that stay. With `structural=False`: kept visual tokens alone."""
    flat = []
    for row in plan.rows:
        for planned in row:
            flat.append(planned.video.spread(planned.stays.to(video.device), structural))
    base = torch.ones_like(video) if structural else torch.zeros_like(video)
    return base.masked_scatter(video, torch.cat(flat))


def prune(
    model: PreTrainedModel,
    kwargs: Mapping[str, Any],
    entry: Entry,
    plan: Plan,
    measures: Measures,
    family: Family,
    positions: Positions,
    newlines: Newlines,
) -> tuple[dict[str, Any], Record]:
    """The decoder's arguments without the dropped tokens, and the record for the cache.

    Rows are padded on the left to the longest. Every argument with a `[B, L, …]` shape follows. The mask handed over
    is a 2-D one, from which the decoder builds what its attention needs, or what the family builds from that one
    (`Family.decoder_mask`); none where there is no padding, but a cache: the library would look at every value of a
    mask of ones, and without a cache it takes gaps in the positions for several sequences.
    """
    embeds: Tensor = kwargs["inputs_embeds"]
    rows, length = embeds.shape[:2]
    mask = entry.two_dimensional_mask(kwargs.get("attention_mask"))
    valid = new_valid(mask, embeds)
    video = entry.video.to(embeds.device)
    stays = keep_mask(video, plan, structural=True)
    kept = [measures.lengths[row] - plan.dropped(row) for row in range(rows)]
    if measures.past and len(set(kept)) > 1 and not family.masking:
        raise family.refusal("chat turns", f"{kept} tokens stay: {UNEVEN_TURNS}")
    order = _newlines_last(video, plan, sum(measures.videos)) if newlines == "last" else None
    survives = stays & valid if order is None else (stays & valid).gather(1, order)
    # A stable sort moves what goes to the left and what stays, in order, to the right: left padding for free.
    slot = torch.sort(survives.to(torch.uint8), dim=1, stable=True).indices[:, length - max(kept) :]
    present = survives.gather(1, slot)
    index = slot if order is None else order.gather(1, slot)

    out = dict(kwargs)
    for name, value in kwargs.items():
        follows = isinstance(value, Tensor) and value.shape[:2] == (rows, length)
        if follows and name not in ("attention_mask", "position_ids"):
            out[name] = _take(value, index.to(value.device))
    if plan.merges:
        mixed = torch.cat([p.compression.features.to(embeds.device, embeds.dtype) for row in plan.rows for p in row])
        mixed = family.embed(model, mixed)
        places = keep_mask(video, plan, structural=False).gather(1, index) & present
        out["inputs_embeds"] = out["inputs_embeds"].masked_scatter(places.unsqueeze(-1), mixed)
    if kwargs.get("visual_pos_masks") is not None:
        out["visual_pos_masks"] = out["visual_pos_masks"] & present.to(out["visual_pos_masks"].device)
        out["deepstack_visual_embeds"] = deepstack(kwargs, video, stays, plan)

    past = entry.record
    before = torch.ones(rows, measures.past, device=embeds.device) if mask is None else mask[:, :-length]
    slots = torch.cat([before.to(embeds.device).bool(), present], dim=1)
    start = measures.past + (past.missing if past is not None else 0)
    ids = _full_positions(kwargs.get("position_ids"), rows, length, start, embeds.device)
    moved = Moved() if past is None else past.moved
    if family.mrope:
        moved = moved.reaching(_largest(ids, valid))
    if positions == "contiguous":
        ids, more = _contiguous(ids, video, stays if order is None else stays.gather(1, order), plan, family)
        moved = moved.by(more, _largest(ids, valid & stays) if family.mrope else None)
    deltas = None
    if moved.end is not None:
        seen = start - measures.past + before.to(embeds.device).sum(1, keepdim=True) + valid.sum(1, keepdim=True)
        deltas = moved.end + 1 - seen.long()
    where = slot if positions == "contiguous" else index  # closed gaps count in the new order
    ids = ids.gather(-1, where.expand(*ids.shape[:-1], where.shape[1]))
    if ids.ndim == 3 and ids.shape[0] == 4:
        # The text row only tells masks where sequences start; gaps in it would look like several sequences.
        ids = torch.cat([(start + (present.long().cumsum(1) - 1).clamp(min=0)).unsqueeze(0), ids[1:]])
    out["position_ids"] = ids
    ragged = mask is not None or len(set(kept)) > 1
    decoder, cache = family.decoder(model), kwargs.get("past_key_values")
    bare = not ragged and cache is not None and not needs_mask(decoder, cache)
    out["attention_mask"] = None if bare else slots.long()
    if rows == 1 and ids.ndim == 2 and positions == "original":
        if measures.past:
            check_jumps(decoder)
        out |= one_sequence(decoder, measures.past, slot.shape[1], embeds.device)
    marks = {
        name: functional.pad(
            _take(newest(value, length, entry.total).to(index.device), index) * present, (measures.past, 0)
        )
        for name in family.token_marks
        if (value := entry.arguments.get(name)) is not None
    }
    out["attention_mask"] = family.decoder_mask(model, out, marks)
    return out, Record(start + length, slots, ragged, deltas, moved)


def _newlines_last(video: Tensor, plan: Plan, count: int) -> Tensor:
    """`[B, L]`: each column's token when the newlines of a frame follow its tokens; `count` placeholders in all."""
    rows, length = video.shape
    columns = torch.arange(length, device=video.device).expand(rows, length)
    places = columns.flatten()[front(video.flatten(), count)]
    orders, start = [], 0
    for row in plan.rows:
        for planned in row:
            orders.append(planned.video.newlines_last() + start)
            start += planned.video.places
    order = torch.cat(orders).to(video.device, non_blocking=True)
    return columns.masked_scatter(video, places[order])


def deepstack(kwargs: Mapping[str, Any], video: Tensor, stays: Tensor, plan: Plan) -> list[Tensor]:
    """DeepStack rows (one per visual token of the batch, images included) without the dropped ones; merged likewise."""
    visual: Tensor = kwargs["visual_pos_masks"]
    planes: list[Tensor] = kwargs["deepstack_visual_embeds"]
    total = planes[0].shape[0]
    order = front(visual.flatten(), total)
    kept = stays.to(visual.device).flatten()[order]
    count = total - sum(plan.dropped(row) for row in range(len(plan.rows)))
    chosen = front(kept, count)
    result = [plane[chosen.to(plane.device)] for plane in planes]
    if not plan.merges:
        return result
    is_video = video.to(visual.device).flatten()[order][chosen]
    merged = []
    for number, plane in enumerate(result):
        mixed = torch.cat([_plane(p.compression, number).to(plane) for row in plan.rows for p in row])
        merged.append(plane.masked_scatter(is_video.unsqueeze(-1).to(plane.device), mixed))
    return merged


def video_planes(
    kwargs: Mapping[str, Any], video: Tensor, rows: Sequence[Sequence[int]], sizes: Mapping[int, tuple[int, int]]
) -> dict[int, dict[str, Tensor]]:
    """DeepStack features of each distinct video as `[T, N, C]` planes, taken from the decoder's arguments.

    Args:
        kwargs: the decoder's arguments.
        video: `[B, L]` bool.
        rows: per row, video indices.
        sizes: (T, N) of each video.
    """
    if not kwargs.get("deepstack_visual_embeds"):
        return {}
    visual: Tensor = kwargs["visual_pos_masks"]
    planes: list[Tensor] = kwargs["deepstack_visual_embeds"]
    order = front(visual.flatten(), planes[0].shape[0])
    total = sum(sizes[index][0] * sizes[index][1] for row in rows for index in row)
    places = front(video.to(visual.device).flatten()[order], total)
    found: dict[int, dict[str, Tensor]] = {}
    start = 0
    for row in rows:
        for index in row:
            frames, per_frame = sizes[index]
            mine = places[start : start + frames * per_frame]
            start += frames * per_frame
            if index not in found:
                found[index] = {
                    f"deepstack{number}": plane[mine.to(plane.device)].view(frames, per_frame, -1)
                    for number, plane in enumerate(planes)
                }
    return found


def _take(value: Tensor, index: Tensor) -> Tensor:
    """`[B, L, …]` -> `[B, K, …]`."""
    rows = torch.arange(index.shape[0], device=index.device).unsqueeze(1)
    return value[rows, index]


def _plane(compression: Compression, number: int) -> Tensor:
    """`[K, C]`: a DeepStack plane after compression."""
    return compression.follow(compression.tokens.planes[f"deepstack{number}"])


def _full_positions(ids: Tensor | None, rows: int, length: int, start: int, device: torch.device) -> Tensor:
    """Position ids with their batch axis expanded; the decoder's own default where the model gives none."""
    if ids is None:
        return torch.arange(start, start + length, device=device).expand(rows, length)
    return ids.expand(*ids.shape[:-2], rows, length).to(device)


def _largest(ids: Tensor, valid: Tensor) -> Tensor:
    """`[B, 1]`: each row's largest position on any axis."""
    axes = ids[-3:] if ids.ndim == 3 else ids.unsqueeze(0)
    return axes.masked_fill(~valid, -1).amax(0).amax(1, keepdim=True)


def _contiguous(ids: Tensor, video: Tensor, stays: Tensor, plan: Plan, family: Family) -> tuple[Tensor, Tensor]:
    if not family.mrope:
        return contiguous_1d(ids, ~stays)
    if ids.shape[0] == 1 or ids.ndim == 2:
        ids = ids.expand(3, *ids.shape[-2:])
    rows = [
        [VideoSpan(p.compression.mask.view(-1, *p.video.grid).to(ids.device), p.video.structural) for p in row]
        for row in plan.rows
    ]
    new, shift = contiguous_mrope(ids[-3:], video, rows, family.position_groups)
    return (torch.cat([ids[:1], new]) if ids.shape[0] == 4 else new), shift
