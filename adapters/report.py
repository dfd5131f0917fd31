"""`Report`: what a press did, per video and in total, and where the time went."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compressors import finite_flag
from compressors.base import Compression
from compressors.errors import InputError
from compressors.tokens import Check

STAGES = ("encode", "compress", "prefill", "decode")


@dataclass(frozen=True, eq=False)
class VideoReport:
    """One compressed video.

    Attributes:
        tokens: visual tokens before.
        kept: visual tokens after.
        structural: placeholders that are always kept (newlines).
        grid: (h, w) of a frame.
        position: which video of its call.
        keep: kept flat indices, `int64 [K]`, for pictures.
        frame_budgets: tokens kept per frame, `int64 [T]` on the device.
    """

    tokens: int
    kept: int
    structural: int
    grid: tuple[int, int]
    position: int
    keep: Tensor
    frame_budgets: Tensor

    @property
    def budgets(self) -> list[int]:
        """Tokens kept per frame (temporal group)."""
        return list(self.frame_budgets.tolist())

    @property
    def retention(self) -> float:
        """Share of the visual tokens that was kept."""
        return self.kept / self.tokens

    @property
    def retention_placeholders(self) -> float:
        """Share of all placeholders that was kept, structural ones included."""
        return (self.kept + self.structural) / (self.tokens + self.structural)


class Clock:
    """Seconds per stage. On a GPU it records events and reads them only when asked; it never synchronises by itself."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, int, Any, Any]] = []
        self._lock = threading.Lock()

    def add(self, stage: str, start: Any, end: Any) -> None:
        """Count the time between two marks for a stage."""
        with self._lock:
            self._spans.append((stage, 1, start, end))

    def subtract(self, stage: str, start: Any, end: Any) -> None:
        """Take the time between two marks out of a stage."""
        with self._lock:
            self._spans.append((stage, -1, start, end))

    def seconds(self) -> dict[str, float]:
        """Seconds per stage, summed over calls."""
        total = dict.fromkeys(STAGES, 0.0)
        with self._lock:
            for stage, sign, start, end in self._spans:
                total[stage] += sign * _elapsed(start, end)
        return total


def mark(device: torch.device) -> Any:
    """A point in time: an event on a GPU's stream, else the clock."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event
    return time.perf_counter()


def _elapsed(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


@dataclass(eq=False)
class Report:
    """Filled while a press is attached; one entry per compressed video, in order.

    Attributes:
        method: the compressor's name.
        parts: its parts, for the record.
        clock: stage times.
    """

    method: str
    parts: Mapping[str, str]
    clock: Clock = field(default_factory=Clock)
    _videos: list[VideoReport] = field(default_factory=list)
    _checks: list[Check] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, compression: Compression, structural: int) -> None:
        """Record one video; checks of its values stay on the device until `check`."""
        tokens = compression.tokens
        grid = tokens.grid or (1, tokens.places)
        video = VideoReport(
            tokens.total, compression.kept, structural, grid, tokens.index, compression.keep, compression.budgets
        )
        with self._lock:
            self._videos.append(video)
            if not compression.identity:
                finite = functools.partial(_not_finite, len(self._videos))
                self._checks += [(finite_flag(tokens), finite), *tokens._checks]

    @property
    def videos(self) -> list[VideoReport]:
        """Every compressed video so far.

        Raises:
            InputError, SelectionError: as `check`.
        """
        self.check()
        return list(self._videos)

    def check(self) -> None:
        """Look at the checks left on the device.

        Raises:
            InputError: a video's features were NaN or infinite.
            SelectionError: a wrapped selector returned nonsense.
        """
        with self._lock:
            checks = list(self._checks)
        for passed, error in checks:
            if not bool(passed):
                raise error()  # and again at the next look: what failed stays failed
        with self._lock:
            del self._checks[: len(checks)]

    @property
    def visual(self) -> int:
        """Visual tokens before, over all videos."""
        return sum(video.tokens for video in self.videos)

    @property
    def kept(self) -> int:
        """Visual tokens after."""
        return sum(video.kept for video in self.videos)

    @property
    def placeholders(self) -> int:
        """All placeholders before: visual tokens and structural ones."""
        return sum(video.tokens + video.structural for video in self.videos)

    @property
    def retention(self) -> float:
        """Share of visual tokens kept; 1.0 when there was no video."""
        return self.kept / self.visual if self.visual else 1.0

    @property
    def retention_placeholders(self) -> float:
        """Share of all placeholders kept."""
        kept = sum(video.kept + video.structural for video in self.videos)
        return kept / self.placeholders if self.placeholders else 1.0

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds in encode, compress, prefill and decode, summed over calls; reads the device's timers."""
        return self.clock.seconds()

    def __str__(self) -> str:
        lines = [
            f"{self.method}: {self.kept} of {self.visual} visual tokens kept ({self.retention:.1%}; "
            f"{self.retention_placeholders:.1%} of all placeholders) in {len(self._videos)} video(s)"
        ]
        for number, video in enumerate(self._videos, 1):
            budgets = " ".join(str(budget) for budget in video.budgets)
            grid = "×".join(map(str, video.grid))
            lines.append(f"  video {number}: {video.kept}/{video.tokens} on a {grid} grid; {budgets}")
        lines.append("  seconds: " + ", ".join(f"{stage} {value:.3f}" for stage, value in self.seconds.items()))
        return "\n".join(lines)


def _not_finite(number: int) -> InputError:
    return InputError(
        f"the vision tower gave NaN or infinite features for video {number} of this press, so its answer is not to be "
        f"trusted: load the model in bfloat16 or float32, and check the video's pixels."
    )
