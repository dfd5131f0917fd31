"""Qwen3-VL, dense and mixture of experts: a timestamp in text before each group's tokens; DeepStack features."""

from __future__ import annotations

from adapters.family import register_family
from adapters.qwen2_vl import Qwen2VL
from adapters.video import Video


@register_family
class Qwen3VL(Qwen2VL):
    """Features as Qwen2-VL; each temporal group is a run of its own between timestamps, which are text and stay."""

    name = "qwen3vl"
    model_types = ("qwen3_vl", "qwen3_vl_moe")
    classes = "Qwen3VLForConditionalGeneration, Qwen3VLMoeForConditionalGeneration"
    checkpoint = "Qwen/Qwen3-VL-8B-Instruct"
    layout = "one run per group of two frames, timestamps between; DeepStack planes follow"
    position_groups = "frame"

    def runs(self, video: Video, groups: int, places: int) -> list[tuple[str, int]]:
        seconds = max(video.duration, 1e-3) / groups
        return [(f"<{seconds * (group + 0.5):.1f} seconds>", places) for group in range(groups)]
