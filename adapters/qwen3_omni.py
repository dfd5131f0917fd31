"""Qwen3-Omni's thinker: DeepStack as Qwen3-VL, a video in one run as Qwen2.5-Omni, and its audio in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.family import register_family
from adapters.qwen2_5_omni import Thinker
from adapters.qwen2_vl import Qwen2VL
from adapters.video import Video


@register_family
class Qwen3Omni(Thinker, Qwen2VL):
    """Positions are fractions: the time axis counts 13 a second."""

    name = "qwen3_omni"
    model_types = ("qwen3_omni_moe_thinker",)
    wholes: ClassVar[Mapping[str, str]] = {"qwen3_omni_moe": "thinker"}
    classes = "Qwen3OmniMoeThinkerForConditionalGeneration"
    checkpoint = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
    layout = "one run of tokens per video, two frames per group; audio of the video in between, untouched; DeepStack"

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        ids, media = super().laid_out(model, video)
        seconds = max(video.duration, 1e-3) / int(media["video_grid_thw"][0, 0])
        return ids, media | {"video_second_per_grid": torch.tensor([seconds])}
