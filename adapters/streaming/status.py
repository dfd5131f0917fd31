"""What a session reports: `Fed`, `Answer`, `StreamStatus`; and how it measures time."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

STAGES = ("encode", "compress", "extend", "answer")
_REMEMBERED = 256  # durations of a stage that its median is taken over


@dataclass(frozen=True)
class Fed:
    """What one `feed` did.

    Attributes:
        frames: frames that came.
        processed: frames that went into the memory, earlier held ones included.
        waiting: frames now held back until their group or chunk is full.
        tokens: visual tokens of the processed frames.
        kept: those of them that the pruner kept.
        seconds: it took.
    """

    frames: int
    processed: int
    waiting: int
    tokens: int
    kept: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer.

    Attributes:
        text: what was generated.
        seconds: from the question to the answer's end.
        tokens_used: keys that the question saw: those of the memory, and its own.
        ids: the generated tokens.
        blocks: for a memory that chooses, the numbers of the blocks that each layer looked at.
        logits: `[steps, vocabulary]` on request.
    """

    text: str
    seconds: float
    tokens_used: int
    ids: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...] | None = None
    logits: Tensor | None = None


class Seconds(NamedTuple):
    """Durations of a stage: the last, and the median of the last 256."""

    last: float
    median: float


@dataclass(frozen=True)
class StreamStatus:
    """A session's state in numbers.

    Attributes:
        frames: frames processed.
        waiting: frames held back until their group or chunk is full.
        seconds: time of the last frame that came.
        tokens: visual tokens seen.
        kept: those that the pruner kept.
        held: tokens that a question can reach now.
        device_bytes, host_bytes, disk_bytes: of keys and values, by where they are.
        reuse: share of the vision tower's tokens that the cacher served from its reference; None without one.
        stages: seconds of encode, compress, extend (per chunk) and answer (per question).
    """

    frames: int
    waiting: int
    seconds: float
    tokens: int
    kept: int
    held: int
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    reuse: float | None
    stages: Mapping[str, Seconds]


class Stopwatch:
    """Durations by stage; the last 256 of each. On a GPU it waits for the device at a stage's end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: dict[str, deque[float]] = {stage: deque(maxlen=_REMEMBERED) for stage in STAGES}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; one that raises does not count."""
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        with self._lock:
            self._spans[name].append(time.perf_counter() - start)

    def seconds(self) -> dict[str, Seconds]:
        """By stage; zero where nothing was measured."""
        with self._lock:
            found = {name: list(spans) for name, spans in self._spans.items()}
        return {name: Seconds(s[-1], statistics.median(s)) if s else Seconds(0.0, 0.0) for name, s in found.items()}
