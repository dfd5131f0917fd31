"""What a compressed model must compute, worked out without the mechanism under test.

A `Row` is one sample of a batch without padding, as the decoder meets it: embeddings, positions, DeepStack additions,
and where the tokens of its videos stand. It is built by calling the library's own pieces by hand. From there two
independent definitions of truth:

- `masked`: the full sequence through the unpressed decoder; dropped tokens keep their places and are hidden as keys.
- `pruned`: a row whose dropped tokens are cut out by hand, everything kept at its original position.

Both recompute the whole sequence at every step, without a cache, with an explicit 4-D mask, one sample at a time.
For softmax attention the two are equal, which is the first thing the tests check. `contiguous` closes the gaps that
`pruned` leaves in the positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from compressors.base import Compression, Compressor
from compressors.budget import Budget
from compressors.tokens import VideoTokens
from tests.adapters.tiny import IMAGE, SPECIAL, VIDEO, Family, token_types


@dataclass(frozen=True)
class Clip:
    """One video before compression: what the compressor sees, and its further planes.

    Attributes:
        features: `[T, N, C]`.
        grid: (h, w) in tokens.
        deepstack: `[T, N, C]` per layer.
        newline: `[s, C]`, structural tokens after the last frame.
    """

    features: Tensor
    grid: tuple[int, int]
    deepstack: tuple[Tensor, ...]
    newline: Tensor

    def tokens(self, index: int) -> VideoTokens:
        """As a compressor wants it."""
        planes = {f"deepstack_{i}": plane for i, plane in enumerate(self.deepstack)}
        return VideoTokens(self.features, grid=self.grid, planes=planes, index=index)


@dataclass(frozen=True)
class Row:
    """One sample, unpadded: L tokens, A position axes (3 with M-RoPE, else 1).

    Attributes:
        ids: `[L]`.
        embeds: `[L, C]` after image and video features were put in.
        positions: `[A, L]`.
        deepstack: `[L, C]` per layer, zero at text.
        videos: per video of the row, its index over the whole batch and the places `[T·N]` of its tokens in the row.
        logical: length before anything was dropped.
        delta: largest position + 1 - logical, what the library adds to later positions outside `generate`.
        dropped: `[L]` bool, True where `masked` hides a token.
    """

    ids: Tensor
    embeds: Tensor
    positions: Tensor
    deepstack: tuple[Tensor, ...]
    videos: tuple[tuple[int, Tensor], ...]
    logical: int
    delta: int
    dropped: Tensor

    @property
    def last(self) -> Tensor:
        """`[A]`: where `generate` puts the next token, one after the last."""
        return self.positions[:, -1] + 1

    @property
    def extent(self) -> Tensor:
        """`[A]`: where forward loops and later turns put the next token, counting from the largest position."""
        return torch.full_like(self.positions[:, -1], self.logical + self.delta)


# From inputs to rows -----------------------------------------------------------------------------------------------


def clips(model: Any, family: Family, inputs: dict[str, Tensor]) -> list[Clip]:
    """The videos of a call, in order, from the library's own encoder."""
    if "pixel_values_videos" not in inputs:
        return []
    pixels = inputs["pixel_values_videos"]
    base = model.base_model
    if not family.mrope:
        flat = base.get_video_features(pixels, return_dict=True, **_llava_defaults(model)).pooler_output
        vision, frames = model.config.vision_config, pixels.shape[1]
        side = (vision.image_size // vision.patch_size + 1) // 2
        places = side * side
        newline = base.image_newline[None]
        return [Clip(v[: frames * places].view(frames, places, -1), (side, side), (), newline) for v in flat]
    grids = inputs["video_grid_thw"]
    out = base.get_video_features(pixels, video_grid_thw=grids, return_dict=True)
    shapes = [(t, h // 2, w // 2) for t, h, w in grids.tolist()]
    planes = [_per_video(layer, shapes) for layer in getattr(out, "deepstack_features", None) or ()]
    features = _per_video(out.pooler_output, shapes)
    none = features[0].new_zeros(0, features[0].shape[-1])
    return [Clip(features[i], (h, w), tuple(layer[i] for layer in planes), none) for i, (_, h, w) in enumerate(shapes)]


def _llava_defaults(model: Any) -> dict[str, Any]:
    config = model.config
    return {
        "vision_feature_layer": config.vision_feature_layer,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }


def _flat(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Some versions return one tensor for all media, some a list of one tensor each."""
    return features if isinstance(features, Tensor) else torch.cat(tuple(features))


def _per_video(features: Tensor | Sequence[Tensor], shapes: list[tuple[int, int, int]]) -> list[Tensor]:
    parts = _flat(features).split([t * h * w for t, h, w in shapes])
    return [part.view(t, h * w, -1) for part, (t, h, w) in zip(parts, shapes, strict=True)]


def _images(model: Any, family: Family, inputs: dict[str, Tensor]) -> tuple[Tensor | None, list[Tensor]]:
    """All image features `[tokens, C]` and their DeepStack planes."""
    if "pixel_values" not in inputs:
        return None, []
    base = model.base_model
    if not family.mrope:
        options = {**_llava_defaults(model), "vision_aspect_ratio": model.config.vision_aspect_ratio}
        out = base.get_image_features(inputs["pixel_values"], inputs["image_sizes"], return_dict=True, **options)
    else:
        out = base.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
    return _flat(out.pooler_output), [_flat(layer) for layer in getattr(out, "deepstack_features", None) or ()]


@torch.no_grad()
def rows(model: Any, family: Family, inputs: dict[str, Tensor]) -> list[Row]:
    """The samples of a batch as the unpressed decoder would meet them, one by one and without padding."""
    media = clips(model, family, inputs)
    images, image_planes = _images(model, family, inputs)
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    layers = len(image_planes) or (len(media[0].deepstack) if media else 0)
    result, next_clip, next_image = [], 0, 0
    for b in range(ids.shape[0]):
        row_ids = ids[b, mask[b]]
        embeds = model.get_input_embeddings()(row_ids).clone()
        planes = [torch.zeros_like(embeds) for _ in range(layers)]
        at_image = (row_ids == IMAGE).nonzero().squeeze(1)
        first_image = _image_number(family, inputs, next_image)
        if len(at_image):
            span = slice(next_image, next_image + len(at_image))
            embeds[at_image] = images[span].to(embeds.dtype)
            for plane, image_plane in zip(planes, image_planes, strict=True):
                plane[at_image] = image_plane[span].to(embeds.dtype)
            next_image += len(at_image)
        at_video = (row_ids == VIDEO).nonzero().squeeze(1)
        first_clip, videos = next_clip, []
        while len(at_video):
            clip = media[next_clip]
            size = clip.features[..., 0].numel()
            places, at_video = at_video[:size], at_video[size:]
            embeds[places] = clip.features.flatten(0, 1).to(embeds.dtype)
            for plane, layer in zip(planes, clip.deepstack, strict=True):
                plane[places] = layer.flatten(0, 1).to(embeds.dtype)
            structural, at_video = at_video[: len(clip.newline)], at_video[len(clip.newline) :]
            embeds[structural] = clip.newline.to(embeds.dtype)
            videos.append((next_clip, places))
            next_clip += 1
        last_image = _image_number(family, inputs, next_image)
        positions = _positions(model, family, inputs, row_ids, slice(first_image, last_image), first_clip, next_clip)
        delta = int(positions.max()) + 1 - len(row_ids)
        nothing = torch.zeros(len(row_ids), dtype=torch.bool)
        row = Row(row_ids, embeds, positions, tuple(planes), tuple(videos), len(row_ids), delta, nothing)
        result.append(row)
    return result


def _image_number(family: Family, inputs: dict[str, Tensor], tokens: int) -> int:
    """How many images the first `tokens` image tokens of the batch make."""
    if "image_grid_thw" not in inputs:
        return 0
    sizes = (inputs["image_grid_thw"].prod(-1) // 4).cumsum(0)
    return int((sizes <= tokens).sum())


def _positions(
    model: Any,
    family: Family,
    inputs: dict[str, Tensor],
    ids: Tensor,
    images: slice,
    first_clip: int,
    end_clip: int,
) -> Tensor:
    """`[A, L]` of one unpadded sample."""
    plain = torch.arange(len(ids))
    if not family.mrope:
        return plain[None]
    media: dict[str, Tensor] = {}
    if images.stop > images.start:
        media["image_grid_thw"] = inputs["image_grid_thw"][images]
    if end_clip > first_clip:
        media["video_grid_thw"] = inputs["video_grid_thw"][first_clip:end_clip]
        if "second_per_grid_ts" in inputs:
            media["second_per_grid_ts"] = inputs["second_per_grid_ts"][first_clip:end_clip]
    if not media:
        return plain.expand(3, -1)
    positions, _ = model.base_model.get_rope_index(ids[None], mm_token_type_ids=token_types(ids)[None], **media)
    return positions[:, 0]


# From rows to compressed rows --------------------------------------------------------------------------------------


def compress(
    model: Any, family: Family, inputs: dict[str, Tensor], compressor: Compressor, budget: Budget | None = None
) -> list[Compression]:
    """The compressor on every video of the call, away from any model."""
    with torch.no_grad():
        return [compressor(clip.tokens(i), budget) for i, clip in enumerate(clips(model, family, inputs))]


def _dropped(row: Row, results: Sequence[Compression]) -> Tensor:
    """`[L]` bool: the video tokens that the compressor did not keep."""
    dropped = torch.zeros(len(row.ids), dtype=torch.bool)
    for index, places in row.videos:
        dropped[places] = True
        dropped[places[results[index].keep]] = False
    return dropped


def merged(row: Row, results: Sequence[Compression]) -> Row:
    """The row with the tokens that stand for several replaced by their mixture, DeepStack planes alike."""
    embeds, deepstack = row.embeds.clone(), [plane.clone() for plane in row.deepstack]
    for index, places in row.videos:
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
        videos=tuple((index, renumbered[places[results[index].keep]]) for index, places in row.videos),
        dropped=torch.zeros(int(keep.sum()), dtype=torch.bool),
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
        while at < len(row.ids):
            kind = int(row.ids[at])
            end = at + 1
            if kind in (IMAGE, VIDEO):
                while end < len(row.ids) and int(row.ids[end]) == kind:
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
    length, dtype = len(row.ids), row.embeds.dtype
    blocked = torch.ones(length, length, dtype=torch.bool).triu(1) | row.dropped
    blocked.fill_diagonal_(False)  # a hidden token may see itself, so that its own (unused) row stays finite
    mask = torch.zeros(length, length, dtype=dtype).masked_fill(blocked, torch.finfo(dtype).min)
    extra = {}
    visual = (row.ids == IMAGE) | (row.ids == VIDEO)
    if row.deepstack and visual.any():
        extra = {"visual_pos_masks": visual[None], "deepstack_visual_embeds": [d[visual] for d in row.deepstack]}
    out = model.base_model.language_model(
        inputs_embeds=row.embeds[None],
        attention_mask=mask[None, None],
        position_ids=row.positions[:, None] if len(row.positions) == 3 else row.positions,
        use_cache=False,
        **extra,
    )
    return model.lm_head(out.last_hidden_state)[0]


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
