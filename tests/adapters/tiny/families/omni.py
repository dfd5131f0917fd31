"""The thinkers of Qwen2.5-Omni and Qwen3-Omni; in the settings named `_audio` every video comes with its sound.

There sound stands between the tokens of a video, in the library's order, and each image is followed by a sound of its
own.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import processing_utils

import adapters
from adapters.qwen2_5_omni import SEVERAL_SOUNDS, SHARED_TIME
from tests.adapters.tiny.families.qwens import ROPE, VISION, Qwen2VL
from tests.adapters.tiny.family import HIDDEN, IMAGE, PATCH, TEXT, VIDEO, VISION_END, VISION_START
from tests.adapters.tiny.segments import Image, Rows, Segment, Text, Video, videos

AUDIO, AUDIO_START = 6, 7
BINS, HEARD = 8, 30  # of a sound: mel bins and feature frames
PER_SECOND = 2  # positions
SECONDS = 1.0  # of a group of frames
SIZE = {"shortest_edge": 64, "longest_edge": 192}  # pixels of a frame
SOUND = {"num_mel_bins": BINS, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}


class Omni(Qwen2VL):
    """What both have in common."""

    core = False
    token_types = False
    config_class = ""
    text: ClassVar[dict[str, Any]] = {}
    vision: ClassVar[dict[str, Any]] = {}
    sound: ClassVar[dict[str, Any]] = {}
    audible = False
    absent = frozenset({"logits_to_keep"})
    positions_need_mask = True
    tokens_heard = 0
    encoder_parameters = ("pixel_values_videos", "video_grid_thw")
    named_special: ClassVar[dict[str, Any]] = {
        "audio_token": "<audio>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|vision_end|>",
    }
    special = (*Qwen2VL.special[:6], "<audio>", "<|audio_start|>")

    def config(self) -> Any:
        names = ("image", "video", "audio")
        kind = "index" if "2_5" in self.config_class else "id"
        ids = {f"{name}_token_{kind}": token for name, token in zip(names, (IMAGE, VIDEO, AUDIO), strict=True)}
        return getattr(transformers, self.config_class)(
            text_config=dict(self.text),
            vision_config=dict(self.vision),
            audio_config={**SOUND, **self.sound, "output_dim": HIDDEN},
            vision_start_token_id=VISION_START,
            vision_end_token_id=VISION_END,
            audio_start_token_id=AUDIO_START,
            position_id_per_seconds=PER_SECOND,
            seconds_per_chunk=2,
            **ids,
        )

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if not self.audible:
            return super().segment(segment, generator)
        # What ends a sound is text to the model: the mark that ends a picture does as well.
        start, end = torch.tensor([AUDIO_START]), torch.tensor([VISION_END])
        if isinstance(segment, Image):
            return [*super().segment(segment, generator), start, torch.full((self.tokens_heard,), AUDIO), end]
        times = torch.arange(segment.frames).repeat_interleave(self.places(segment)) * SECONDS * PER_SECOND
        mark = torch.tensor([VISION_START])
        return [mark, start, self.interleaved(times, torch.arange(self.tokens_heard)), end, end]

    def interleaved(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """Ids of a video's tokens and its sound's, whose positions in time these are: pictures first where equal."""
        ids = torch.tensor([VIDEO] * len(pictures) + [AUDIO] * len(sounds))
        return ids[torch.sort(torch.cat([pictures, sounds + 0.5]), stable=True).indices]

    def beams_fail(self, rows: Rows) -> str | None:
        several = any(sum(not isinstance(segment, Text) for segment in row) > 1 for row in rows)
        return SEVERAL_SOUNDS if self.audible and several else None

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        media = super().media(row, generator)
        if clips := videos((row,)):
            media["video_second_per_grid"] = torch.full((len(clips),), SECONDS)
        if self.audible and (number := sum(not isinstance(segment, Text) for segment in row)):
            media["input_features"] = torch.randn(number, BINS, HEARD + 4, generator=generator)
            media["feature_attention_mask"] = (torch.arange(HEARD + 4) < HEARD).long().expand(number, -1).contiguous()
        return media

    def processor(self, tokenizer: Any, frames: int) -> Any:
        patches = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
        return getattr(transformers, self.processor_class)(
            image_processor=transformers.Qwen2VLImageProcessor(**patches),
            video_processor=transformers.Qwen2VLVideoProcessor(**patches),
            feature_extractor=transformers.WhisperFeatureExtractor(feature_size=BINS, chunk_length=1),
            tokenizer=tokenizer,
        )

    def processed(self, processor: Any, texts: list[str], frames: Any, metadata: Any) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        if any(self.video_text in text for text in texts):
            # What the processor says of sizes and seconds is for the published model.
            options = {"video_metadata": [metadata], "do_sample_frames": False, "size": SIZE}
            options |= {"seconds_per_chunk": 2.0, "position_id_per_seconds": PER_SECOND} | self.constants
            shown = {"videos": [frames], "videos_kwargs": options}
            if self.audible:
                wave = np.random.default_rng(0).standard_normal(12_000).astype(np.float32)  # 0.75 s
                shown["audio"] = [wave]
                if hasattr(processing_utils, "OmniModalProcessorMixin"):
                    shown["audio_from_video_indices"] = [0]
        inputs = processor(text=texts, padding=True, return_tensors="pt", **shown)
        return {name: value for name, value in inputs.items() if isinstance(value, Tensor)} | self.constants


class Qwen25Omni(Omni):
    name = "qwen2_5_omni"
    model_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    config_class = "Qwen2_5OmniThinkerConfig"
    processor_class = "Qwen2_5OmniProcessor"
    text: ClassVar[dict[str, Any]] = {**TEXT, "rope_parameters": dict(ROPE), "tie_word_embeddings": False}
    vision: ClassVar[dict[str, Any]] = {
        **VISION,
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": HIDDEN,
        "window_size": 8,
        "fullatt_block_indexes": [1],
    }
    sound: ClassVar[dict[str, Any]] = {"n_window": 8, "max_source_positions": 64}
    tokens_heard = ((HEARD - 1) // 2 - 1) // 2 + 1

    def interleaved(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """By chunks of two seconds, the pictures of a chunk before its sound."""
        chunk = 2 * PER_SECOND
        return super().interleaved(pictures // chunk * chunk, sounds // chunk * chunk)


class Audible(Omni):
    """Every video with its sound."""

    audible = True
    constants: ClassVar[dict[str, Any]] = {"use_audio_in_video": True}

    @cached_property
    def known(self) -> adapters.Family:
        known = copy.copy(super().known)
        vars(known)["refuses"] = {**known.refuses, "contiguous positions": SHARED_TIME}
        return known


class Qwen25OmniAudio(Audible, Qwen25Omni):
    name = "qwen2_5_omni_audio"


class Qwen3Omni(Omni):
    name = "qwen3_omni"
    model_class = "Qwen3OmniMoeThinkerForConditionalGeneration"
    config_class = "Qwen3OmniMoeThinkerConfig"
    processor_class = "Qwen3OmniMoeProcessor"
    text: ClassVar[dict[str, Any]] = {
        **TEXT,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "rope_parameters": {**ROPE, "mrope_interleaved": True},
    }
    vision: ClassVar[dict[str, Any]] = {
        **VISION,
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": HIDDEN,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }
    sound: ClassVar[dict[str, Any]] = {"n_window": 50, "max_source_positions": 64, "downsample_hidden_size": 4}
    tokens_heard = (((HEARD - 1) // 2) // 2) // 2 + 1

    def master(self, attention: str, vocabulary: int) -> Any:
        model = super().master(attention, vocabulary)
        model.set_experts_implementation("eager")  # the grouped kernels have no float64
        return model


class Qwen3OmniAudio(Audible, Qwen3Omni):
    name = "qwen3_omni_audio"


FAMILIES = (Qwen25Omni(), Qwen25OmniAudio(), Qwen3Omni(), Qwen3OmniAudio())
