"""Molmo2: every frame between marks and after its time; all visual tokens of a prompt see each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.errors import UnsupportedError
from adapters.family import Family, register_family, square_frames
from adapters.tower import Tower
from adapters.video import Video
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query

# Arguments with indices into the patches of other arguments.
_POOLED = (("video_token_pooling", "pixel_values_videos"), ("image_token_pooling", "pixel_values"))


@register_family
class Molmo2(Family):
    """`get_video_features` gives one `[T·N, C]` per video, its grid `video_grids` in tokens.

    The model adds features to the embedding of their placeholder. Images and videos have one placeholder, and the model
    takes one kind per call. `mm_token_type_ids` mark the tokens that see each other; the mask is built again for what
    is left of them.
    """

    name = "molmo2"
    model_types = ("molmo2",)
    classes = "Molmo2ForConditionalGeneration"
    checkpoint = "allenai/Molmo2-8B"
    supplies = (Grid, History, Query, Attention, Keys, FrameFeatures)
    layout = "one run per frame between marks, its time in text before; one block of all visual tokens"
    token_types = True
    token_marks = ("mm_token_type_ids",)
    pooling = 3  # patches per side of a token, as the published processor pools them

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        return Capture(output.pooler_output, arguments["video_grids"])

    def embed(self, model: PreTrainedModel, features: Tensor) -> Tensor:
        table = cast(nn.Embedding, model.get_input_embeddings())
        return features + table.weight[model.config.video_token_id].to(features)

    def types(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """1 for a frame's tokens and for its marks."""
        config = model.config
        marks = torch.tensor([config.video_token_id, config.frame_start_token_id, config.frame_end_token_id])
        return torch.isin(input_ids, marks.to(input_ids.device)).long()

    def together(self, calls: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Indices of pooled patches count through all frames (videos) or crops (images) of the batch."""
        media = super().together(calls)
        for pooling, pixels in _POOLED:
            parts, before = [], 0
            for call in (call for call in calls if pooling in call):
                parts.append(torch.where(call[pooling] >= 0, call[pooling] + before, call[pooling]))
                before += call[pixels].shape[0] * call[pixels].shape[1]
            if parts:
                media[pooling] = torch.cat(parts)
        return media

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        """Square frames, patches pooled in windows of 3×3, the time in seconds before each frame."""
        config, vision = model.config, model.config.vision_config
        patch, patches = vision.patch_size, vision.image_size[0] // vision.patch_size
        frames = square_frames(video, vision.image_size[0])[0]
        count, tokens = len(frames), -(-patches // self.pooling)
        pixels = frames.view(count, 3, patches, patch, patches, patch).permute(0, 2, 4, 3, 5, 1)
        more = tokens * self.pooling - patches
        edges = (more // 2, (more + 1) // 2) * 2
        grid = functional.pad(torch.arange(patches**2).view(patches, patches), edges, value=-1)
        windows = grid.view(tokens, self.pooling, tokens, self.pooling).transpose(1, 2).reshape(tokens**2, -1)
        first = (torch.arange(count) * patches**2).view(-1, 1, 1)
        ids: list[int] = []
        for moment in video.timestamps:
            ids += [*f" {moment:.1f} ".encode(), config.frame_start_token_id]
            ids += [*[config.video_token_id] * tokens**2, config.frame_end_token_id]
        return ids[1:], {
            "pixel_values_videos": pixels.reshape(count, patches**2, -1),
            "video_token_pooling": torch.where(windows >= 0, windows + first, windows).flatten(0, 1),
            "video_grids": torch.tensor([[count, tokens, tokens]]),
        }

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        pooling, grids = arguments["video_token_pooling"], arguments["video_grids"]
        return {
            **arguments,
            "video_token_pooling": pooling[: pooling.shape[0] // grids.shape[0]],
            "video_grids": grids[:1],
        }

    def tower(self, model: PreTrainedModel) -> Tower | None:
        tower = cast(nn.Module, self.base(model).vision_tower)
        layers = cast(Sequence[nn.Module], tower.get_submodule("layers"))
        return Tower(tower, [layer.get_submodule("self_attn") for layer in layers], packed=False)

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        return list(torch.split(values, [t for t, _, _ in geometry]))

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """Means over the windows that the adapter pools, at the edges over what is there of them."""
        vision = model.config.vision_config
        height, width = (side // vision.patch_size for side in vision.image_size)
        down, across = (-(-side // tokens) for side, tokens in zip((height, width), grid, strict=True))
        more = (down * grid[0] - height, across * grid[1] - width)
        if max(more[0] // down, more[1] // across) > 0:
            raise UnsupportedError(f"{height}×{width} patches do not make {grid[0]}×{grid[1]} tokens by pooling.")
        edges = (more[1] // 2, (more[1] + 1) // 2, more[0] // 2, (more[0] + 1) // 2)
        planes = values.view(len(values), height, width, -1).permute(0, 3, 1, 2)
        there = functional.pad(torch.ones_like(planes[:1, :1]), edges)
        means = functional.avg_pool2d(functional.pad(planes, edges), (down, across))
        return (means / functional.avg_pool2d(there, (down, across))).flatten(2).transpose(1, 2)
