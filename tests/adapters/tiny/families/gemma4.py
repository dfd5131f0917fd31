"""Gemma 4: with per-layer embeddings and shared keys, as its small models, and with blocks, as its large ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor

from tests.adapters.tiny.family import IMAGE, PATCH, TEXT, VIDEO, VISION_END, VISION_START, VOCABULARY, Family, text_ids
from tests.adapters.tiny.segments import Image, Segment, Video, images, videos

OLD = Version(transformers.__version__) < Version("5.18")  # all videos of a call have equally many frames
WINDOW = 7  # shorter than every prompt, and than some frames with what is around them
POOL = 2
PATCHES = 64  # that the patches of every frame are padded to


class Gemma4(Family):
    name = "gemma4"
    model_class = "Gemma4ForConditionalGeneration"
    timestamps = True
    equal_frames = OLD
    token_types = True
    special = ("<pad>", "<eos>", "<image>", "<|video|>", "<boi>", "<eoi>", "<audio>", "<boa>")
    named_special: Mapping[str, str] = {
        "boi_token": "<boi>",
        "eoi_token": "<eoi>",
        "audio_token": "<audio>",
        "boa_token": "<boa>",
        "eoa_token": "<boa>",
    }
    video_text = "<|video|>"
    encoder_parameters = (
        "pixel_values_videos",
        "video_position_ids",
        *(() if OLD else ("num_frames_per_video",)),
    )
    decoder_arguments = frozenset({"per_layer_inputs"})
    tolerance = 1e-5  # it has more norms than others, which are computed in float32
    text: Mapping[str, Any] = {
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "final_logit_softcapping": 30.0,
    }

    def config(self) -> Any:
        layers = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
        text = {**TEXT, **layers, "head_dim": 16, "global_head_dim": 16, "sliding_window": WINDOW, **self.text}
        vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision |= {"num_key_value_heads": 2, "head_dim": 8, "patch_size": PATCH, "pooling_kernel_size": POOL}
        return transformers.Gemma4Config(
            text_config=transformers.Gemma4TextConfig(**text, tie_word_embeddings=False),
            tie_word_embeddings=False,  # embeddings as large as they are here would leave one likely token
            vision_config={**vision, "position_embedding_size": 32},
            audio_config=None,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            boi_token_id=VISION_START,
            eoi_token_id=VISION_END,
            audio_token_id=6,
        )

    def master(self, attention: str, vocabulary: int) -> Any:
        config = self.config()
        config.text_config.vocab_size = config.text_config.vocab_size_per_layer_input = vocabulary
        return transformers.Gemma4ForConditionalGeneration._from_config(config, attn_implementation=attention)

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        start, end = torch.tensor([VISION_START]), torch.tensor([VISION_END])
        if isinstance(segment, Image):
            return [start, torch.full((segment.h * segment.w,), IMAGE), end]
        frame = [start, torch.full((self.places(segment),), VIDEO), end]
        return [piece for _ in range(segment.frames) for piece in (text_ids(2, generator), *frame)]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        def pictures(sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
            pixels = torch.zeros(len(sizes), PATCHES, 3 * PATCH**2)
            places = torch.full((len(sizes), PATCHES, 2), -1)
            for number, (h, w) in enumerate(sizes):
                count = h * w * POOL**2
                pixels[number, :count] = torch.rand(count, 3 * PATCH**2, generator=generator)
                down, across = torch.meshgrid(torch.arange(h * POOL), torch.arange(w * POOL), indexing="ij")
                places[number, :count] = torch.stack([across, down], dim=-1).view(-1, 2)
            return pixels, places

        media = {}
        if shown := images((row,)):
            media["pixel_values"], media["image_position_ids"] = pictures([(i.h, i.w) for i in shown])
        if clips := videos((row,)):
            pixels, places = pictures([(v.h, v.w) for v in clips for _ in range(v.frames)])
            if OLD:
                pixels, places = (value.view(len(clips), -1, *value.shape[1:]) for value in (pixels, places))
            else:
                media["num_frames_per_video"] = torch.tensor([v.frames for v in clips])
            media |= {"pixel_values_videos": pixels, "video_position_ids": places}
        return media

    def places(self, video: Video) -> int:
        return video.h * video.w

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        if "video_position_ids" not in sample:
            return []
        places, found, first = sample["video_position_ids"], [], 0
        counts = [places.shape[1]] * len(places) if OLD else sample["num_frames_per_video"].tolist()
        for count in counts:
            across, down = (places.flatten(0, -3)[first].amax(0) + 1).tolist()
            found.append((count, down // POOL, across // POOL))
            first += count
        return found

    def mask(self, row: Any, blocked: Tensor) -> Any:
        """By hand: a window over the row, and in models that have blocks a frame's tokens see each other in it."""
        assert not row.dropped.any(), "a masked slot still acts in a window: the truth is the pruned row"
        length, dtype = len(row.ids), row.embeds.dtype
        back = torch.arange(length)[:, None] - torch.arange(length)[None]
        seen = back >= 0
        if self.text.get("use_bidirectional_attention") == "vision":
            visual = (row.ids == IMAGE) | (row.ids == VIDEO)
            number = ((~visual).cumsum(0)) * visual  # tokens of a run have as many others before them
            seen = seen | ((number[:, None] == number[None]) & visual[:, None] & visual[None])
        kinds = {"full_attention": back < 0, "sliding_attention": ~(seen & (back < WINDOW))}
        low = torch.finfo(dtype).min
        return {
            kind: torch.zeros(length, length, dtype=dtype).masked_fill(hidden, low)[None, None]
            for kind, hidden in kinds.items()
        }

    def appended(self, model: Any, name: str, value: Tensor, ids: Tensor) -> Tensor:
        assert name == "per_layer_inputs"
        return model.get_decoder().get_per_layer_inputs(ids[None], None)[0]

    def head(self, model: Any, hidden: Tensor) -> Tensor:
        logits = super().head(model, hidden)
        cap = model.config.text_config.final_logit_softcapping
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def processor(self, tokenizer: Any, frames: int) -> Any:
        sizes = {"patch_size": PATCH, "pooling_kernel_size": POOL, "max_soft_tokens": 70}
        return transformers.Gemma4Processor(
            feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
            image_processor=transformers.Gemma4ImageProcessor(**sizes),
            tokenizer=tokenizer,
            video_processor=transformers.Gemma4VideoProcessor(**sizes),
        )


class Gemma4Blocks(Gemma4):
    """Tokens of a frame see each other in the layers with windows."""

    name = "gemma4_blocks"
    text: Mapping[str, Any] = {"use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 0}


FAMILIES = (Gemma4(), Gemma4Blocks())
