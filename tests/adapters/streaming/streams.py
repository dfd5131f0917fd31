"""Streams for tiny models: frames, processors, and prompts of the same stream written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.prompting import LayoutProcessor
from adapters.streaming import StreamSession
from adapters.video import Video
from tests.adapters import tiny

FPS = 2.0
QUESTION = "what?"
LABEL = "t{start:.0f}"


def frames(count: int = 10, seed: int = 0, height: int = 8, width: int = 12) -> Tensor:
    """Noise: every frame differs from every other."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def clip(shown: Tensor) -> Video:
    """Frames as a video of the stream's rate."""
    count = len(shown)
    return Video(shown, tuple(i / FPS for i in range(count)), FPS, count / FPS, Path("clip"))


def model_and_processor(family: tiny.Family, **options: Any) -> tuple[Any, LayoutProcessor]:
    """A tiny model that reads bytes."""
    model = tiny.untouched(family, vocabulary=260, **options)
    return model, processor_for(model)


def processor_for(model: Any) -> LayoutProcessor:
    """Its processor."""
    return LayoutProcessor(model)


def session(model: Any, processor: Any, **settings: Any) -> StreamSession:
    """A session with the stream's rate, on full memory unless something else is said."""
    return StreamSession(model, processor, **{"memory": "full", "fps": FPS, "label": LABEL, **settings})


def fed(session: StreamSession, shown: Tensor, sizes: tuple[int, ...]) -> StreamSession:
    """Feed frames in pieces of these sizes."""
    assert sum(sizes) == len(shown)
    for piece in torch.split(shown, list(sizes)):
        session.feed(piece)
    return session


@torch.no_grad()
def prefill(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Logits `[V]` after a prompt, by one call of the model."""
    logits: Tensor = model(**inputs).logits[0, -1]
    return logits


def one_video(processor: LayoutProcessor, shown: Tensor, question: str = QUESTION) -> dict[str, Tensor]:
    """The prompt of a stream that is one video."""
    return processor([question], [clip(shown)])


def turns(family: tiny.Family, processor: LayoutProcessor, chunks: list[Tensor]) -> dict[str, Tensor]:
    """The prompt of a stream whose every chunk is a user turn, written out by hand."""
    ids: list[int] = []
    made: list[dict[str, Tensor]] = []
    shown = 0
    for chunk in chunks:
        made.append(processor([""], [clip(chunk)]))
        places = int((made[-1]["input_ids"] == tiny.VIDEO).sum())
        ids += [*b"user\n", *LABEL.format(start=shown / FPS).encode()]
        if family.timestamps:
            groups = len(chunk) // 2
            for group in range(groups):
                ids += [*f"<{shown / FPS + group + 0.5:.1f} seconds>".encode()]
                ids += [tiny.VISION_START, *[tiny.VIDEO] * (places // groups), tiny.VISION_END]
        elif family.mrope:
            ids += [tiny.VISION_START, *[tiny.VIDEO] * places, tiny.VISION_END]
        else:
            ids += [tiny.VIDEO] * places
        ids += [*b"\n"]
        shown += len(chunk)
    ids += [*b"user\n", *QUESTION.encode(), *b"\nassistant\n"]
    input_ids = torch.tensor([ids])
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    inputs |= {
        name: torch.cat([one[name] for one in made])
        for name in ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
        if name in made[0]
    }
    if family.token_types:
        inputs["mm_token_type_ids"] = family.known.types(processor.model, input_ids)
    return inputs
