"""lmms-eval's chat messages as a model's inputs: texts, images and videos in any order, several prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adapters.errors import UnsupportedError
from adapters.micro import MicroProcessor
from adapters.prompting import processed
from adapters.video import Video

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Prompt:
    """One conversation, ready for the processor.

    Attributes:
        text: by the model's chat template, with a place for each image and video.
        images: PIL images, in order.
        videos: frames, in order.
    """

    text: str
    images: tuple[Any, ...]
    videos: tuple[Video, ...]


def prompt_of(processor: Any, messages: Messages, read: Callable[[Path], Video]) -> Prompt:
    """Apply the chat template and read the files.

    Args:
        processor: the model's; a Hugging Face processor or the embedded model's.
        messages: `{"role": …, "content": […]}` with items of type text (`text`), image (`url`: a PIL image or a
            file) and video (`url`: a file).
        read: from a video's path to its frames.

    Raises:
        UnsupportedError: audio, a part of a video, or images for a model that takes none.
        VideoError: as `adapters.video.read_video`.
    """
    images: list[Any] = []
    videos: list[Video] = []
    conversation = []
    for message in messages:
        content = message["content"]
        items = [{"type": "text", "text": content}] if isinstance(content, str) else content
        written = []
        for item in items:
            kind, source = item["type"], item.get("url")
            if kind == "text":
                written.append({"type": "text", "text": item["text"]})
                continue
            if kind == "image":
                images.append(_image(processor, source))
            elif kind == "video":
                videos.append(read(_video_path(source)))
            else:
                raise UnsupportedError(
                    f"a task sends {kind} ({_shown(source)}): vidpress models take text, images and videos. "
                    f"(lmms-eval calls files that end in .webm audio: convert them to .mp4.)"
                )
            written.append({"type": kind})
        conversation.append({"role": message["role"], "content": written})
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    return Prompt(text, tuple(images), tuple(videos))


def inputs_of(processor: Any, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """All prompts in one call of the processor, padded on the left (on the CPU)."""
    texts = [prompt.text for prompt in prompts]
    images = [image for prompt in prompts for image in prompt.images]
    videos = [video for prompt in prompts for video in prompt.videos]
    if isinstance(processor, MicroProcessor):
        return dict(processor(texts, [video.frames for video in videos] or None))
    return processed(processor, texts, videos, images)


def _image(processor: Any, source: Any) -> Any:
    if isinstance(processor, MicroProcessor):
        raise UnsupportedError("a task sends an image: the embedded model answers questions about videos only.")
    from PIL import Image

    return (source if isinstance(source, Image.Image) else Image.open(source)).convert("RGB")


def _video_path(source: Any) -> Path:
    if not isinstance(source, (str, Path)):
        raise UnsupportedError(
            f"a task sends a video as {_shown(source)}: vidpress models take whole video files, by their path."
        )
    return Path(source)


def _shown(source: Any) -> str:
    text = f"{type(source).__name__} {source!r}"
    return text if len(text) < 120 else text[:117] + "…"
