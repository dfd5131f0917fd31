"""From a composed configuration to what is compressed: the model, the video and the question."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig
from transformers.utils import logging

from adapters.errors import LoadError
from adapters.loading import check_attention, check_device, check_dtype, load_published, load_random
from adapters.micro import clip_path, load_micro
from adapters.prompting import LayoutProcessor
from compressors.errors import InputError
from experiments.frames import frames_setting

DEFAULT_QUESTION = "Describe the video."


@dataclass(frozen=True)
class Clip:
    """Which video, what is asked about it, and the right answer where it is known; `frames` may be "auto"."""

    path: Path
    question: str
    expected: str | None
    frames: int | Literal["auto"] | None


def clip_from(cfg: DictConfig) -> Clip:
    """The video and the question that `video` and `question` name; null is the embedded clip, null is its question.

    Raises:
        InputError: an empty question; frames as in `frames_setting`.
    """
    frames = frames_setting(cfg)
    if cfg.question is not None and not str(cfg.question).strip():
        raise InputError("question= is empty: write one in quotes, or leave it out for the model's own default.")
    if cfg.video is not None:
        return Clip(Path(str(cfg.video)).expanduser(), cfg.question or DEFAULT_QUESTION, None, frames)
    known = {
        item["question"]: item["answer"]
        for item in json.loads(clip_path().with_suffix(".json").read_text())["questions"]
    }
    question = cfg.question or next(iter(known))
    return Clip(clip_path(), question, known.get(question), frames)


def model_from(cfg: DictConfig) -> tuple[Any, Any]:
    """The model and the processor that `model` describes.

    Raises:
        LoadError: something is missing, or `model.weights` is neither published nor random.
    """
    wanted = cfg.model
    place = {key: wanted[key] for key in ("device", "dtype", "attn_implementation")}
    if wanted.name == "micro":
        device, dtype = check_device(wanted.device), check_dtype(wanted.dtype)
        check_attention(wanted.attn_implementation, device, dtype)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it loads at once
        try:
            return load_micro(device, dtype, wanted.attn_implementation)
        finally:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    if wanted.weights == "random":
        model = load_random(_architecture(wanted.architecture), layers=wanted.layers, **place)
        return model, LayoutProcessor(model)
    if wanted.weights != "published":
        raise LoadError(f"model.weights={wanted.weights}: write published or random.")
    if wanted.layers is not None:
        raise LoadError("model.layers goes with model.weights=random only: published weights need all their layers.")
    return load_published(wanted.path, **place)


def _architecture(name: str) -> Path:
    """A file that comes with vidpress, or any other JSON file."""
    shipped = Path(str(resources.files("conf") / "model" / name))
    return shipped if shipped.is_file() else Path(name).expanduser()
