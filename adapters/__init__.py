"""Adapters: everything vidpress knows about models."""

from adapters import (  # noqa: F401 (registers every family)
    glm4v,
    llava_next_video,
    llava_onevision,
    llava_video,
    qwen2_5_omni,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_omni,
    qwen3_vl,
    video_llava,
)
from adapters.errors import AlreadyPressed, LoadError, UnsupportedError
from adapters.family import Family, families, family_of, register_family
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
    "press",
    "register_family",
]
