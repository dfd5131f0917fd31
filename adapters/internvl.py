"""InternVL 2.5 and 3: each frame an image of its own after `Frame<i>: `, pooled to a square by pixel shuffling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.family import register_family, square_frames
from adapters.image_frames import ImageFrames
from adapters.tower import Tower
from adapters.video import Video


@register_family
class InternVL(ImageFrames):
    """`get_image_features` gives `[P, N, C]`: the tiles of images and the frames of videos, in prompt order."""

    name = "internvl3"
    equal_frames = True
    model_types = ("internvl",)
    classes = "InternVLForConditionalGeneration"
    checkpoint = "OpenGVLab/InternVL3-8B-hf"
    layout = "frames are images: `Frame<i>: ` and image marks around each, which stay; `video_of_token` says which"

    def side(self, model: PreTrainedModel) -> int:
        vision = model.config.vision_config
        return int(vision.image_size[0] // vision.patch_size[0] * model.config.downsample_ratio)

    def tower(self, model: PreTrainedModel) -> Tower:
        module = cast(Any, self.base(model).vision_tower)
        attentions: Sequence[nn.Module] = [layer.attention for layer in module.encoder.layer]
        return Tower(module, attentions, packed=False, class_token=True)

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        config, places = model.config, self.side(model) ** 2
        image = config.image_token_id
        pixels = square_frames(video, config.vision_config.image_size[0])[0]
        ids: list[int] = []
        for number in range(len(pixels)):
            # <img> and </img> are the two ids before <IMG_CONTEXT> in the published vocabularies.
            ids += [*f"\nFrame{number + 1}: ".encode(), image - 2, *[image] * places, image - 1]
        return ids[1:], {"pixel_values": pixels}
