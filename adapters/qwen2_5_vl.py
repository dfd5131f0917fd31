"""Qwen2.5-VL: as Qwen2-VL, with the temporal axis of M-RoPE scaled to seconds."""

from __future__ import annotations

from adapters.family import register_family
from adapters.qwen2_vl import Qwen2VL


@register_family
class Qwen25VL(Qwen2VL):
    """The layout of Qwen2-VL; only positions differ, and those are the model's own."""

    name = "qwen2_5vl"
    model_types = ("qwen2_5_vl",)
    classes = "Qwen2_5_VLForConditionalGeneration"
    checkpoint = "Qwen/Qwen2.5-VL-7B-Instruct"
