"""Qwen2.5-Omni's thinker: Qwen2.5-VL that listens; audio tokens may stand between those of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from adapters.family import Family, register_family
from adapters.qwen2_5_vl import Qwen25VL
from adapters.support import ENCODES_BEFORE_EXPANDING, Feature
from adapters.video import Video

SHARED_TIME = (
    "with use_audio_in_video, sound and picture share a time axis, and closing the picture's gaps would part them: "
    "use positions='original'"
)
SEVERAL_SOUNDS = (
    "transformers repeats each sound where it should repeat those of a sample, and one with several gets the wrong "
    "ones: use one beam, or one sound for each sample"
)
TALKER = (
    "they have a row for each token that stays, and the talker behind a thinker expects one for each token of the "
    "prompt: ask the whole model for text alone, generate(…, generation_mode='text')"
)


class Thinker(Family):
    """What the thinkers of the Omni models share. Only video tokens are dropped; audio is text to a press."""

    token_types = False
    streams = False
    refuses: ClassVar[Mapping[Feature, str]] = (
        {}
        if ENCODES_BEFORE_EXPANDING
        else {"beams": "transformers before 5.23 repeats a video's patches in a wrong order"}
    )
    conditions: ClassVar[Mapping[Feature, Sequence[str]]] = {
        "contiguous positions": (SHARED_TIME,),
        "beams": (SEVERAL_SOUNDS,),
    }

    def media_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """Audio too: a question follows the last medium."""
        audio: Tensor = input_ids == model.config.audio_token_id
        return super().media_mask(model, input_ids) | audio

    def check_call(self, model: PreTrainedModel, arguments: Mapping[str, Any], *, positions: str, expand: int) -> None:
        if arguments.get("use_audio_in_video") and positions == "contiguous":
            raise self.refusal("contiguous positions", SHARED_TIME)
        if arguments.get("output_hidden_states"):
            raise self.refusal("output_hidden_states", TALKER)
        if expand > 1 and arguments.get("input_features") is not None:
            sounds: Tensor = (arguments["input_ids"] == model.config.audio_start_token_id).sum(1).amax()
            if int(sounds) > 1:
                raise self.refusal("beams", SEVERAL_SOUNDS)


@register_family
class Qwen25Omni(Thinker, Qwen25VL):
    """`get_video_features` and the tower's windows as in Qwen2.5-VL; seconds per group under another name."""

    name = "qwen2_5_omni"
    model_types = ("qwen2_5_omni_thinker",)
    wholes: ClassVar[Mapping[str, str]] = {"qwen2_5_omni": "thinker"}
    classes = "Qwen2_5OmniThinkerForConditionalGeneration"
    checkpoint = "Qwen/Qwen2.5-Omni-7B"
    layout = "one run of tokens per video, two frames per group; audio of the video in between, untouched"
    reuses = False  # its layers project queries, keys and values one by one

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        ids, media = super().laid_out(model, video)
        return ids, media | {"video_second_per_grid": media.pop("second_per_grid_ts")}
