"""`Clock`: the one set of stage timers, for pressed models (`press`) and for plain ones (`timed`)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

STAGES = ("encode", "compress", "prefill", "decode")
WHOLE = "generate"  # all of a call of `generate`: the stages and what the library does between them
_PENDING = 64  # spans on a GPU that may be unfinished before finished ones are looked for

Watcher = Callable[[str, bool], None]


class Moment(NamedTuple):
    """A point in time on a CPU.

    Attributes:
        wall: seconds of the clock on the wall.
        processor: seconds of processor time, all threads of this process together; it does not count the time in which
            other processes had the processor.
    """

    wall: float
    processor: float


class Clock:
    """Seconds per stage. On a GPU it records events and reads them only when asked; it never synchronises by itself.

    Its size is bounded: spans that are over are added up at once (on a GPU, once their events have passed).

    Attributes:
        watcher: called with (stage, whether it begins) at every start and stop; for measuring something else by stage.
    """

    def __init__(self) -> None:
        self._totals = {stage: Moment(0.0, 0.0) for stage in (*STAGES, WHOLE)}
        self._spans: deque[tuple[str, int, Any, Any]] = deque()
        self._lock = threading.Lock()
        self.watcher: Watcher | None = None

    def start(self, stage: str, device: torch.device) -> Any:
        """Begin a stage: the moment to hand to `stop`."""
        if self.watcher is not None:
            self.watcher(stage, True)
        return mark(device)

    def stop(self, stage: str, start: Any, device: torch.device) -> Any:
        """End a stage: the time since `start` counts for it. Returns this moment."""
        end = mark(device)
        self._count(stage, 1, start, end)
        if self.watcher is not None:
            self.watcher(stage, False)
        return end

    def subtract(self, stage: str, start: Any, end: Any) -> None:
        """Take the time between two moments out of a stage."""
        self._count(stage, -1, start, end)

    def seconds(self, *, processor: bool = False) -> dict[str, float]:
        """Seconds per stage, summed over calls; of processor time on request (CPU only: a GPU has its own clock)."""
        self._fold(wait=True)
        with self._lock:
            return {stage: self._totals[stage][processor] for stage in STAGES}

    def whole(self, *, processor: bool = False) -> float:
        """Seconds inside `generate`, summed over calls."""
        self._fold(wait=True)
        with self._lock:
            return self._totals[WHOLE][processor]

    def _count(self, stage: str, sign: int, start: Any, end: Any) -> None:
        with self._lock:
            if isinstance(start, Moment):
                self._add(stage, sign * (end.wall - start.wall), sign * (end.processor - start.processor))
                return
            self._spans.append((stage, sign, start, end))
        if len(self._spans) > _PENDING:
            self._fold(wait=False)

    def _fold(self, *, wait: bool) -> None:
        """Add up spans of GPU events: all of them, or without waiting those that are over."""
        with self._lock:
            while self._spans and (wait or self._spans[0][3].query()):
                stage, sign, start, end = self._spans.popleft()
                end.synchronize()
                seconds = sign * start.elapsed_time(end) / 1000
                self._add(stage, seconds, seconds)

    def _add(self, stage: str, wall: float, processor: float) -> None:
        total = self._totals[stage]
        self._totals[stage] = Moment(total.wall + wall, total.processor + processor)


def mark(device: torch.device) -> Any:
    """A point in time: an event on a GPU's stream, else a `Moment`."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event
    return Moment(time.perf_counter(), time.process_time())
