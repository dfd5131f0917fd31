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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, GenerationConfig

from adapters.errors import LoadError
from adapters.llava_video.configuration import LlavaVideoConfig, pooled_side
from adapters.llava_video.modeling import LlavaVideoForConditionalGeneration
from adapters.llava_video.release import CHAT, configuration, matched, some

INDEX = "model.safetensors.index.json"
PLACEHOLDERS = ("<image>", "<video>")
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint.

    Attributes:
        config: of the converted one.
        taken: where each setting of videos (`newline_position`, `spatial_pool_mode`, `spatial_pool_stride`) is from.
        unused: the source's keys that were not used, with the reasons.
    """

    config: LlavaVideoConfig
    taken: Mapping[str, str]
    unused: Mapping[str, str]


def convert(
    source: str | Path, target: str | Path, *, pool: str | None = None, tower: Mapping[str, Any] | None = None
) -> Conversion:
    """Write the checkpoint in this package's layout.

    Args:
        source: the release's folder.
        target: a folder to be made; files in it are written over.
        pool: "average", "max", "bilinear", or "config" for what the source's configuration says. None: that too, or
            what follows from its newlines, as the release runs such checkpoints (`release.PRACTICE`): LLaVA-Video with
            averages (13×13 tokens per frame), LLaVA-OneVision bilinear (14×14).
        tower: configuration of the vision tower, for towers that `TOWERS` does not name.

    Raises:
        LoadError: files are missing, the source has a setting or a tower that is not known here, nothing says how
            frames are pooled, or keys do not match.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if source.resolve() == target.resolve():
        raise LoadError(f"SOURCE and TARGET are both {source}: the release's files would be written over.")
    described, tokenizer = _read(source / "config.json"), _tokenizer(source)
    tokenizer.add_special_tokens({"additional_special_tokens": [*PLACEHOLDERS]}, replace_extra_special_tokens=False)
    image, video = (tokenizer.convert_tokens_to_ids(token) for token in PLACEHOLDERS)
    config, taken = configuration(described, (image, video), pool, tower)
    files = _shards(source)
    shapes = {key: shape for file in files for key, shape in _shapes(file).items()}
    with torch.device("meta"):
        wanted = {
            key: tuple(value.shape) for key, value in LlavaVideoForConditionalGeneration(config).state_dict().items()
        }
    names, unused = matched(shapes, wanted, config)
    if HEAD in unused and not torch.equal(*(_tensor(files, key) for key in (HEAD, EMBEDDINGS))):
        raise LoadError(f"config.json says tie_word_embeddings, but {HEAD} is not {EMBEDDINGS}: one of them is wrong.")
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
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(target)
    (target / "processor_config.json").write_text(json.dumps(_processor(config), indent=2))
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    GenerationConfig(**ends).save_pretrained(target)
    return Conversion(config, taken, unused)


def _tokenizer(source: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(
            source, padding_side="left", trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise LoadError(f"the tokenizer in {source} could not be read: {error}.") from error


def _shards(source: Path) -> list[Path]:
    """The safetensors files of a checkpoint, each as its index lists it."""
    index = source / INDEX
    names: Iterable[str] = (
        dict.fromkeys(_read(index)["weight_map"].values()) if index.is_file() else ["model.safetensors"]
    )
    files = [source / name for name in names]
    if absent := [file.name for file in files if not file.is_file()]:
        raise LoadError(
            f"{source} lacks {some(absent)}. Weights must be safetensors; pickled ones (.bin, .pth) are not read."
        )
    return files


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Key -> shape, from the header alone."""
    with safe_open(file, framework="pt") as stored:
        return {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118


def _tensor(files: Iterable[Path], key: str) -> Any:
    """A weight, from whichever file it is in."""
    for file in files:
        with safe_open(file, framework="pt") as stored:
            if key in stored.keys():  # noqa: SIM118
                return stored.get_tensor(key)
    raise LoadError(f"the checkpoint has no {key}.")


def _processor(config: LlavaVideoConfig) -> dict[str, Any]:
    """What `LlavaVideoProcessor.save_pretrained` would write; SigLIP wants pixels between -1 and 1."""
    vision: Any = config.vision_config
    side = {"height": vision.image_size, "width": vision.image_size}
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": side}
    pinpoints = {"image_grid_pinpoints": config.image_grid_pinpoints}
    return {
        "processor_class": "LlavaVideoProcessor",
        "image_processor": {"image_processor_type": "LlavaOnevisionImageProcessor", **pixels, **pinpoints},
        "video_processor": {"video_processor_type": "LlavaOnevisionVideoProcessor", **pixels},
        "image_token": PLACEHOLDERS[0],
        "video_token": PLACEHOLDERS[1],
        "num_image_tokens": (vision.image_size // vision.patch_size) ** 2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": config.vision_aspect_ratio,
        "newline_position": config.newline_position,
        "spatial_pool_mode": config.spatial_pool_mode,
        "spatial_pool_stride": config.spatial_pool_stride,
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} could not be read: {error}.") from error


def main() -> None:
    about = "Turn a checkpoint of the LLaVA-NeXT release into one that model=llava_video loads."
    parser = argparse.ArgumentParser(prog="python -m adapters.llava_video.convert", description=about)
    parser.add_argument("source", help="folder with config.json, safetensors and tokenizer, as released")
    parser.add_argument("target", help="folder to write")
    pools = ("average", "max", "bilinear", "config")
    how = (
        "how frames are pooled; config: as config.json says. Without --pool, as the release runs such a checkpoint; "
        "what was taken from where is printed."
    )
    parser.add_argument("--pool", choices=pools, help=how)
    given = parser.parse_args()
    try:
        done = convert(given.source, given.target, pool=given.pool)
    except LoadError as error:
        parser.exit(2, f"error: {error}\n")
    for key, reason in done.unused.items():
        print(f"not used: {key} ({reason})")
    for setting, source in done.taken.items():
        print(f"{setting}: {getattr(done.config, setting)} ({source})")
    vision: Any = done.config.vision_config
    patches = vision.image_size // vision.patch_size
    side = pooled_side(patches, done.config.spatial_pool_mode, done.config.spatial_pool_stride)
    print(f"a frame: {patches}×{patches} patches, {side}×{side} tokens")
    print(f"written: {given.target}")


if __name__ == "__main__":
    main()
