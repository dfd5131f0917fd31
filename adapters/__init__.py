"""Adapters: everything vidpress knows about models."""

from adapters import (  # noqa: F401 (registers every family)
    gemma4,
    glm4v,
    internvl,
    llava_next_video,
    llava_onevision,
    llava_video,
    minicpmv,
    molmo2,
    perception_lm,
    qwen2_5_omni,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_omni,
    qwen3_vl,
    smolvlm,
    video_llama_3,
    video_llava,
)
from adapters.errors import AlreadyPressed, LoadError, UnsupportedError
from adapters.family import Family, families, family_of, register_family
from adapters.image_frames import mark_videos
from adapters.press import Press, press
from adapters.report import Report

__all__ = [
    "AlreadyPressed",
    "Family",
    "LoadError",
    "Press",
    "Report",
    "UnsupportedError",
    "families",
    "family_of",
    "mark_videos",
    "press",
    "register_family",
]
