"""PerceptionLM: frames pooled to a square in one run per video; its image encoder serves videos too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture, host_geometry
from adapters.family import Family, register_family, square_frames
from adapters.support import Feature
from adapters.video import Video
from compressors.errors import InputError

SEVERAL_VIDEOS = (
    "the library repeats PerceptionLM's videos one by one, so that a prompt with several would get them in a wrong "
    "order: use one beam and one return sequence, or give every prompt one video"
)


@register_family
class PerceptionLM(Family):
    """`get_image_features` gives `[F, N, C]`, the frames of all videos; called for images it is left alone.

    Its vision tower comes from timm, whose layers taps do not know.
    """

    name = "perception_lm"
    equal_frames = True
    model_types = ("perception_lm",)
    classes = "PerceptionLMForConditionalGeneration"
    checkpoint = "facebook/Perception-LM-1B"
    layout = "pooled frames in one run, no structural tokens"
    conditions: ClassVar[Mapping[Feature, Sequence[str]]] = {"beams": (SEVERAL_VIDEOS,)}
    encoder = "get_image_features"

    def encodes_videos(self, arguments: Mapping[str, Any], forward: Mapping[str, Any] | None) -> bool:
        """By the pixels it is called with; outside a forward, only images are ever encoded.

        Raises:
            InputError: the pixels were copied on their way, so that they cannot be told apart.
        """
        if forward is None:
            return False
        images, videos = forward.get("pixel_values"), forward.get(self.pixels)
        if images is None or videos is None:
            return videos is not None
        pixels = arguments["pixel_values"]
        if pixels is not images and pixels is not videos:
            raise InputError(
                "images and videos were moved to another device inside the model, so that the two calls of "
                "get_image_features look alike: move the inputs to the model's first device."
            )
        return pixels is videos

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        pixels, features = arguments["pixel_values"], output.pooler_output
        videos, frames = pixels.shape[:2]
        side = round(features.shape[1] ** 0.5)
        # Pooling leaves channels first: a copy, since methods read every token many times.
        pieces = features.reshape(videos, -1, features.shape[-1]).unbind()
        return Capture(pieces, host_geometry([(frames, side, side)] * videos))

    def check_rows(self, rows: Sequence[Sequence[int]], expand: int) -> None:
        if expand > 1 and any(len(row) > 1 for row in rows):
            raise self.refusal("beams", SEVERAL_VIDEOS)

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        config, vision = model.config, model.config.vision_config
        tower = getattr(self.base(model).vision_tower, "timm_model", None)
        size = vision.image_size if tower is None else vision.model_args["img_size"][0]
        patch = vision.patch_size if tower is None else tower.patch_embed.patch_size[0]
        pixels = square_frames(video, size)
        places = (size // patch // config.projector_pooling_ratio) ** 2
        return [config.video_token_id] * (pixels.shape[1] * places), {self.pixels: pixels}
