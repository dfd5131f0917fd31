"""The embedded model: a small, really trained Qwen2-VL that ships with the package, with a clip to ask about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2VLForConditionalGeneration

from adapters.micro.processing import MicroProcessor

__all__ = ["MicroProcessor", "clip_path", "load_micro", "weights_dir"]


def weights_dir() -> Path:
    """Folder of the embedded checkpoint; `Qwen2VLForConditionalGeneration.from_pretrained` loads it too."""
    return Path(__file__).resolve().parent / "weights"


def clip_path() -> Path:
    """The embedded clip, an H.264 file; its questions and answers are in `clip.json` beside it."""
    return weights_dir() / "clip.mp4"


def load_micro(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    attn_implementation: str = "sdpa",
    folder: str | Path | None = None,
) -> tuple[Qwen2VLForConditionalGeneration, MicroProcessor]:
    """Load the embedded model and its processor.

    Args:
        device, dtype, attn_implementation: as for `from_pretrained`.
        folder: another checkpoint of the same kind, such as one in training; the embedded one by default.

    Returns:
        The model in evaluation mode, and the processor.

    Example:
        >>> model, processor = load_micro()
        >>> inputs = processor(processor.prompt("Which shape flashed?"), read_video(clip_path()).frames)
        >>> reply = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        >>> processor.batch_decode(reply, skip_special_tokens=True)
        ['ring']
    """
    folder = Path(folder) if folder is not None else weights_dir()
    model: Any = Qwen2VLForConditionalGeneration.from_pretrained(
        str(folder), dtype=dtype, attn_implementation=attn_implementation, local_files_only=True
    )
    return model.to(device).eval(), MicroProcessor.from_pretrained(folder)
