"""Checkpoints of the release as this package's: `python -m adapters.llava_video.convert SOURCE TARGET`.

SOURCE is a folder in the layout of https://github.com/LLaVA-VL/LLaVA-NeXT with a SigLIP tower and Qwen2 (LLaVA-Video,
and LLaVA-OneVision, whose layout is the same): config.json, safetensors (sharded or not), tokenizer. TARGET becomes a
folder that `AutoModelForImageTextToText` and `AutoProcessor` load, and so `model=llava_video model.path=TARGET`. Every
key is accounted for: keys that are not used are named with the reason, a missing, unknown or misshapen one is an
error. Nothing is unpickled.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Config,
)

from adapters.errors import LoadError
from adapters.llava_video.configuration import LlavaVideoConfig
from adapters.llava_video.modeling import LlavaVideoForConditionalGeneration
from adapters.llava_video.processing import LlavaVideoProcessor

INDEX = "model.safetensors.index.json"

# SigLIP so400m/14-384 without its last layer and without its head: the release reads the layer before the last.
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

CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'video' %}<video>\n{% elif item['type'] == 'image' %}<image>\n{% else %}{{ item['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def convert(
    source: str | Path, target: str | Path, *, pool: str = "average", tower: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Write the checkpoint in this package's layout.

    Args:
        source: the release's folder.
        target: a folder to be made; files in it are written over.
        pool: "average" (13×13 tokens per frame, as the release is evaluated), "max", "bilinear", or "config" for what
            the source's configuration says.
        tower: configuration of the vision tower, for towers that `TOWERS` does not name.

    Returns:
        the source's keys that were not used, with the reasons.

    Raises:
        LoadError: files are missing, the source has a setting or a tower that is not known here, or keys do not match.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    described = _read(source / "config.json")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    config = _config(described, tokenizer, pool, tower)
    files = _shards(source)
    shapes = {key: shape for file in files for key, shape in _shapes(file).items()}
    with torch.device("meta"):
        wanted = {
            key: tuple(value.shape) for key, value in LlavaVideoForConditionalGeneration(config).state_dict().items()
        }
    names, unused = _matched(shapes, wanted, config)
    target.mkdir(parents=True, exist_ok=True)
    where: dict[str, str] = {}
    for file in files:
        with safe_open(file, framework="pt") as stored:
            part = {names[key]: stored.get_tensor(key) for key in stored.keys() if key in names}  # noqa: SIM118
        if part:
            save_file(part, target / file.name, metadata={"format": "pt"})
            where |= dict.fromkeys(part, file.name)
    if len(files) > 1:
        (target / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=2))
    config.architectures = [LlavaVideoForConditionalGeneration.__name__]
    config.save_pretrained(target)
    _processor(config, tokenizer).save_pretrained(target)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(target)
    return unused


def _config(
    described: Mapping[str, Any], tokenizer: Any, pool: str, tower: Mapping[str, Any] | None
) -> LlavaVideoConfig:
    name, projector = described.get("mm_vision_tower"), described.get("mm_projector_type")
    vision = tower if tower is not None else TOWERS.get(str(name))
    if vision is None:
        raise LoadError(f"vision tower {name!r} is not known; known: {', '.join(TOWERS)}.")
    if projector != "mlp2x_gelu" or described.get("mm_resampler_type") or described.get("add_faster_video"):
        raise LoadError(
            "this converter knows checkpoints with mm_projector_type=mlp2x_gelu, without mm_resampler_type and without "
            f"add_faster_video; this one has {projector}, {described.get('mm_resampler_type')} and "
            f"{described.get('add_faster_video', False)}."
        )
    text = {key: value for key, value in described.items() if key in _TEXT}
    theta = described.get("rope_theta", 1e6)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta} | (described.get("rope_scaling") or {})
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "<video>")]
    if max(ids) >= described["vocab_size"]:
        raise LoadError(f"the placeholders' ids {ids} are beyond vocab_size={described['vocab_size']}.")
    known = ("average", "max", "bilinear")
    mode = described.get("mm_spatial_pool_mode", "bilinear") if pool == "config" else pool
    newlines = described.get("mm_newline_position", "one_token")
    if mode not in known or newlines not in ("grid", "frame", "one_token", "no_token"):
        raise LoadError(
            f"pooling {mode!r} with newlines {newlines!r} is not known; pooling is one of {', '.join(known)}."
        )
    return LlavaVideoConfig(
        text_config=Qwen2Config(**text),
        vision_config=dict(vision),
        image_token_index=ids[0],
        video_token_index=ids[1],
        vision_feature_layer=-1,  # of the tower that lacks its last layer
        vision_feature_select_strategy="full",
        vision_aspect_ratio=_aspect(described),
        image_grid_pinpoints=_pinpoints(described.get("image_grid_pinpoints"), vision["image_size"]),
        tie_word_embeddings=bool(described.get("tie_word_embeddings", False)),
        newline_position=newlines,
        spatial_pool_mode=mode,
        spatial_pool_stride=described.get("mm_spatial_pool_stride") or 2,
        dtype=described.get("torch_dtype") or described.get("dtype"),
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


def _aspect(described: Mapping[str, Any]) -> str:
    aspect = str(described.get("image_aspect_ratio", "anyres_max_9"))
    return aspect if aspect.startswith("anyres_max_") else "anyres_max_9"


def _pinpoints(given: Any, side: int) -> list[list[int]] | None:
    """`[[height, width], …]`: given so, or as "(1x1),...,(6x6)", a range in multiples of the tower's side."""
    if not isinstance(given, str):
        return given
    corners = [tuple(map(int, pair)) for pair in re.findall(r"(\d+)x(\d+)", given)]
    low, high = corners[0], corners[-1]
    return [[side * h, side * w] for h in range(low[0], high[0] + 1) for w in range(low[1], high[1] + 1)]


def _matched(
    shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], config: LlavaVideoConfig
) -> tuple[dict[str, str], dict[str, str]]:
    """Old names to new ones, and unused old names to reasons.

    Raises:
        LoadError: naming every key that is missing, unknown or misshapen.
    """
    names: dict[str, str] = {}
    unused: dict[str, str] = {}
    unknown: list[str] = []
    for key, shape in shapes.items():
        reason = next((reason for pattern, reason in UNUSED if re.match(pattern, key)), None)
        layer = re.match(re.escape(_TOWER) + r"encoder\.layers\.(\d+)\.", key)
        if layer and int(layer[1]) == config.vision_config.num_hidden_layers:
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
            f"the checkpoint's keys do not match. Missing: {_some(missing)}. Unknown or of another shape: "
            f"{_some(unknown)}."
        )
    return names, unused


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "none") + rest


def _shards(source: Path) -> list[Path]:
    """The safetensors files of a checkpoint, each as its index lists it."""
    index = source / INDEX
    names: Iterable[str] = (
        dict.fromkeys(_read(index)["weight_map"].values()) if index.is_file() else ["model.safetensors"]
    )
    files = [source / name for name in names]
    if absent := [file.name for file in files if not file.is_file()]:
        raise LoadError(
            f"{source} lacks {_some(absent)}. Weights must be safetensors; pickled ones (.bin, .pth) are not read."
        )
    return files


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Key -> shape, from the header alone."""
    with safe_open(file, framework="pt") as stored:
        return {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118


def _processor(config: LlavaVideoConfig, tokenizer: Any) -> LlavaVideoProcessor:
    side = config.vision_config.image_size
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": side, "width": side}}
    tokenizer.padding_side = "left"
    return LlavaVideoProcessor(
        image_processor=LlavaOnevisionImageProcessor(**half, image_grid_pinpoints=config.image_grid_pinpoints),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(**half),
        num_image_tokens=(side // config.vision_config.patch_size) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=config.vision_aspect_ratio,
        newline_position=config.newline_position,
        spatial_pool_mode=config.spatial_pool_mode,
        spatial_pool_stride=config.spatial_pool_stride,
        chat_template=tokenizer.chat_template or CHAT,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} could not be read: {error}.") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m adapters.llava_video.convert", description=convert.__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--pool", default="average", choices=("average", "max", "bilinear", "config"))
    given = parser.parse_args()
    for key, reason in convert(given.source, given.target, pool=given.pool).items():
        print(f"not used: {key} ({reason})")
    print(f"written: {given.target}")


if __name__ == "__main__":
    main()
