"""LLaVA-Video: LLaVA-OneVision with a choice of pooling and newlines for videos."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel, LlavaOnevisionPreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModelOutputWithPast

from adapters.llava_video.configuration import LlavaVideoConfig, pooled_side


class LlavaVideoModel(LlavaOnevisionModel):
    """Images as in LLaVA-OneVision; frames pooled and with newlines as the configuration says."""

    config: LlavaVideoConfig

    @property
    def side(self) -> int:
        """Tokens per side of a pooled frame."""
        config: Any = self.config
        vision = config.vision_config
        return pooled_side(vision.image_size // vision.patch_size, config.spatial_pool_mode, config.spatial_pool_stride)

    def apply_pooling(self, image_features: Tensor) -> Tensor:
        """`[F, patches, C]` -> `[F, side², C]`."""
        config, (frames, patches, channels) = self.config, image_features.shape
        height = round(patches**0.5)
        planes = image_features.view(frames, height, height, channels).permute(0, 3, 1, 2)
        if config.spatial_pool_mode == "average":
            planes = functional.avg_pool2d(planes, config.spatial_pool_stride)
        elif config.spatial_pool_mode == "max":
            planes = functional.max_pool2d(planes, config.spatial_pool_stride)
        else:
            planes = functional.interpolate(planes, size=(self.side, self.side), mode="bilinear")
        return planes.flatten(2).transpose(1, 2)

    def with_newlines(self, features: Tensor) -> Tensor:
        """`[V, F, side², C]` -> `[V, placeholders, C]`."""
        videos, frames, _, channels = features.shape
        newline = self.image_newline.to(features.device, features.dtype)
        runs = {
            "grid": (frames * self.side, self.side),
            "frame": (frames, self.side**2),
            "one_token": (1, frames * self.side**2),
        }
        if self.config.newline_position == "no_token":
            return features.flatten(1, 2)
        count, length = runs[self.config.newline_position]
        features = features.reshape(videos, count, length, channels)
        return torch.cat([features, newline.expand(videos, count, 1, channels)], dim=2).flatten(1, 2)

    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Frames through tower, projector and pooling.

        Args:
            pixel_values_videos: `[V, F, 3, H, W]`.
            vision_feature_layer, vision_feature_select_strategy: instead of the configuration's.
            **kwargs: for the tower.

        Returns:
            The tower's output, its `pooler_output` replaced by `[V, placeholders, C]`.
        """
        videos, frames = pixel_values_videos.shape[:2]
        kwargs |= {"output_hidden_states": True, "return_dict": True}
        tower = self.vision_tower(pixel_values_videos.flatten(0, 1), **kwargs)
        layers = self.config.vision_feature_layer if vision_feature_layer is None else vision_feature_layer
        chosen = [layers] if isinstance(layers, int) else layers
        hidden = torch.cat([tower.hidden_states[layer] for layer in chosen], dim=-1)
        if (vision_feature_select_strategy or self.config.vision_feature_select_strategy) == "default":
            hidden = hidden[:, 1:]  # a tower with a class token
        features = self.apply_pooling(self.multi_modal_projector(hidden))
        tower.pooler_output = self.with_newlines(features.unflatten(0, (videos, frames)))
        tower.hidden_states = None
        return cast(BaseModelOutputWithPooling, tower)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_sizes_videos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        vision_aspect_ratio: str | None = None,
        batch_num_images: Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> LlavaOnevisionModelOutputWithPast:
        """As the library's LLaVA-OneVision, whose own adds a newline to videos here or there, by version."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds is needed")
        embeds = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        encoded = dict(mm_encoder_outputs or {})
        chosen: dict[str, Any] = {
            "vision_feature_layer": vision_feature_layer,
            "vision_feature_select_strategy": vision_feature_select_strategy,
            "return_dict": True,
        }
        if pixel_values is not None:
            encoded["image"] = self.get_image_features(
                pixel_values,
                image_sizes,
                vision_aspect_ratio=vision_aspect_ratio,
                batch_num_images=batch_num_images,
                **chosen,
            )
        if pixel_values_videos is not None:
            encoded["video"] = self.get_video_features(pixel_values_videos, **chosen)
        images = torch.cat([*encoded["image"].pooler_output]) if encoded.get("image") is not None else None
        videos = encoded["video"].pooler_output.flatten(0, 1) if encoded.get("video") is not None else None
        for features, which in ((images, 0), (videos, 1)):
            if features is not None:
                given = {("image_features", "video_features")[which]: features}
                mask = self.get_placeholder_mask(cast(Any, input_ids), inputs_embeds=embeds, **given)[which]
                embeds = embeds.masked_scatter(mask, features.to(embeds.device, embeds.dtype))
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return LlavaOnevisionModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=images,
            video_hidden_states=videos,
        )


class LlavaVideoForConditionalGeneration(LlavaOnevisionForConditionalGeneration):
    """The model with its head; `generate`, `forward` and image features are LLaVA-OneVision's."""

    config: LlavaVideoConfig
    config_class = LlavaVideoConfig

    def __init__(self, config: LlavaVideoConfig) -> None:
        LlavaOnevisionPreTrainedModel.__init__(self, config)  # not LLaVA-OneVision's own, which builds another model
        self.model = LlavaVideoModel(config)
        text: Any = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()
