"""Qwen2.5-VL: as Qwen2-VL, with the temporal axis of M-RoPE scaled to seconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.vision_utils import get_vision_window_index

from adapters.family import register_family
from adapters.qwen2_vl import Qwen2VL
from adapters.video import Video


@register_family
class Qwen25VL(Qwen2VL):
    """The layout of Qwen2-VL; positions differ, and those are the model's own. The tower orders patches by windows."""

    name = "qwen2_5vl"
    model_types = ("qwen2_5_vl",)
    classes = "Qwen2_5_VLForConditionalGeneration"
    checkpoint = "Qwen/Qwen2.5-VL-7B-Instruct"

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        ids, media = super().laid_out(model, video)
        seconds = max(video.duration, 1e-3) / int(media["video_grid_thw"][0, 0])
        return ids, media | {"second_per_grid_ts": torch.tensor([seconds])}

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        """The tower sorts its tokens by windows; the library's own index, inverted, brings them back."""
        vision = model.config.vision_config
        merge = vision.spatial_merge_size
        grids = torch.tensor([[t, h * merge, w * merge] for t, h, w in geometry])
        index, _ = get_vision_window_index(grids, merge, vision.window_size, vision.patch_size)
        back = torch.argsort(index).to(values.device, non_blocking=True)
        restored = values.view(-1, merge**2, *values.shape[1:])[back].flatten(0, 1)
        return super().split_frames(model, restored, geometry)
