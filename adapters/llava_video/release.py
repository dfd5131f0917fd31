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
UNUSED = (
    (re.escape(_TOWER) + r"head\.", "the tower's pooling head, which the release replaces by nothing"),
    (re.escape(_TOWER) + r"embeddings\.position_ids$", "a constant"),
    (r".*rotary_emb\.inv_freq$", "computed from the configuration"),
    (r"model\.faster_token$", "of the slow-fast setting, which this checkpoint's configuration does not use"),
)

_TEXT = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
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
    described: Mapping[str, Any], ids: tuple[int, int], pool: str, tower: Mapping[str, Any] | None
) -> LlavaVideoConfig:
    """The configuration of this package for the release's.

    Args:
        described: the release's `config.json`.
        ids: of the placeholders of images and videos.
        pool: as in `convert`.
        tower: as in `convert`.

    Raises:
        LoadError: a setting or a tower that is not known here.
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
        "add_faster_video": not described.get("add_faster_video"),
    }
    if strange := [f"{key}={described.get(key)}" for key, fine in wanted.items() if not fine]:
        raise LoadError(f"checkpoints with {', '.join(strange)} are not known here.")
    text = {key: value for key, value in described.items() if key in _TEXT}
    theta = described.get("rope_theta", 1e6)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta} | (described.get("rope_scaling") or {})
    if max(ids) >= described["vocab_size"]:
        raise LoadError(f"the placeholders' ids {ids} are beyond vocab_size={described['vocab_size']}.")
    mode: Any = described.get("mm_spatial_pool_mode", "bilinear") if pool == "config" else pool
    newlines = described.get("mm_newline_position", "one_token")
    if mode not in get_args(PoolMode) or newlines not in get_args(NewlinePosition):
        raise LoadError(f"pooling {mode!r} with newlines {newlines!r} is not known here.")
    return LlavaVideoConfig(
        text_config=Qwen2Config(**text),
        vision_config=dict(vision),
        image_token_index=ids[0],
        video_token_index=ids[1],
        vision_feature_layer=-1,  # of the tower that lacks its last layer
        vision_feature_select_strategy="full",
        vision_aspect_ratio=described["image_aspect_ratio"],
        image_grid_pinpoints=_pinpoints(described.get("image_grid_pinpoints"), vision["image_size"]),
        tie_word_embeddings=bool(described.get("tie_word_embeddings", False)),
        newline_position=newlines,
        spatial_pool_mode=mode,
        spatial_pool_stride=described.get("mm_spatial_pool_stride") or 2,
        dtype=described.get("torch_dtype") or described.get("dtype"),
    )


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
        raise LoadError(
            f"the checkpoint's keys do not match. Missing: {some(missing)}. Unknown or of another shape: "
            f"{some(unknown)}."
        )
    return names, unused


def some(names: list[str]) -> str:
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "none") + rest
