"""`Report`: what a press did, per video and in total, and where the time went."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adapters.clock import Clock
from compressors import finite_flag
from compressors.base import Compression
from compressors.errors import InputError
from compressors.tokens import Check

REMEMBERED = 4096  # videos a report can show one by one; its totals count all
_UNREAD = 1024  # checks left on the device before they are looked at, in one read


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


@dataclass(frozen=True)
class Totals:
    """Over all videos of a press: how many, their visual tokens before and after, their structural placeholders."""

    videos: int = 0
    tokens: int = 0
    kept: int = 0
    structural: int = 0

    def plus(self, video: VideoReport) -> Totals:
        """One more."""
        return Totals(
            self.videos + 1,
            self.tokens + video.tokens,
            self.kept + video.kept,
            self.structural + video.structural,
        )


@dataclass(eq=False)
class Report:
    """Filled while a press is attached; one entry per compressed video, in order.

    Its size is bounded however long the press lasts: totals count every video, entries are kept of the latest ones, and
    checks that passed are forgotten.

    Attributes:
        method: the compressor's name.
        parts: its parts, for the record.
        clock: stage times.
        spare_slots: slots of the latest static cache that its prompt left empty, or None: such a cache is allocated for
            the whole prompt, before the video is seen.
    """

    method: str
    parts: Mapping[str, str]
    clock: Clock = field(default_factory=Clock)
    spare_slots: int | None = None
    _videos: deque[VideoReport] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _total: Totals = Totals()
    _reuse: tuple[int, int] | None = None
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
            self._total = self._total.plus(video)
            if not compression.identity:
                finite = functools.partial(_not_finite, self._total.videos)
                self._checks += [(finite_flag(tokens), finite), *tokens._checks]
            if len(self._checks) > _UNREAD:
                device = self._checks[0][0].device
                passed = torch.stack([flag.to(device).view(()) for flag, _ in self._checks]).tolist()
                self._checks = [check for check, fine in zip(self._checks, passed, strict=True) if not fine]

    def add_reuse(self, reused: int, total: int) -> None:
        """Count a call of the vision tower under a cacher: places served from a reference frame, and all."""
        with self._lock:
            before = self._reuse or (0, 0)
            self._reuse = (before[0] + reused, before[1] + total)

    @property
    def reuse(self) -> float | None:
        """Share of the vision tower's places that a cacher served from reference frames; None without a cacher."""
        return None if self._reuse is None else self._reuse[0] / max(1, self._reuse[1])

    @property
    def videos(self) -> list[VideoReport]:
        """The compressed videos so far, of many the latest `REMEMBERED`.

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
        seen = set(map(id, checks))
        with self._lock:
            self._checks = [check for check in self._checks if id(check) not in seen]

    @property
    def visual(self) -> int:
        """Visual tokens before, over all videos."""
        self.check()
        return self._total.tokens

    @property
    def kept(self) -> int:
        """Visual tokens after."""
        self.check()
        return self._total.kept

    @property
    def placeholders(self) -> int:
        """All placeholders before: visual tokens and structural ones."""
        return self.visual + self._total.structural

    @property
    def retention(self) -> float:
        """Share of visual tokens kept; 1.0 when there was no video."""
        return self.kept / self.visual if self.visual else 1.0

    @property
    def retention_placeholders(self) -> float:
        """Share of all placeholders kept."""
        return (self.kept + self._total.structural) / self.placeholders if self.placeholders else 1.0

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds in encode, compress, prefill and decode, summed over calls; reads the device's timers."""
        return self.clock.seconds()

    def __str__(self) -> str:
        lines = [
            f"{self.method}: {self.kept} of {self.visual} visual tokens kept ({self.retention:.1%}; "
            f"{self.retention_placeholders:.1%} of all placeholders) in {self._total.videos} video(s)"
        ]
        for number, video in enumerate(self._videos, self._total.videos - len(self._videos) + 1):
            budgets = " ".join(str(budget) for budget in video.budgets)
            grid = "×".join(map(str, video.grid))
            lines.append(f"  video {number}: {video.kept}/{video.tokens} on a {grid} grid; {budgets}")
        if self.reuse is not None:
            lines.append(f"  vision tower: {self.reuse:.1%} of its places reused from frames before")
        if self.spare_slots is not None:
            lines.append(
                f"  static cache: allocated for the whole prompt, before the video was seen; compression left "
                f"{self.spare_slots} of its slots empty"
            )
        lines.append("  seconds: " + ", ".join(f"{stage} {value:.3f}" for stage, value in self.seconds.items()))
        return "\n".join(lines)


def _not_finite(number: int) -> InputError:
    return InputError(
        f"the vision tower gave NaN or infinite features for video {number} of this press, so its answer is not to be "
        f"trusted: load the model in bfloat16 or float32, and check the video's pixels."
    )
