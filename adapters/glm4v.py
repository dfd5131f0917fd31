"""GLM-4.1V, GLM-4.5V and GLM-4.6V: image tokens stand for video tokens too, a timestamp in text after each group's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.family import register_family
from adapters.qwen2_vl import Qwen2VL
from adapters.support import ENCODES_BEFORE_EXPANDING, Feature
from adapters.video import Video


@register_family
class GLM4V(Qwen2VL):
    """Features as Qwen2-VL. Images and videos never share a call: the library takes both from the same places.

    Its tower merges patches before its output, so that frame features come from merged tokens.
    """

    name = "glm4v"
    model_types = ("glm4v", "glm4v_moe", "glm46v")
    classes = "Glm4vForConditionalGeneration, Glm4vMoeForConditionalGeneration, Glm46VForConditionalGeneration"
    checkpoint = "zai-org/GLM-4.1V-9B-Thinking"
    streams = False
    layout = "one run of image tokens per group of two frames, timestamps between; no images beside a video"
    position_groups = "frame"
    # To find each sample's videos the library counts `video_token_id` in the prompt, and there is none.
    refuses: ClassVar[Mapping[Feature, str]] = (
        {"beams": "from 5.23 on, transformers loses GLM's video features when it repeats a prompt"}
        if ENCODES_BEFORE_EXPANDING
        else {}
    )

    def video_mask(
        self, model: PreTrainedModel, input_ids: Tensor, arguments: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Image tokens: where there are videos, there are no images (the library raises an error)."""
        return cast(Tensor, input_ids == model.config.image_token_id)

    def media_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """All between a video's marks: the last timestamp comes after its last token, and is no question."""
        starts: Tensor = input_ids == model.config.video_start_token_id
        ends: Tensor = input_ids == model.config.video_end_token_id
        return super().media_mask(model, input_ids) | (starts.cumsum(1) > ends.cumsum(1))

    def frames_in(self, arguments: Mapping[str, Any]) -> list[int]:
        """The tower is given every group as a video of its own. Read on the host, as its cacher reads the grids."""
        groups: list[int] = arguments["video_grid_thw"][:, 0].tolist()
        return groups

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        """Attention and keys have a row for each patch, the final features one for each token."""
        if values.shape[0] > sum(t * h * w for t, h, w in geometry):
            return super().split_frames(model, values, geometry)
        videos = torch.split(values, [t * h * w for t, h, w in geometry])
        return [video.view(t, -1, *values.shape[1:]) for video, (t, _, _) in zip(videos, geometry, strict=True)]

    def runs(self, video: Video, groups: int, places: int) -> list[tuple[str, int]]:
        seconds = max(video.duration, 1e-3) / groups
        return [(f"{seconds * group:.1f} seconds", places) for group in range(groups)]

    def written(self, config: Any, runs: Sequence[tuple[str, int]]) -> list[int]:
        ids = [config.video_start_token_id]
        for stamp, run in runs:
            ids += [config.image_start_token_id, *[config.image_token_id] * run, config.image_end_token_id]
            ids += stamp.encode()
        return [*ids, config.video_end_token_id]
