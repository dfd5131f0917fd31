"""What a vision tower and its projector compute and read for a prompt's videos, by the shape of the tower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from adapters.family import family_of
from compressors.base import CacheReuser
from compressors.cachers.operations import LayerSize, tower_operations
from compressors.cachers.stc import STC


@dataclass
class Counted:
    """What has been counted so far.

    Attributes:
        operations: multiplications and additions (FLOP).
        weights: entries of all matrices, each once.
    """

    operations: int = 0
    weights: int = 0

    def matrices(self, rows: int, *modules: nn.Module | None) -> None:
        """All matrices and patch convolutions of these modules, each multiplied with so many rows."""
        entries = sum(_matrices(module) for module in modules if module is not None)
        self.operations += 2 * rows * entries
        self.weights += entries

    def attention(self, pairs: int, width: int) -> None:
        """Attention over so many pairs of positions, in heads of this width together."""
        self.operations += 4 * pairs * width


@dataclass(frozen=True)
class Given:
    """What a tower is counted for.

    Attributes:
        model: the whole model.
        base: the module that holds the tower.
        inputs: of the prompt.
        cacher: what reuses the tower's work; each video is a stream of its own under it.
    """

    model: Any
    base: Any
    inputs: Mapping[str, Tensor]
    cacher: CacheReuser | None = None

    @property
    def vision(self) -> Any:
        """The tower's configuration."""
        return self.model.config.vision_config


def shape_of(given: Given) -> Callable[[Given], Counted] | None:
    """What counts this tower; None where no shape here fits."""
    return next((count for fits, count in _SHAPES if fits(given)), None)


def _qwen(given: Given) -> Counted:
    """Qwen-VL, GLM: patches of all frames in one row, merged afterwards; windows in some layers of Qwen2.5-VL."""
    visual, vision, counted = given.base.visual, given.vision, Counted()
    grid = given.inputs["video_grid_thw"].cpu()
    sizes = [(t, h * w) for t, h, w in grid.tolist()]
    patches = sum(t * n for t, n in sizes)
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    counted.matrices(patches, visual.patch_embed.proj, visual.blocks)
    merged = patches // vision.spatial_merge_size**2
    # GLM's convolution before the merger is `downsample`.
    mergers = (getattr(visual, name, None) for name in ("merger", "deepstack_merger_list", "downsample"))
    counted.matrices(merged, *mergers)
    whole = sum(t * n * n for t, n in sizes)
    full = getattr(visual, "fullatt_block_indexes", None)
    windows = 0 if full is None else _windows(visual, grid)
    for index in range(len(visual.blocks)):
        counted.attention(whole if full is None or index in full else windows, width)
    for row in grid:
        frames, places = int(row[0]), int(row[1] * row[2])
        seen: list[float | None] = [None] * len(visual.blocks)
        if full is not None:
            share = _windows(visual, row.unsqueeze(0)) / (frames * places)
            seen = [None if index in full else share for index in range(len(visual.blocks))]
        counted.operations -= _saved(given.cacher, visual.blocks, width, seen, places, frames)
    return counted


def _windows(visual: Any, grid: Tensor) -> int:
    """Pairs of patches in Qwen2.5-VL's windows, which are smaller at the right and lower edges."""
    merge, side = visual.spatial_merge_size, visual.window_size // visual.spatial_merge_size // visual.patch_size
    pairs = 0
    for t, h, w in grid.tolist():
        rows = [min(side, h // merge - start) for start in range(0, h // merge, side)]
        columns = [min(side, w // merge - start) for start in range(0, w // merge, side)]
        pairs += t * sum((r * c * merge**2) ** 2 for r in rows for c in columns)
    return pairs


def _llava(given: Given) -> Counted:
    """LLaVA, PerceptionLM, Video-LLaVA: every frame through SigLIP or CLIP, every patch through the projector, then
    pooled; or pooled before (LLaVA-NeXT-Video); Video-LLaVA's class tokens are projected too."""
    vision, pixels, base, counted = given.vision, given.inputs["pixel_values_videos"], given.base, Counted()
    video_llava = hasattr(base, "video_tower")
    tower = base.video_tower if video_llava else base.vision_tower
    n = (vision.image_size // vision.patch_size) ** 2
    seen = n + hasattr(tower.embeddings, "class_embedding")
    stride = given.model.config.spatial_pool_stride if hasattr(base, "vision_resampler") else 1
    projected = seen if video_llava else n // stride**2
    _frames(counted, pixels.shape[0] * pixels.shape[1], n, seen, tower.embeddings, tower.encoder.layers, vision)
    counted.matrices(pixels.shape[0] * pixels.shape[1] * projected, base.multi_modal_projector)
    layers = tower.encoder.layers
    saved = _saved(given.cacher, layers, vision.hidden_size, [None] * len(layers), seen, pixels.shape[1])
    counted.operations -= pixels.shape[0] * saved
    return counted


def _internvl(given: Given) -> Counted:
    """InternVL: a class token, and pixels shuffled before the projector."""
    vision, tower, counted = given.vision, given.base.vision_tower, Counted()
    frames = given.inputs["pixel_values"].shape[0]
    n = (vision.image_size[0] // vision.patch_size[0]) * (vision.image_size[1] // vision.patch_size[1])
    _frames(counted, frames, n, n + 1, tower.embeddings.patch_embeddings, tower.encoder.layer, vision)
    tokens = int(n * given.model.config.downsample_ratio**2)
    counted.matrices(frames * tokens, given.base.multi_modal_projector)
    return counted


def _smolvlm(given: Given) -> Counted:
    """SmolVLM: SigLIP, and pixels shuffled before the connector."""
    vision, tower, counted = given.vision, given.base.vision_model, Counted()
    pixels = given.inputs["pixel_values"]
    frames, n = pixels.shape[0] * pixels.shape[1], (vision.image_size // vision.patch_size) ** 2
    _frames(counted, frames, n, n, tower.embeddings, tower.encoder.layers, vision)
    counted.matrices(frames * n // given.model.config.scale_factor**2, given.base.connector)
    return counted


def _frames(counted: Counted, frames: int, n: int, seen: int, embeddings: Any, layers: Any, vision: Any) -> None:
    """Frames as a batch, every place of a frame sees every other."""
    counted.matrices(frames * n, *(part for part in embeddings.modules() if isinstance(part, nn.Conv2d)))
    counted.matrices(frames * seen, layers)
    counted.attention(frames * seen * seen * len(layers), vision.hidden_size)


def _molmo2(given: Given) -> Counted:
    """Molmo2: frames as a batch; then every token asks the patches of its window, and is projected."""
    vision, inputs, base, counted = given.vision, given.inputs, given.base, Counted()
    tower, adapter = base.vision_tower, base.multi_modal_projector
    frames, n = inputs["pixel_values_videos"].shape[:2]
    tokens, window = inputs["video_token_pooling"].shape
    counted.matrices(frames * n, tower.patch_embedding, tower.layers)
    counted.attention(frames * n * n * len(tower.layers), vision.num_attention_heads * vision.head_dim)
    pool, config = adapter.image_pooling_2d, given.model.config.adapter_config
    counted.matrices(tokens, pool.q_proj, pool.o_proj, adapter.image_projector)
    counted.matrices(tokens * window, pool.k_proj, pool.v_proj)
    counted.attention(tokens * window, config.num_attention_heads * config.head_dim)
    return counted


def _video_llama_3(given: Given) -> Counted:
    """VideoLLaMA3: patches of all frames in one row, shrunk before the projector."""
    vision, tower, counted = given.vision, given.base.vision_model, Counted()
    merges = given.inputs["video_merge_sizes"].tolist()
    for (t, h, w), merge in zip(given.inputs["video_grid_thw"].tolist(), merges, strict=True):
        counted.operations += 2 * t * h * w * (_matrices(tower.embeddings) + _matrices(tower.encoder.layers))
        counted.operations += 2 * t * h * w // merge**2 * _matrices(given.base.projector)
        counted.attention(t * (h * w) ** 2 * len(tower.encoder.layers), vision.hidden_size)
    counted.matrices(0, tower.embeddings, tower.encoder.layers, given.base.projector)
    return counted


def _gemma4(given: Given) -> Counted:
    """Gemma 4: frames as a batch, all padded to one number of patches; pooled by a product with places."""
    vision, tower, counted = given.vision, given.base.vision_tower, Counted()
    patches = given.inputs["video_position_ids"]
    padded, there = patches.shape[-2], int((patches[..., 0] >= 0).sum())
    frames, pooled = patches[..., 0, 0].numel(), vision.pooling_kernel_size**2
    counted.matrices(frames * padded, tower.patch_embedder.input_proj, tower.encoder.layers)
    width = vision.num_attention_heads * vision.head_dim
    counted.attention(frames * padded**2 * len(tower.encoder.layers), width)
    counted.operations += 2 * frames * (padded // pooled) * padded * vision.hidden_size
    counted.matrices(there // pooled, given.base.embed_vision)
    return counted


def _minicpmv(given: Given) -> Counted:
    """MiniCPM-V: patches of all frames in one row; merged in windows of four half-way, again behind the tower."""
    vision, base, counted = given.vision, given.base, Counted()
    tower, config = base.vision_tower, given.model.config
    sizes = [h * w for h, w in given.inputs["target_sizes_videos"].tolist()]
    layers, width, merger = list(tower.encoder.layers), vision.hidden_size, tower.vit_merger
    halfway = vision.insert_layer_id if config.downsample_mode != "4x" else -1
    counted.matrices(sum(sizes), tower.embeddings.patch_embedding)
    for index, layer in enumerate(layers):
        counted.matrices(sum(sizes), layer)
        counted.attention(sum(n * n for n in sizes), width)
        if index == halfway:
            window = merger.window_kernel_size[0] * merger.window_kernel_size[1]
            counted.matrices(sum(sizes), merger.self_attn)
            counted.attention(sum(sizes) * window, width)
            sizes = [n // window for n in sizes]
            counted.matrices(sum(sizes), merger.linear_1, merger.linear_2)
    merge = base.merger.merge_kernel_size[0] * base.merger.merge_kernel_size[1]
    for part in base.merger.mlp:
        sizes = [n // merge for n in sizes]
        counted.matrices(sum(sizes), part)
    return counted


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


def _matrices(module: nn.Module) -> int:
    """Entries of all matrices and convolutions, but of no table: what every row that passes is multiplied with."""
    apart = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    return sum(weight.numel() for weight in module.parameters() if weight.ndim >= 2 and id(weight) not in apart)


def _has(*path: str, given: Iterable[str] = (), dimensions: int | None = None) -> Callable[[Given], bool]:
    """Whether a base model has these parts, one inside the other, and its prompt these arguments; the number of
    dimensions is the first one's."""

    def fits(case: Given) -> bool:
        module, names = case.base, tuple(given)
        for name in path:
            module = getattr(module, name, None)
        there = module is not None and all(name in case.inputs for name in names)
        return there and (dimensions is None or case.inputs[names[0]].ndim == dimensions)

    return fits


_PIXELS = "pixel_values_videos"
_SHAPES: tuple[tuple[Callable[[Given], bool], Callable[[Given], Counted]], ...] = (
    (_has("visual", "blocks", given=(_PIXELS, "video_grid_thw")), _qwen),
    (_has("vision_model", "encoder", given=(_PIXELS, "video_merge_sizes")), _video_llama_3),
    (_has("vision_tower", "vit_merger", given=(_PIXELS, "target_sizes_videos")), _minicpmv),
    (_has("vision_tower", "patch_embedder", given=(_PIXELS, "video_position_ids")), _gemma4),
    (_has("vision_tower", "patch_embedding", given=(_PIXELS, "video_token_pooling")), _molmo2),
    # [V, F, 3, H, W]; patches that are cut already say another tower.
    (_has("video_tower", "encoder", "layers", given=(_PIXELS,), dimensions=5), _llava),
    (_has("vision_tower", "encoder", "layers", given=(_PIXELS,), dimensions=5), _llava),
    (_has("vision_tower", "encoder", "layer", given=("pixel_values",), dimensions=4), _internvl),
    (_has("vision_model", "encoder", "layers", given=("pixel_values",), dimensions=5), _smolvlm),
)


def pixels_in(model: Any, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """The pixels of a prompt's videos; None where it has none."""
    return inputs.get(family_of(model).pixels)


__all__ = ["Counted", "Given", "pixels_in", "shape_of"]
