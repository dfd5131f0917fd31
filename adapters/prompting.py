"""From a question and a video to a model's inputs: by the model's own processor, or by layout where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.video_utils import VideoMetadata

from adapters.family import family_of
from adapters.image_frames import ASK, VIDEO_OF_TOKEN, frames_are_images, mark_videos
from adapters.micro import MicroProcessor
from adapters.video import Video
from compressors.errors import InputError

_PER_TOKEN = {"input_ids", "attention_mask", "mm_token_type_ids", VIDEO_OF_TOKEN}


def prompt(processor: Any, question: str, video: Video) -> dict[str, Tensor]:
    """One user turn, a video and a question, as the model's inputs (on the CPU).

    Args:
        processor: a Hugging Face processor, the embedded model's, or a `LayoutProcessor`.
        question: the text after the video.
        video: the frames.
    """
    return prompts(processor, [question], [video])


def prompts(processor: Any, questions: Sequence[str], videos: Sequence[Video]) -> dict[str, Tensor]:
    """A batch of such turns, padded on the left; the videos' frames are equally many and equally large.

    Raises:
        InputError: videos of different shapes, or not one per question.
    """
    shapes = {tuple(video.frames.shape) for video in videos}
    if len(questions) != len(videos) or len(shapes) != 1:
        raise InputError(
            f"a batch needs one video per question, all of one shape; got {len(questions)} questions and "
            f"{len(videos)} videos of shapes {sorted(shapes)}."
        )
    if isinstance(processor, LayoutProcessor):
        return processor(questions, videos)
    if isinstance(processor, MicroProcessor):
        return dict(processor([processor.prompt(question) for question in questions], [v.frames for v in videos]))
    return processed(processor, [_chat(processor, question) for question in questions], videos)


def processed(
    processor: Any, texts: Sequence[str], videos: Sequence[Video], images: Sequence[Any] = ()
) -> dict[str, Tensor]:
    """What a Hugging Face processor makes of chat texts and their media, padded on the left (on the CPU).

    Args:
        processor: the processor.
        texts: with a place for each image and video.
        videos, images: of all texts, in order.
    """
    marks = frames_are_images(processor)
    media: dict[str, Any] = {"images": [*images]} if images else {}
    if videos:
        frames: list[Any] = [video.frames.permute(0, 3, 1, 2) for video in videos]
        if marks:  # SmolVLM's processor wants them by text
            rest = iter(frames)
            frames = [[next(rest) for _ in range(text.count(processor.video_token))] for text in texts]
        told = {
            "video_metadata": [metadata(video) for video in videos],
            "do_sample_frames": False,
            **_whole_frames(processor),
        }
        media |= {"videos": frames, "videos_kwargs": told}
    options = {"text_kwargs": {"padding": True, "padding_side": "left"}, "return_tensors": "pt"}
    inputs = processor(text=[*texts], **media, **options, **(ASK if marks else {}))
    if marks:
        inputs = mark_videos(processor, inputs)
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    if "video_second_per_grid" in tensors:
        # These processors assume a frame rate; the frames say when they were shown.
        group = processor.video_processor.temporal_patch_size
        tensors["video_second_per_grid"] = torch.tensor([_spacing(video) * group for video in videos])
    return tensors


def _spacing(video: Video) -> float:
    """Seconds from one frame to the next, on average."""
    times = video.timestamps
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else video.duration


def _whole_frames(processor: Any) -> dict[str, int]:
    """The setting of processors that cut large frames into slices, by which a frame stays one grid of tokens."""
    return {"max_slice_nums": 1} if hasattr(getattr(processor, "video_processor", None), "max_slice_nums") else {}


def questions_about(processor: Any, questions: Sequence[str], video: Video) -> dict[str, Tensor]:
    """A batch of questions about one video, for `Press.same_video`: its pixels stand in it once."""
    inputs = prompts(processor, questions, [video] * len(questions))
    name = "pixel_values_videos" if "pixel_values_videos" in inputs else "pixel_values"
    pixels = inputs[name]
    axis = -1 if pixels.shape[0] == 1 else 0  # some processors pack all videos into one row
    first = pixels.narrow(axis, 0, pixels.shape[axis] // len(questions))
    # A copy: a view would keep the pixels of all rows in memory.
    return {**inputs, name: first.clone(memory_format=torch.contiguous_format)}


def places_per_group(model: Any, processor: Any, frames: int, height: int, width: int) -> int:
    """N, visual tokens of a temporal group of a video of that size, counted in a prompt about a blank one.

    Works for any family and processor; structural tokens (newlines, timestamps) are not counted.

    Args:
        model, processor: as `prompt` and `press` take them.
        frames: how many frames will be sampled (some processors make frames smaller when there are many).
        height, width: of the frames.
    """
    family, pixels = family_of(model), torch.zeros(1, 1, 1, 3, dtype=torch.uint8)
    blank = Video(
        pixels.expand(frames, height, width, 3), tuple(map(float, range(frames))), 1.0, float(frames), Path("blank")
    )
    placeholders = int(family.video_mask(model, prompt(processor, "?", blank)["input_ids"]).sum())
    groups = -(-frames // family.frames_per_group(model))
    return family.visual_tokens(model, placeholders, groups) // groups


def answers(processor: Any, inputs: Mapping[str, Tensor], output: Tensor) -> list[str]:
    """The texts generated after the prompts, `output [B, L + new]`."""
    new = output[:, inputs["input_ids"].shape[1] :]
    return [str(text).strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


def answer(processor: Any, inputs: Mapping[str, Tensor], output: Tensor) -> str:
    """The text generated after a single prompt, `output [1, L + new]`."""
    return answers(processor, inputs, output)[0]


def _chat(processor: Any, question: str) -> str:
    content = [{"type": "video"}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return text


def metadata(video: Video) -> VideoMetadata:
    """When each frame was shown, in milliseconds as "frames" at 1000 per second: exact at any frame rate."""
    height, width = video.frames.shape[1:3]
    return VideoMetadata(
        total_num_frames=max(1, round(video.duration * 1000)),
        fps=1000,
        width=width,
        height=height,
        duration=video.duration,
        video_backend="pyav",
        frames_indices=[round(float(moment) * 1000) for moment in video.timestamps],
    )


class LayoutProcessor:
    """Inputs with a family's layout for a model without processor files (random weights).

    Text is taken byte by byte and pixels are cut as the published processor cuts them, so that lengths and shapes are
    those of a real prompt. What comes out of such a model means nothing.

    Args:
        model: the model, for its config.

    Raises:
        UnsupportedError: a model of no known family.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config: Any = model.config
        self.family = family_of(model)

    def __call__(self, questions: Sequence[str], videos: Sequence[Video]) -> dict[str, Tensor]:
        """Inputs of a batch of user turns, padded on the left."""
        rows = [self._row(question, video) for question, video in zip(questions, videos, strict=True)]
        length = max(row["input_ids"].shape[1] for row in rows)
        for row in rows:
            for name in _PER_TOKEN & row.keys():
                row[name] = functional.pad(row[name], (length - row[name].shape[1], 0))
        tokens = {name: torch.cat([row[name] for row in rows]) for name in rows[0] if name in _PER_TOKEN}
        media = [{name: value for name, value in row.items() if name not in _PER_TOKEN} for row in rows]
        return tokens | self.family.together(media)

    def _row(self, question: str, video: Video) -> dict[str, Tensor]:
        ids, media = self.family.laid_out(self.model, video)
        input_ids = torch.tensor([[*b"user\n", *ids, *question.encode(), *b"\nassistant\n"]])
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **media}
        if self.family.token_types:
            inputs["mm_token_type_ids"] = self.family.types(self.model, input_ids)
        if VIDEO_OF_TOKEN in self.family.told:
            inputs[VIDEO_OF_TOKEN] = self.family.video_mask(self.model, input_ids).long()
        return inputs

    def batch_decode(self, ids: Tensor, skip_special_tokens: bool = True) -> list[str]:
        """Bytes as text, other ids as `<id>`."""
        return ["".join(chr(i) if 32 <= i < 127 else f"<{i}>" for i in row) for row in ids.tolist()]


__all__ = [
    "LayoutProcessor",
    "answer",
    "answers",
    "metadata",
    "places_per_group",
    "processed",
    "prompt",
    "prompts",
    "questions_about",
]
