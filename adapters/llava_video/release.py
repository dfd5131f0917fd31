"""What the release's checkpoints look like, and what becomes of it: settings, names of weights, chat template.

Facts of https://github.com/LLaVA-VL/LLaVA-NeXT: `config.json` holds Qwen2's settings and the release's own `mm_…` ones;
the tower is SigLIP so400m/14-384 whose last layer is deleted, and what is projected is the last hidden state, before
the closing normalisation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from transformers import Qwen2Config

from adapters.errors import LoadError
from adapters.llava_video.configuration import LlavaVideoConfig, NewlinePosition, PoolMode

# Without its last layer and without its head.
TOWERS: Mapping[str, Mapping[str, Any]] = {
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
}

_TOWER = "model.vision_tower.vision_tower.vision_model."
# The first that fits.
RENAMED = (
    (_TOWER, "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
# How the release runs the checkpoints of a newline setting.
PRACTICE: Mapping[str, tuple[PoolMode, str]] = {
    "grid": ("average", "LLaVA-Video"),
    "one_token": ("bilinear", "LLaVA-OneVision"),
}
STRIDE = 2  # the release's where its configuration names none
UNUSED = (
    (re.escape(_TOWER) + r"head\.", "the tower's pooling head, which the release replaces by nothing"),
    (re.escape(_TOWER) + r"embeddings\.position_ids$", "a constant"),
    (r".*rotary_emb\.inv_freq$", "computed from the configuration"),
    (r"model\.faster_token$", "of the slow-fast setting, which this checkpoint's configuration does not use"),
)

# What no weight's shape would contradict if it were guessed, and the sizes.
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
)
_TEXT = {
    *_NEEDED,
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "tie_word_embeddings",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}

CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'video' %}<video>\n{% elif item['type'] == 'image' %}<image>\n{% else %}{{ item['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def configuration(
    described: Mapping[str, Any], ids: tuple[int, int], pool: str | None, tower: Mapping[str, Any] | None
) -> tuple[LlavaVideoConfig, dict[str, str]]:
    """The configuration of this package for the release's.

    Args:
        described: the release's `config.json`.
        ids: of the placeholders of images and videos.
        pool: as in `convert`.
        tower: as in `convert`.

    Returns:
        (the configuration, as `Conversion.taken` which of its settings for videos was taken from where)

    Raises:
        LoadError: a setting or a tower that is not known here, or one that is missing.
    """
    name, projector = described.get("mm_vision_tower"), described.get("mm_projector_type")
    vision = tower if tower is not None else TOWERS.get(str(name))
    if vision is None:
        raise LoadError(f"vision tower {name!r} is not known; known: {', '.join(TOWERS)}.")
    wanted = {
        "mm_projector_type": projector == "mlp2x_gelu",
        "mm_patch_merge_type": "unpad" in str(described.get("mm_patch_merge_type")),
        "image_aspect_ratio": str(described.get("image_aspect_ratio")).startswith("anyres_max_"),
        "mm_resampler_type": not described.get("mm_resampler_type"),
        "mm_use_im_start_end": not described.get("mm_use_im_start_end"),
        "add_faster_video": not described.get("add_faster_video"),
    }
    if strange := [f"{key}={described.get(key)}" for key, fine in wanted.items() if not fine]:
        raise LoadError(f"checkpoints with {', '.join(strange)} are not known here.")
    rope = _rope(described)
    absent = [key for key in _NEEDED if described.get(key) is None]
    absent += ["rope_theta"] * (rope.get("rope_theta") is None)
    if absent:
        raise LoadError(f"config.json lacks {', '.join(absent)}, which the weights do not tell.")
    if max(ids) >= described["vocab_size"]:
        raise LoadError(f"the placeholders' ids {ids} are beyond vocab_size={described['vocab_size']}.")
    settings, taken = _settings(described, pool, vision["image_size"] // vision["patch_size"])
    config = LlavaVideoConfig(
        text_config=Qwen2Config(
            **{key: value for key, value in described.items() if key in _TEXT}, rope_parameters=rope
        ),
        vision_config=dict(vision),
        image_token_index=ids[0],
        video_token_index=ids[1],
        vision_feature_layer=-1,  # of the tower that lacks its last layer
        vision_feature_select_strategy="full",
        vision_aspect_ratio=described["image_aspect_ratio"],
        image_grid_pinpoints=_pinpoints(described.get("image_grid_pinpoints"), vision["image_size"]),
        tie_word_embeddings=bool(described.get("tie_word_embeddings", False)),
        dtype=described.get("torch_dtype") or described.get("dtype"),
        **settings,
    )
    return config, taken


def _settings(described: Mapping[str, Any], pool: str | None, patches: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Newlines, pooling and stride of videos, and where each was found; `patches` is the tower's, per side."""
    newlines, stride = described.get("mm_newline_position", "one_token"), described.get("mm_spatial_pool_stride")
    taken = {
        "newline_position": "config.json"
        if "mm_newline_position" in described
        else "not in config.json: the release's own default",
        "spatial_pool_stride": "config.json" if stride is not None else "not in config.json: the release's own default",
    }
    stride = STRIDE if stride is None else stride
    if newlines not in get_args(NewlinePosition):
        raise LoadError(
            f"mm_newline_position={newlines!r} is not known here; known: {', '.join(get_args(NewlinePosition))}."
        )
    if not isinstance(stride, int) or not 1 <= stride <= patches:
        raise LoadError(f"mm_spatial_pool_stride={stride!r} does not fit {patches}×{patches} patches.")
    mode, taken["spatial_pool_mode"] = _pooling(described, pool)
    if mode not in get_args(PoolMode):
        raise LoadError(
            f"mm_spatial_pool_mode={mode!r} is not known here; choose with --pool {'|'.join(get_args(PoolMode))}."
        )
    return {"newline_position": newlines, "spatial_pool_mode": mode, "spatial_pool_stride": stride}, taken


def _pooling(described: Mapping[str, Any], pool: str | None) -> tuple[str, str]:
    """The pooling, and where it was found.

    LLaVA-Video's configurations say "bilinear" because the release's trainer writes that default into every one, while
    the release runs these models with averages, overriding it. So "bilinear" beside newlines after rows decides
    nothing; everything else that a configuration says does.
    """
    said, newlines = described.get("mm_spatial_pool_mode"), described.get("mm_newline_position")
    choices = "|".join(get_args(PoolMode))
    if pool not in (None, "config"):
        return str(pool), "asked for"
    if said is not None and (pool == "config" or (newlines, said) != ("grid", "bilinear")):
        return str(said), "config.json"
    if pool == "config":
        raise LoadError(f"config.json does not say mm_spatial_pool_mode: choose with --pool {choices}.")
    practice = PRACTICE.get(str(newlines))
    if practice is None:
        raise LoadError(
            "config.json says neither mm_spatial_pool_mode nor an mm_newline_position from which it follows "
            f"({', '.join(PRACTICE)}): choose with --pool {choices}."
        )
    mode, name = practice
    aside = "" if said is None else f"; config.json says {said}, as it was trained: --pool config"
    return mode, f"newlines of {name}, which its release runs with this{aside}"


def _rope(described: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary embeddings, as transformers 4 writes them (`rope_theta`, `rope_scaling`) or as 5 does."""
    if given := described.get("rope_parameters"):
        return dict(given)
    scaling = dict(described.get("rope_scaling") or {})
    kind = scaling.pop("type", "default")
    return {"rope_type": kind, **scaling, "rope_theta": described.get("rope_theta")}


def _pinpoints(given: Any, side: int) -> list[list[int]] | None:
    """`[[height, width], …]` for `[[width, height], …]`, or for "(1x1),...,(6x6)": a range in multiples of the side."""
    if not isinstance(given, str):
        return given and [[height, width] for width, height in given]
    corners = [tuple(map(int, pair)) for pair in re.findall(r"(\d+)x(\d+)", given)]
    low, high = corners[0], corners[-1]
    return [[side * h, side * w] for h in range(low[0], high[0] + 1) for w in range(low[1], high[1] + 1)]


def matched(
    shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], config: LlavaVideoConfig
) -> tuple[dict[str, str], dict[str, str]]:
    """Old names to new ones, and unused old names to reasons.

    Raises:
        LoadError: naming every key that is missing, unknown or misshapen.
    """
    names: dict[str, str] = {}
    unused: dict[str, str] = {}
    unknown: list[str] = []
    tower: Any = config.vision_config
    depth = tower.num_hidden_layers
    for key, shape in shapes.items():
        reason = next((reason for pattern, reason in UNUSED if re.match(pattern, key)), None)
        layer = re.match(re.escape(_TOWER) + r"encoder\.layers\.(\d+)\.", key)
        if layer and int(layer[1]) == depth:
            reason = "of the tower's last layer, which the release deletes"
        if key == "lm_head.weight" and config.tie_word_embeddings:
            reason = "tied to the embeddings"
        if reason is not None:
            unused[key] = reason
            continue
        new = next((new + key.removeprefix(old) for old, new in RENAMED if key.startswith(old)), "")
        if wanted.get(new) == shape:
            names[key] = new
        else:
            unknown.append(f"{key} {shape}" + (f" (expected {wanted[new]})" if new in wanted else ""))
    needed = set(wanted) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    missing = sorted(needed - set(names.values()))
    if unknown or missing:
        hint = " Tied embeddings must be in config.json: tie_word_embeddings." if "lm_head.weight" in missing else ""
        raise LoadError(
            f"the checkpoint's keys do not match. Missing: {some(missing)}. Unknown or of another shape: "
            f"{some(unknown)}.{hint}"
        )
    return names, unused


def some(names: list[str]) -> str:
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "none") + rest
