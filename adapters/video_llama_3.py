"""VideoLLaMA3: `Time <t>s:` before each frame's tokens; tokens that hardly changed are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.capture import Video as CapturedVideo
from adapters.errors import UnsupportedError
from adapters.family import Family, register_family
from adapters.micro.processing import patchify
from adapters.support import ENCODES_BEFORE_EXPANDING
from adapters.tower import Tower
from adapters.video import Video
from compressors.errors import InputError
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query

MASK = "video_compression_mask"


@register_family
class VideoLlama3(Family):
    """`get_video_features` gives a `[T·N, C]` tensor per video, and the model's own `video_compression_mask` `[ΣT·N]`
    says which of them have a place in the prompt: the others are empty places to a method (`VideoTokens.valid`)."""

    name = "video_llama_3"
    model_types = ("video_llama_3",)
    classes = "VideoLlama3ForConditionalGeneration"
    checkpoint = "lkhl/VideoLLaMA3-7B-HF"
    supplies = (Grid, History, Query, Attention, Keys, FrameFeatures)
    layout = "a run per frame after `Time <t>s:`, of different lengths where the processor left out what did not change"
    refuses = (
        {"beams": "from 5.23 on, transformers mixes up video_compression_mask when it repeats a prompt"}
        if ENCODES_BEFORE_EXPANDING
        else {}
    )

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        frames, height, width = arguments["video_grid_thw"].unbind(1)
        merge = arguments["video_merge_sizes"]
        geometry = torch.stack([frames, height // merge, width // merge], dim=1)
        return Capture(list(output.pooler_output), geometry)

    def further(
        self, model: PreTrainedModel, capture: Capture, ids: Tensor, arguments: Mapping[str, Any], copies: int
    ) -> Tensor | None:
        mask: Tensor | None = arguments.get(MASK)
        return None if mask is None else mask.long()

    def videos(
        self, model: PreTrainedModel, capture: Capture, geometry: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> list[CapturedVideo]:
        """With the places that the mask leaves empty; full videos have none, so that every method takes them."""
        found, whole = capture.videos(geometry), []
        if not numbers:
            return found
        if len(numbers) < sum(t * h * w for t, h, w in geometry):
            raise InputError(
                f"{MASK} has {len(numbers)} places, but the videos have {sum(t * h * w for t, h, w in geometry)}: pass "
                f"what one processor call returned."
            )
        start = 0
        for video in found:
            frames, places = video.features.shape[:2]
            mine = numbers[start : start + frames * places]
            start += frames * places
            if not all(mine):
                counts = tuple(sum(mine[i : i + places]) for i in range(0, len(mine), places))
                valid = torch.tensor(mine, dtype=torch.bool).view(frames, places)
                valid = valid.to(video.features.device, non_blocking=True)
                video = replace(video, valid=valid, counts=counts)
            whole.append(video)
        return whole

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        described = ("video_grid_thw", "video_merge_sizes")
        return {name: value[:1] if name in described else value for name, value in arguments.items()}

    def tower(self, model: PreTrainedModel) -> Tower:
        module = cast(Any, self.base(model).vision_model)
        return Tower(module, [layer.self_attn for layer in module.encoder.layers], packed=True)

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        """Attention and keys have a row for each patch, the final features one for each token.

        Raises:
            UnsupportedError: videos whose patches are merged differently.
        """
        tokens = [t * h * w for t, h, w in geometry]
        each, rest = divmod(values.shape[0], sum(tokens))
        if rest or round(each**0.5) ** 2 != each:
            raise UnsupportedError("taps: all videos of a call need the same video_merge_sizes.")
        videos = torch.split(values, [count * each for count in tokens])
        return [video.view(t, -1, *values.shape[1:]) for video, (t, _, _) in zip(videos, geometry, strict=True)]

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """The patches of a token come next to each other; for 2 × 2 of them the model's interpolation is their mean."""
        return values.view(values.shape[0], grid[0] * grid[1], -1, values.shape[2]).mean(2)

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        """All frames whole: what a processor with `use_token_compression=False` makes of them."""
        vision, merge = model.config.vision_config, 2
        frames = video.frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        height, width = _size(frames.shape[2], frames.shape[3], len(frames), vision.patch_size * merge)
        frames = functional.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
        grid = (len(frames), height // vision.patch_size, width // vision.patch_size)
        places = grid[1] * grid[2] // merge**2
        ids: list[int] = []
        for number, moment in enumerate(video.timestamps):
            stamp = f"{',' * (number > 0)}Time {float(moment):.1f}s:"
            ids += [*stamp.encode(), *[model.config.video_token_id] * places]
        return ids, {
            "pixel_values_videos": patchify(frames.permute(0, 2, 3, 1), vision.patch_size, merge, 1),
            "video_grid_thw": torch.tensor([grid]),
            "video_merge_sizes": torch.tensor([merge]),
            MASK: torch.ones(grid[0] * places, dtype=torch.bool),
        }


def _size(height: int, width: int, frames: int, factor: int) -> tuple[int, int]:
    """The nearest multiples of `factor`; as the library's processor has it, at most 768 tokens for the whole video and
    at least 128 for a frame that would have fewer."""
    tokens = height * width / factor**2
    wanted = 768 / frames if tokens > 768 / frames else max(tokens, 128)
    rows, columns = (max(1, round(side / factor * (wanted / tokens) ** 0.5)) for side in (height, width))
    return rows * factor, columns * factor
