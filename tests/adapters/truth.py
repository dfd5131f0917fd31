"""What a compressed model must compute, worked out without the mechanism under test.

A `Row` is one sample of a batch without padding, as the decoder meets it: embeddings, positions, DeepStack additions,
and where the tokens of its videos stand. It is what the unpressed model hands to its decoder when it is given that
sample alone. From there two independent definitions of truth:

- `masked`: the full sequence through the unpressed decoder; dropped tokens keep their places and are hidden as keys.
- `pruned`: a row whose dropped tokens are cut out by hand, everything kept at its original position.

Both recompute the whole sequence at every step, without a cache, with an explicit 4-D mask, one sample at a time.
For softmax attention the two are equal, which is the first thing the tests check. `contiguous` closes the gaps that
`pruned` leaves in the positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from compressors.base import Compression, Compressor
from compressors.budget import Budget
from compressors.tokens import VideoTokens
from tests.adapters.tiny import IMAGE, SPECIAL, VIDEO, Family, Prompt, understood

# Arguments of a decoder that a row has fields for, or that are made for every call.
OWN = {"input_ids", "inputs_embeds", "position_ids", "attention_mask", "visual_pos_masks"}


@dataclass(frozen=True)
class Row:
    """One sample, unpadded: L tokens, A position axes (3 with M-RoPE, else 1).

    Attributes:
        family: whose.
        ids: `[L]`.
        embeds: `[L, C]` after image and video features were put in.
        positions: `[A, L]`.
        deepstack: `[L, C]` per layer, zero at text.
        videos: per video of the row, its index over the whole batch, the places `[T·N]` of its tokens in the row (-1:
            it has none), and (T, h, w).
        logical: length before anything was dropped.
        delta: largest position + 1 - logical, what the library adds to later positions outside `generate`.
        dropped: `[L]` bool, True where `masked` hides a token.
        extra: further arguments of the decoder with a value per token, `[L, …]`.
        added: `[C]`, what the model added to the features of visual tokens, if it does.
    """

    family: Family
    ids: Tensor
    embeds: Tensor
    positions: Tensor
    deepstack: tuple[Tensor, ...]
    videos: tuple[tuple[int, Tensor, tuple[int, int, int]], ...]
    logical: int
    delta: int
    dropped: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    added: Tensor | None = None

    @property
    def last(self) -> Tensor:
        """`[A]`: where `generate` puts the next token, one after the last."""
        return self.positions[:, -1] + 1

    @property
    def extent(self) -> Tensor:
        """`[A]`: where forward loops and later turns put the next token, counting from the largest position."""
        return torch.full_like(self.positions[:, -1], self.logical + self.delta)


# From inputs to rows -----------------------------------------------------------------------------------------------


def decoder_call(model: Any, sample: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments with which an unpressed model's `generate` enters its decoder for the first time."""
    calls: list[dict[str, Any]] = []

    def catch(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        calls.append(dict(kwargs))

    handle = model.get_decoder().register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model.generate(**understood(model, sample), max_new_tokens=1)
    finally:
        handle.remove()
    return calls[0]


@torch.no_grad()
def rows(model: Any, family: Family, inputs: Prompt) -> list[Row]:
    """The samples of a batch as the unpressed decoder meets them, one by one and without padding.

    Args:
        model: one that stays as it is (`tiny.untouched`): its rows are remembered with the prompt.
    """
    if model not in inputs.rows:
        result: list[Row] = []
        for sample in inputs.samples:
            result.append(_row(model, family, sample, first=sum(len(row.videos) for row in result)))
        inputs.rows[model] = result
    return inputs.rows[model]


def _row(model: Any, family: Family, sample: Mapping[str, Tensor], first: int) -> Row:
    kwargs, ids = decoder_call(model, sample), sample["input_ids"][0]
    length = len(ids)
    positions = kwargs["position_ids"]
    # Of four axes the first only tells masks where sequences start.
    positions = positions[-3:, 0] if positions.ndim == 3 else positions
    visual, planes = kwargs.get("visual_pos_masks"), []
    for plane in kwargs.get("deepstack_visual_embeds") or ():
        whole = plane.new_zeros(length, plane.shape[-1])
        whole[visual[0]] = plane
        planes.append(whole)
    extra = {
        name: value[0]
        for name, value in kwargs.items()
        if isinstance(value, Tensor) and value.shape[:2] == (1, length) and name not in OWN
    }
    videos, at = [], family.video_mask(sample).nonzero().squeeze(1)
    for index, (shape, present) in enumerate(zip(family.shapes(sample), family.present(sample), strict=True), first):
        visible = family.visual(shape)
        if present is not None:
            visible = visible[: int(present.sum())]
        mine, at = at[: len(visible)], at[len(visible) :]
        places = mine[visible]
        if present is not None:
            places = torch.full(present.shape, -1).masked_scatter(present, places)
        videos.append((index, places, shape))
    assert not len(at), f"{len(at)} video placeholders of no video"
    delta = int(positions.max()) + 1 - length
    nothing = torch.zeros(length, dtype=torch.bool)
    embeds = kwargs["inputs_embeds"][0]
    return Row(
        family, ids, embeds, positions, tuple(planes), tuple(videos), length, delta, nothing, extra, family.added(model)
    )


def clips(rows: Sequence[Row]) -> list[VideoTokens]:
    """The videos of a call, in order, as a compressor wants them."""
    found = []
    for row in rows:
        embeds = row.embeds if row.added is None else row.embeds - row.added
        for index, places, (t, h, w) in row.videos:
            features, *planes = (plane[places].view(t, h * w, -1) for plane in (embeds, *row.deepstack))
            named = {f"deepstack_{i}": plane for i, plane in enumerate(planes)}
            tokens = VideoTokens(features, grid=(h, w), planes=named, index=index)
            if (valid := (places >= 0).view(t, h * w)).all():
                found.append(tokens)
            else:
                found.append(tokens.with_(valid=valid, counts=tuple(valid.sum(1).tolist())))
    return found


# From rows to compressed rows --------------------------------------------------------------------------------------


def compress(
    model: Any, family: Family, inputs: Prompt, compressor: Compressor, budget: Budget | None = None
) -> list[Compression]:
    """The compressor on every video of the call, away from any model."""
    with torch.no_grad():
        return [compressor(clip, budget) for clip in clips(rows(model, family, inputs))]


def _dropped(row: Row, results: Sequence[Compression]) -> Tensor:
    """`[L]` bool: the video tokens that the compressor did not keep."""
    dropped = torch.zeros(len(row.ids), dtype=torch.bool)
    for index, places, _ in row.videos:
        dropped[places[places >= 0]] = True
        dropped[places[results[index].keep]] = False
    return dropped


def merged(row: Row, results: Sequence[Compression]) -> Row:
    """The row with the tokens that stand for several replaced by their mixture, DeepStack planes alike."""
    embeds, deepstack = row.embeds.clone(), [plane.clone() for plane in row.deepstack]
    for index, places, _ in row.videos:
        result = results[index]
        if result.merge is not None:
            for plane in (embeds, *deepstack):
                plane[places[result.keep]] = result.merge.apply(plane[places])
    return replace(row, embeds=embeds, deepstack=tuple(deepstack))


def masked(row: Row, results: Sequence[Compression]) -> Row:
    """Truth: dropped tokens keep their places and are hidden as keys."""
    return replace(merged(row, results), dropped=_dropped(row, results))


def pruned(row: Row, results: Sequence[Compression]) -> Row:
    """Truth: dropped tokens are cut out; what stays keeps its position."""
    row, keep = merged(row, results), ~_dropped(row, results)
    renumbered = keep.cumsum(0) - 1
    return replace(
        row,
        ids=row.ids[keep],
        embeds=row.embeds[keep],
        positions=row.positions[:, keep],
        deepstack=tuple(plane[keep] for plane in row.deepstack),
        videos=tuple((index, renumbered[places[results[index].keep]], shape) for index, places, shape in row.videos),
        dropped=torch.zeros(int(keep.sum()), dtype=torch.bool),
        extra={name: value[keep] for name, value in row.extra.items()},
    )


def contiguous(row: Row) -> Row:
    """A pruned row with the gaps in its positions closed.

    One axis: consecutive. Three axes: the sequence is walked once; text advances all axes together; of each run of
    video tokens (a whole video, or one frame where text separates frames) every axis is replaced by its dense rank
    among the run's kept tokens; whatever follows starts at the largest position so far + 1.
    """
    if len(row.positions) == 1:
        positions = torch.arange(len(row.ids))[None]
    else:
        positions, at, cursor = row.positions.clone(), 0, 0
        # Some families write videos with image tokens.
        ids = row.ids.index_fill(0, torch.cat([at for _, at, _ in row.videos] or [row.ids[:0]]), VIDEO)
        while at < len(ids):
            kind = int(ids[at])
            end = at + 1
            if kind in (IMAGE, VIDEO):
                while end < len(ids) and int(ids[end]) == kind:
                    end += 1
            run = row.positions[:, at:end]
            if kind == VIDEO:
                rank = torch.stack([torch.unique(axis, return_inverse=True)[1] for axis in run])
            else:
                rank = run - run.min()
            positions[:, at:end] = cursor + rank
            cursor = int(positions[:, at:end].max()) + 1
            at = end
    return replace(row, positions=positions, delta=int(positions.max()) + 1 - row.logical)


# From rows to logits -----------------------------------------------------------------------------------------------


@torch.no_grad()
def logits(model: Any, row: Row) -> Tensor:
    """`[L, V]`: the whole row through the unpressed decoder, every visible token attending to what is before it."""
    length = len(row.ids)
    blocked = torch.ones(length, length, dtype=torch.bool).triu(1) | row.dropped
    blocked.fill_diagonal_(False)  # a hidden token may see itself, so that its own (unused) row stays finite
    mask = row.family.mask(row, blocked)
    extra = {name: value[None] for name, value in row.extra.items()}
    visual = (row.ids == IMAGE) | (row.ids == VIDEO)
    if row.deepstack and visual.any():
        extra |= {"visual_pos_masks": visual[None], "deepstack_visual_embeds": [d[visual] for d in row.deepstack]}
    out = model.get_decoder()(
        inputs_embeds=row.embeds[None],
        attention_mask=mask,
        position_ids=row.positions[:, None] if len(row.positions) == 3 else row.positions,
        use_cache=False,
        **extra,
    )
    return row.family.head(model, out.last_hidden_state)[0]


def extended(model: Any, row: Row, ids: Tensor, first: Tensor) -> Row:
    """The row with text tokens `ids [m]` appended at positions `first [A]`, first + 1, …"""
    embeds = model.get_input_embeddings()(ids)
    positions = first[:, None] + torch.arange(len(ids))
    return replace(
        row,
        ids=torch.cat([row.ids, ids]),
        embeds=torch.cat([row.embeds, embeds]),
        positions=torch.cat([row.positions, positions], dim=1),
        deepstack=tuple(torch.cat([plane, torch.zeros_like(embeds)]) for plane in row.deepstack),
        logical=row.logical + len(ids),
        dropped=torch.cat([row.dropped, torch.zeros(len(ids), dtype=torch.bool)]),
        extra={
            name: torch.cat([value, row.family.appended(model, name, value, ids)]) for name, value in row.extra.items()
        },
    )


def joined(head: Row, tail: Row) -> Row:
    """Two rows one after the other, the second starting after the largest position of the first (one axis)."""
    return replace(
        head,
        ids=torch.cat([head.ids, tail.ids]),
        embeds=torch.cat([head.embeds, tail.embeds]),
        positions=torch.cat([head.positions, head.extent[:, None] + tail.positions], dim=1),
        logical=head.logical + tail.logical,
        dropped=torch.cat([head.dropped, tail.dropped]),
        extra={name: torch.cat([value, tail.extra[name]]) for name, value in head.extra.items()},
    )


@dataclass(frozen=True)
class Continuation:
    """Greedy decoding: `tokens [n]`, `logits [n, V]` that chose them, and the row with all but the last appended."""

    tokens: Tensor
    logits: Tensor
    row: Row


def allowed(scores: Tensor) -> Tensor:
    """Logits with the special tokens suppressed, as `tiny.quiet_generation` asks of `generate`."""
    scores = scores.clone()
    scores[..., list(SPECIAL)] = -torch.inf
    return scores


def greedy(model: Any, row: Row, steps: int, from_extent: bool = False) -> Continuation:
    """Decode greedily, everything recomputed at each step.

    Args:
        model: an unpressed model.
        row: the prompt.
        steps: tokens to decode.
        from_extent: new tokens start after the largest position (forward loops) instead of the last (`generate`).
    """
    tokens: list[Tensor] = []
    chosen_by: list[Tensor] = []
    for _ in range(steps):
        if tokens:
            row = extended(model, row, tokens[-1][None], row.extent if from_extent else row.last)
        chosen_by.append(logits(model, row)[-1])
        tokens.append(allowed(chosen_by[-1]).argmax())
    return Continuation(torch.stack(tokens), torch.stack(chosen_by), row)


def forced(model: Any, row: Row, tokens: Tensor) -> Tensor:
    """`[n, V]`: the logits before each of the given tokens `[n]`."""
    longer = extended(model, row, tokens[:-1], row.last)
    return logits(model, longer)[-len(tokens) :]


def next_turn(model: Any, turn: Continuation, ids: Tensor) -> Row:
    """The row after a turn, its last token, and the ids that a second turn on the same cache appends.

    The library places a later turn after the largest position of the prompt, whatever the first turn did.
    """
    return extended(model, turn.row, torch.cat([turn.tokens[-1:], ids]), turn.row.extent)


def beam_search(model: Any, row: Row, steps: int, beams: int) -> tuple[Tensor, float]:
    """The best sequence `[n]` of a plain beam search, and its mean log probability."""
    running = [(torch.empty(0, dtype=torch.long), 0.0)]
    for step in range(steps):
        grown = []
        for tokens, score in running:
            longer = extended(model, row, tokens, row.last) if step else row
            # The library normalises over the whole vocabulary and suppresses tokens afterwards.
            log_probabilities = allowed(logits(model, longer)[-1].float().log_softmax(-1))
            values, indices = log_probabilities.topk(beams)
            grown += [(torch.cat([tokens, i[None]]), score + float(v)) for v, i in zip(values, indices, strict=True)]
        running = sorted(grown, key=lambda beam: -beam[1])[:beams]
    tokens, score = running[0]
    return tokens, score / steps
