"""A session without a model, which remembers what it was given; and a source without a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import av
import torch

from adapters.live_video import Picture
from adapters.streaming.status import Seconds
from compressors.errors import InputError
from experiments.streaming.sources import Broken, Notice, Source
from tests.adapters.moving import image, number_of


@dataclass(frozen=True)
class Status:
    """As `StreamStatus`."""

    frames: int = 0
    seconds: float = 0.0
    tokens: int = 0
    kept: int = 0
    held: int = 0
    device_bytes: int = 0
    host_bytes: int = 2048
    disk_bytes: int = 0
    reuse: float | None = None
    stages: Mapping[str, Seconds] = field(default_factory=lambda: {"encode": Seconds(0.2, 0.1)})


@dataclass(frozen=True)
class Answer:
    """As the session's."""

    text: str
    seconds: float = 0.0
    tokens_used: int = 3


class Session:
    """Remembers the numbers and times of its frames; answers with how many it has.

    Args:
        delay: seconds that a frame takes.
        fails_at: feeding the frame of this number fails.
    """

    def __init__(self, delay: float = 0.0, fails_at: int | None = None) -> None:
        self.numbers: list[int] = []
        self.times: list[float] = []
        self.asked: list[tuple[str, int]] = []
        self._delay, self._fails_at = delay, fails_at
        self.fed = threading.Event()

    def feed(self, frames: Any, timestamps: list[float]) -> None:
        numbers = [number_of(frame.numpy()) for frame in frames]
        assert len(numbers) == len(timestamps)
        if self._fails_at in numbers:
            raise InputError("this frame is not liked")
        time.sleep(self._delay * len(numbers))
        self.numbers += numbers
        self.times += timestamps
        self.fed.set()

    def ask(self, question: str, *, max_new_tokens: int) -> Answer:
        if question == "impossible":
            raise InputError("this cannot be answered")
        if question == "large":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nand more")
        if question == "fatal":
            raise RuntimeError("out of order")
        self.asked.append((question, len(self.numbers)))
        return Answer(f"{len(self.numbers)} frames, {max_new_tokens} tokens at most")

    @property
    def status(self) -> Status:
        return Status(len(self.numbers), self.times[-1] if self.times else 0.0, tokens=len(self.numbers))


class Made(Source):
    """Frames 0, 1, … at a rate; what is in `script` instead of a frame comes instead, errors are raised.

    Args:
        count: of frames.
        rate: per second.
        script: by number: "broken", "small" (a frame of half the size), "hang", or an error.
    """

    title = "made up"

    def __init__(self, count: int, rate: float = 10.0, script: dict[int, Any] | None = None, **kind: Any) -> None:
        self._count, self.rate, self._script = count, rate, script or {}
        for name, value in kind.items():
            setattr(self, name, value)

    def pictures(self, stop: threading.Event, notice: Notice) -> Iterator[Picture | Broken]:
        for number in range(self._count):
            what = self._script.get(number)
            if isinstance(what, BaseException):
                raise what
            if what == "hang":
                threading.Event().wait(30)
            if what == "broken":
                yield Broken()
                continue
            size = {"height": 24, "width": 32} if what == "small" else {}
            yield Picture(number / self.rate, av.VideoFrame.from_ndarray(image(number % 40, **size), format="rgb24"))


class Watched:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.statuses: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.notices: list[str] = []

    def show(self, status: Any) -> None:
        self.statuses.append(status)

    def say(self, answer: Any) -> None:
        self.answers.append(answer)

    def notice(self, text: str) -> None:
        self.notices.append(text)
