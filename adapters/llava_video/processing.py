"""The processor of LLaVA-Video: LLaVA-OneVision's, with the placeholders of other poolings and newlines."""

from __future__ import annotations

import math
from typing import Any

from transformers import LlavaOnevisionProcessor

from adapters.llava_video.configuration import NewlinePosition, PoolMode, placeholders, pooled_side


class LlavaVideoProcessor(LlavaOnevisionProcessor):
    """As `LlavaOnevisionProcessor`; the last three arguments are the configuration's (`LlavaVideoConfig`)."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        num_image_tokens: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        video_token: str = "<video>",
        vision_aspect_ratio: str = "anyres_max_9",
        newline_position: NewlinePosition = "grid",
        spatial_pool_mode: PoolMode = "average",
        spatial_pool_stride: int = 2,
        **kwargs: Any,
    ) -> None:
        self.newline_position: NewlinePosition = newline_position
        self.spatial_pool_mode: PoolMode = spatial_pool_mode
        self.spatial_pool_stride = spatial_pool_stride
        super().__init__(
            image_processor,
            tokenizer,
            video_processor,
            num_image_tokens,
            vision_feature_select_strategy,
            chat_template,
            image_token,
            video_token,
            vision_aspect_ratio,
            **kwargs,
        )

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """The placeholders of one video."""
        return str(self.video_token) * self._places(len(video_inputs["pixel_values_videos"][video_idx]))

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, video_sizes: Any = None, **kwargs: Any) -> Any:
        data = super()._get_num_multimodal_tokens(image_sizes, **kwargs)
        if video_sizes is not None:
            data["num_video_tokens"] = [self._places(frames) for frames, _, _ in video_sizes]
        return data

    def _places(self, frames: int) -> int:
        side = pooled_side(math.isqrt(self.num_image_tokens), self.spatial_pool_mode, self.spatial_pool_stride)
        return placeholders(frames, side, self.newline_position)
