"""Families that see a video as images: frames go through the image encoder, and their placeholders are image tokens.

Nothing in such a model's inputs says which images are frames of a video, and an image that is none must never be
pruned. So it has to be stated: `video_of_token [B, L]`, one number per token of the prompt, says of which video of its
row (1, 2, …) an image token is a part; 0 is no video. `mark_videos` takes it from the processor, which knows; where
every image is a frame of one video per row it is `(input_ids == image_token_id).long()`. It is for the press alone and
never reaches the model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture, Video, host_geometry
from adapters.errors import UnsupportedError
from adapters.family import Family, with_marks
from adapters.support import ENCODES_BEFORE_EXPANDING, Feature
from compressors.errors import InputError
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query

VIDEO_OF_TOKEN = "video_of_token"
ASK = {"return_text_replacement_offsets": True}  # what a processor is asked for `mark_videos`
_WRITTEN = "text_replacement_offsets"


class ImageFrames(Family):
    """What these families have in common; a picture is an image, a tile of one, or a frame: N tokens each.

    Attributes:
        opening: marks right before a picture, which have no names in the configuration; one follows it.
    """

    opening: ClassVar[int] = 1
    supplies = (Grid, History, Query, Attention, Keys, FrameFeatures)
    refuses: ClassVar[Mapping[Feature, str]] = (
        {}
        if ENCODES_BEFORE_EXPANDING
        else {"beams": "transformers before 5.23 repeats pixel_values picture by picture"}
    )
    told = (VIDEO_OF_TOKEN,)
    encoder = "get_image_features"
    pixels = "pixel_values"
    modality = "image"

    @abstractmethod
    def side(self, model: PreTrainedModel) -> int:
        """Tokens along a side of a picture."""

    def video_mask(
        self, model: PreTrainedModel, input_ids: Tensor, arguments: Mapping[str, Any] | None = None
    ) -> Tensor:
        """All pictures; of a prompt whose arguments say which are frames, the frames."""
        pictures: Tensor = input_ids == model.config.image_token_id
        marks = None if arguments is None else arguments.get(VIDEO_OF_TOKEN)
        return pictures if marks is None else pictures & (marks > 0)

    def media_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """All pictures with their marks, which are no text of a question."""
        return with_marks(super().media_mask(model, input_ids), before=self.opening)

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        """Pictures, `[p, N, C]` in some portions: only the prompt says what they make."""
        given = output.pooler_output
        portions = [given] if isinstance(given, Tensor) else list(given)
        places, channels = self.side(model) ** 2, portions[0].shape[-1]
        return Capture([portion.reshape(-1, places, channels) for portion in portions], host_geometry([]).view(0, 3))

    def further(
        self, model: PreTrainedModel, capture: Capture, ids: Tensor, arguments: Mapping[str, Any], copies: int
    ) -> Tensor:
        """`[1 + 3·P]`: image tokens; and of each picture: its row, its video, whether all of it is of that video.

        Args:
            model, capture, ids, arguments: as in `Family.further`.
            copies: rows that show the same pictures (beams, several questions about one video); one of them is read.

        Raises:
            UnsupportedError: nobody said which pictures are frames.
        """
        marks: Tensor | None = arguments.get(VIDEO_OF_TOKEN)
        if marks is None:
            image = model.config.image_token_id
            raise UnsupportedError(
                f"{type(model).__name__} takes the frames of a video as images, and this call does not say which images"
                f" are frames: pass {VIDEO_OF_TOKEN}= [B, L], for every token the number of its video in its row (1, 2"
                f", …) or 0. vidpress.mark_videos(processor, inputs) makes it from what the processor returned; if "
                f"every image is a frame of one video per row: {VIDEO_OF_TOKEN}=(input_ids == {image}).long(); if none "
                f"is: torch.zeros_like(input_ids)."
            )
        ids, marks = ids[::copies], marks[::copies].to(ids.device)
        pictures, places = self.video_mask(model, ids).flatten(), self.side(model) ** 2
        count = min(sum(len(portion) for portion in capture.pieces), ids.numel() // places)
        # A stable sort brings image tokens to the front in order; N after N make a picture.
        order = torch.sort(pictures.logical_not().to(torch.uint8), stable=True).indices[: count * places]
        order = order.view(count, places)
        video = marks.flatten()[order]
        whole = (video == video[:, :1]).all(1)
        return torch.cat([pictures.sum().view(1), order[:, 0] // ids.shape[1], video[:, 0], whole.long()])

    def videos(
        self, model: PreTrainedModel, capture: Capture, geometry: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> list[Video]:
        """The stated videos, row by row; with a copy for each row where pictures were encoded once per row."""
        side, encoded = self.side(model), sum(len(portion) for portion in capture.pieces)
        tokens, count = numbers[0], (len(numbers) - 1) // 3
        shown = tokens // side**2
        if tokens % side**2 or not shown or encoded % shown:
            raise InputError(
                f"the prompt has {tokens} image tokens, but {encoded} pictures of {side}×{side} tokens were encoded: "
                f"pass input_ids and pixel_values from one processor call."
            )
        rows, marks, whole = (numbers[1 + i * count : 1 + i * count + shown] for i in range(3))
        if not all(whole):
            raise InputError(
                f"{VIDEO_OF_TOKEN} cuts picture {list(whole).index(0) + 1} of the prompt in two: all {side**2} tokens "
                f"of a frame belong to one video."
            )
        found = [_frames_of(rows, marks, row) for row in dict.fromkeys(rows)]
        spans = _copied(found, rows, encoded // shown)
        tapped = capture.tapped([(1, side, side)] * encoded) if capture.tapped is not None and spans else None
        return [
            Video(
                _taken(capture.pieces, frames),
                (side, side),
                tapped={} if tapped is None else _joined([tapped[frame] for frame in frames]),
            )
            for frames in spans
        ]

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        return list(torch.split(values, [t for t, _, _ in geometry]))

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """Means over the square blocks of patches that pixel shuffling makes a token of: `[T, n, c]` -> `[T, N, c]`."""
        (height, width), (frames, patches, channels) = grid, values.shape
        block = round((patches // (height * width)) ** 0.5)
        return values.view(frames, height, block, width, block, channels).mean((2, 4)).flatten(1, 2)


def _frames_of(rows: Sequence[int], marks: Sequence[int], row: int) -> list[list[int]]:
    """The frames of each video of a row, as numbers of pictures.

    Raises:
        InputError: the frames of one video stand between those of another.
    """
    videos: dict[int, list[int]] = {}
    for picture, (where, video) in enumerate(zip(rows, marks, strict=True)):
        if where == row and video > 0:
            if videos and video != (last := [*videos][-1]) and video in videos:
                raise InputError(
                    f"{VIDEO_OF_TOKEN}: in row {row}, frames of video {video} follow frames of video {last}, and the "
                    f"other way round: the frames of a video stand one after the other."
                )
            videos.setdefault(video, []).append(picture)
    return list(videos.values())


def _copied(found: Sequence[Sequence[list[int]]], rows: Sequence[int], copies: int) -> list[list[int]]:
    """The same videos where every sample's pictures were encoded once for each of its rows."""
    spans, start = [], 0
    for row, videos in zip(dict.fromkeys(rows), found, strict=True):
        size, first = rows.count(row), rows.index(row)
        for copy in range(copies):
            spans += [[start + copy * size + picture - first for picture in frames] for frames in videos]
        start += copies * size
    return spans


def _taken(portions: Sequence[Tensor], frames: Sequence[int]) -> Tensor:
    """`[T, N, C]`: pictures by their number; a view where they lie side by side in one portion."""
    parts, start = [], 0
    for portion in portions:
        mine = [frame - start for frame in frames if start <= frame < start + len(portion)]
        start += len(portion)
        if mine and mine[-1] - mine[0] == len(mine) - 1:
            parts.append(portion[mine[0] : mine[-1] + 1])
        elif mine:
            parts += [portion[frame : frame + 1] for frame in mine]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined(fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was tapped of each frame, `[1, …]`, as what was tapped of the video."""
    return {name: torch.cat([field[name] for field in fields]) for name in fields[0]}


def frames_are_images(processor: Any) -> bool:
    """Whether a processor hands over videos as images, so that `mark_videos` is needed."""
    return hasattr(processor, "video_processor") and "pixel_values_videos" not in processor.model_input_names


def mark_videos(processor: Any, inputs: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """State which images of a prompt are frames of which video, as the processor wrote them.

    Args:
        processor: of a model that takes frames as images (InternVL, SmolVLM).
        inputs: what it returned, asked with `return_text_replacement_offsets=True`.

    Returns:
        The inputs with `video_of_token [B, L]`, and without what it was made of. For a pressed model: one that is not
        pressed does not know it.

    Raises:
        InputError: the processor was not asked, or its text was cut short afterwards.

    Example:
        >>> inputs = processor(text=…, videos=…, return_text_replacement_offsets=True, return_tensors="pt")
        >>> with press(model, "vidcom2") as report:
        ...     model.generate(**mark_videos(processor, inputs))
    """
    written = inputs.pop(_WRITTEN, None)
    if written is None:
        raise InputError(
            "mark_videos() needs to know what the processor put where: call it with "
            "return_text_replacement_offsets=True (apply_chat_template: in processor_kwargs)."
        )
    ids = torch.as_tensor(inputs["input_ids"])
    pictures = ids == processor.image_token_id
    runs = [[(media["type"], media["replacement"].count(processor.image_token)) for media in row] for row in written]
    counts = [sum(tokens for _, tokens in row) for row in runs]
    if counts != (seen := pictures.sum(1).tolist()):
        raise InputError(
            f"the processor wrote {counts} image tokens into the rows, but they have {seen}: do not truncate prompts "
            f"with images or videos."
        )
    marks = torch.zeros_like(ids)
    for row, media in enumerate(runs):
        videos, numbers = 0, []
        for kind, tokens in media:
            videos += kind == "video"
            numbers += [videos if kind == "video" else 0] * tokens
        marks[row, pictures[row]] = torch.tensor(numbers, dtype=ids.dtype, device=ids.device)
    inputs[VIDEO_OF_TOKEN] = marks
    return inputs


__all__ = ["ASK", "VIDEO_OF_TOKEN", "ImageFrames", "frames_are_images", "mark_videos"]
