"""GLM-4.1V, GLM-4.5V and GLM-4.6V: video tokens are image tokens between marks of a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor

from tests.adapters.tiny.families.qwens import ROPE, VISION, Qwen3VL
from tests.adapters.tiny.family import HIDDEN, IMAGE, PATCH, TEXT, VIDEO, VISION_END, VISION_START, text_ids
from tests.adapters.tiny.segments import Image, Rows, Video, images, videos

VIDEO_START, VIDEO_END = 6, 7


class GLM4V(Qwen3VL):
    name = "glm4v"
    model_class = "Glm4vForConditionalGeneration"
    config_class = "Glm4vConfig"
    core = False
    special = (
        "<pad>",
        "<eos>",
        "<|image|>",
        "<|video|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    video_text = "<|begin_of_video|><|video|><|end_of_video|>"
    processor_class = "Glm4vProcessor"
    video_processor = "Glm4vVideoProcessor"
    vision: ClassVar[dict[str, Any]] = {
        **VISION,
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": HIDDEN,
        "image_size": 4 * PATCH,
    }
    text: ClassVar[dict[str, Any]] = {**TEXT, "rope_parameters": dict(ROPE)}

    def config(self) -> Any:
        return getattr(transformers, self.config_class)(
            text_config=dict(self.text),
            vision_config=dict(self.vision),
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            image_start_token_id=VISION_START,
            image_end_token_id=VISION_END,
            video_start_token_id=VIDEO_START,
            video_end_token_id=VIDEO_END,
        )

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        start, end = torch.tensor([VISION_START]), torch.tensor([VISION_END])
        frame = [start, torch.full((segment.h * segment.w,), IMAGE), end]
        if isinstance(segment, Image):
            return frame
        frames = [piece for _ in range(segment.frames) for piece in (*frame, text_ids(2, generator))]
        return [torch.tensor([VIDEO_START]), *frames, torch.tensor([VIDEO_END])]

    def unfit(self, rows: Rows) -> str | None:
        mixed = images(rows) and videos(rows)
        return "the library takes images and videos from the same places, never both" if mixed else None

    def types(self, ids: Tensor) -> Tensor:
        inside = (ids == VIDEO_START).cumsum(-1) > (ids == VIDEO_END).cumsum(-1)
        return (ids == IMAGE).int() * (1 + inside.int())

    def video_mask(self, sample: Mapping[str, Tensor]) -> Tensor:
        return sample["mm_token_type_ids"][0] == 2

    def processor(self, tokenizer: Any, frames: int) -> Any:
        patches = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
        size = {"shortest_edge": 64, "longest_edge": 192 * frames}
        pictures = getattr(transformers, self.processor_class.replace("Processor", "ImageProcessor"))
        return getattr(transformers, self.processor_class)(
            image_processor=pictures(**patches),
            tokenizer=tokenizer,
            video_processor=getattr(transformers, self.video_processor)(**patches, size=size),
        )


class GLM46V(GLM4V):
    name = "glm46v"
    model_class = "Glm46VForConditionalGeneration"
    config_class = "Glm46VConfig"
    processor_class = "Glm46VProcessor"
    video_processor = "Glm46VVideoProcessor"
    vision: ClassVar[dict[str, Any]] = {**GLM4V.vision, "model_type": "glm4v_vision"}
    text: ClassVar[dict[str, Any]] = {**GLM4V.text, "model_type": "glm4v_text"}


class GLM4VMoe(GLM4V):
    name = "glm4v_moe"
    model_class = "Glm4vMoeForConditionalGeneration"
    config_class = "Glm4vMoeConfig"
    text: ClassVar[dict[str, Any]] = {
        **GLM4V.text,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0},
    }

    def master(self, attention: str, vocabulary: int) -> Any:
        model = super().master(attention, vocabulary)
        model.set_experts_implementation("eager")  # the grouped kernels have no float64
        return model


FAMILIES = (GLM4V(), GLM46V(), GLM4VMoe())
