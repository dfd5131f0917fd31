"""Operations and bytes that a prompt needs, counted from shapes: the limit beside the measurement.

Operations are multiplications and additions of matrix products: 2 per weight and token, and attention over all pairs
of positions, as torch's own counter has it (causal kernels may skip half of the pairs). Bytes are the least traffic:
every weight read once, keys and values written once and read once, input and output. What compression itself does is
not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters.family import family_of
from compressors.base import CacheReuser
from compressors.cachers.operations import LayerSize, tower_operations
from compressors.cachers.stc import STC
from compressors.errors import InputError


@dataclass(frozen=True)
class Work:
    """Operations (FLOP) and bytes."""

    operations: int
    bytes: int

    def as_result(self) -> dict[str, int]:
        """For `result.json`."""
        return {"operations": self.operations, "bytes": self.bytes}


def prefill_work(model: Any, batch: int, length: int) -> Work:
    """The language model over `batch` rows of `length` tokens, and the first answer token's head."""
    return _decoder_work(model, batch, length, 0)


def step_work(model: Any, batch: int, past: int) -> Work:
    """One decoding step of `batch` rows on a cache of `past` tokens."""
    return _decoder_work(model, batch, 1, past)


def countable(model: Any, inputs: Mapping[str, Tensor]) -> tuple[bool, bool]:
    """Whether the work of the decoder and that of the vision tower can be counted here; if not, no limit is shown."""
    family = family_of(model)
    base: Any = family.base(model)
    frames = inputs.get("pixel_values_videos")
    packed = hasattr(base, "visual") and "video_grid_thw" in inputs
    batched = hasattr(getattr(base, "vision_tower", None), "encoder") and frames is not None and frames.ndim == 5
    return family.masking, packed or batched


def _decoder_work(model: Any, batch: int, new: int, past: int) -> Work:
    decoder, head = family_of(model).decoder(model), model.get_output_embeddings().weight
    text: Any = model.config.text_config
    tokens, item = batch * new, head.element_size()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    operations = 2 * head.numel() * batch
    read = head.numel() * item
    layers: Any = decoder.layers
    for weight in layers.parameters():
        if weight.ndim == 2:
            operations += 2 * weight.numel() * tokens
            read += weight.numel() * item
        elif weight.ndim == 3:  # experts: every token goes through some of them
            active = text.num_experts_per_tok
            operations += 2 * weight[0].numel() * active * tokens
            read += weight[0].numel() * item * min(weight.shape[0], active * tokens)
    operations += 4 * batch * new * (past + new) * heads * width * len(layers)
    cached = 2 * batch * text.num_key_value_heads * width * len(layers) * item
    moved = cached * (past + new) + cached * new + tokens * text.hidden_size * item
    return Work(operations, read + moved)


def encoder_work(model: Any, inputs: dict[str, Tensor], cacher: CacheReuser | None = None) -> Work:
    """The vision tower and projector over a prompt's videos, each a stream of its own under a cacher.

    Raises:
        InputError: a tower that is not known here.
    """
    base: Any = family_of(model).base(model)
    if hasattr(base, "visual") and "video_grid_thw" in inputs:
        return _packed(model, base.visual, inputs["video_grid_thw"].cpu(), cacher)
    # [V, F, 3, H, W] into a tower in the manner of SigLIP; patches that are cut already say another tower.
    if hasattr(base, "vision_tower") and inputs["pixel_values_videos"].ndim == 5:
        return _batched(model, base, inputs, cacher)
    raise InputError(f"{type(model).__name__}: the operations of its vision tower cannot be counted.")


def _packed(model: Any, visual: Any, grid: Tensor, cacher: CacheReuser | None) -> Work:
    """Qwen-VL towers: patches of all frames in one row, merged afterwards."""
    vision = model.config.vision_config
    sizes = [(t, h * w) for t, h, w in grid.tolist()]
    patches = sum(t * n for t, n in sizes)
    merged = patches // vision.spatial_merge_size**2
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    each, mergers = _matrices(visual.blocks), _matrices(visual.merger)
    if hasattr(visual, "deepstack_merger_list"):
        mergers += _matrices(visual.deepstack_merger_list)
    if hasattr(visual, "downsample"):  # GLM's: a convolution before the merger
        mergers += visual.downsample.weight.numel()
    embedding = visual.patch_embed.proj.weight.numel()
    operations = 2 * (patches * (embedding + each) + merged * mergers)
    whole = sum(t * n * n for t, n in sizes)
    pairs = [whole] * len(visual.blocks)
    if (full := getattr(visual, "fullatt_block_indexes", None)) is not None:
        windows = _windows(visual, grid)
        pairs = [whole if index in full else windows for index in range(len(visual.blocks))]
    operations += 4 * width * sum(pairs)
    for row in grid:
        frames, places = int(row[0]), int(row[1] * row[2])
        seen: list[float | None] = [None] * len(pairs)
        if full is not None:
            share = _windows(visual, row.unsqueeze(0)) / (frames * places)
            seen = [None if index in full else share for index in range(len(pairs))]
        operations -= _saved(cacher, visual.blocks, width, seen, places, frames)
    out = merged * model.config.text_config.hidden_size
    return Work(
        operations,
        _bytes(embedding + each + mergers, patches * visual.patch_embed.proj.weight[0].numel() + out, visual),
    )


def _windows(visual: Any, grid: Tensor) -> int:
    """Pairs of patches in Qwen2.5-VL's windows, which are smaller at the right and lower edges."""
    merge, side = visual.spatial_merge_size, visual.window_size // visual.spatial_merge_size // visual.patch_size
    pairs = 0
    for t, h, w in grid.tolist():
        rows = [min(side, h // merge - start) for start in range(0, h // merge, side)]
        columns = [min(side, w // merge - start) for start in range(0, w // merge, side)]
        pairs += t * sum((r * c * merge**2) ** 2 for r in rows for c in columns)
    return pairs


def _saved(
    cacher: CacheReuser | None, layers: Any, width: int, seen: Sequence[float | None], places: int, frames: int
) -> int:
    """Operations that a cacher spares a tower's layers over one video."""
    if not isinstance(cacher, STC):
        return 0
    sizes = [
        LayerSize(width, _matrices(layer) - 4 * width**2, visible) for layer, visible in zip(layers, seen, strict=True)
    ]
    return round(tower_operations(None, sizes, places, frames) - tower_operations(cacher, sizes, places, frames))


def _batched(model: Any, base: Any, inputs: Mapping[str, Tensor], cacher: CacheReuser | None) -> Work:
    """LLaVA: every frame through SigLIP or CLIP, every patch through the projector, then pooled; or pooled first."""
    vision, pixels = model.config.vision_config, inputs["pixel_values_videos"]
    frames = pixels.shape[0] * pixels.shape[1]
    n = (vision.image_size // vision.patch_size) ** 2
    tower, projector = base.vision_tower, base.multi_modal_projector
    layers = tower.encoder.layers
    embedding = tower.embeddings.patch_embedding.weight.numel()
    weights = embedding + _matrices(layers) + _matrices(projector)
    seen = n + hasattr(tower.embeddings, "class_embedding")
    projected = n // model.config.spatial_pool_stride**2 if hasattr(base, "vision_resampler") else n
    operations = 2 * frames * (n * embedding + seen * _matrices(layers) + projected * _matrices(projector))
    operations += 4 * frames * seen * seen * vision.hidden_size * len(layers)
    operations -= pixels.shape[0] * _saved(
        cacher, layers, vision.hidden_size, [None] * len(layers), seen, pixels.shape[1]
    )
    out = int(family_of(model).video_mask(model, inputs["input_ids"]).sum()) * model.config.text_config.hidden_size
    return Work(operations, _bytes(weights, pixels.numel() + out, tower))


def _matrices(module: nn.Module) -> int:
    """Entries of all matrices: what every token that passes is multiplied with."""
    return sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)


def _bytes(weights: int, values: int, module: nn.Module) -> int:
    item: int = torch.empty((), dtype=next(module.parameters()).dtype).element_size()
    return (weights + values) * item
