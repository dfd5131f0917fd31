"""Which frames are computed in full and which reuse which reference: decided before a tower's first layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

Reference = Literal["last", "first", "nearest"]
Change = Callable[[int, int], float]  # (frame of the call, candidate) -> share of its places that changed

STEPS = 16  # an adaptive update ratio is rounded up to sixteenths, so that few different shapes occur


@dataclass(frozen=True)
class Progress:
    """Where a stream stands.

    Attributes:
        chunk: chunks since the last one that was computed in full out of turn (or the first).
        inside: frames of the chunk in progress.
    """

    chunk: int = 0
    inside: int = 0


@dataclass(frozen=True)
class Frame:
    """One frame's fate.

    Attributes:
        reference: the candidate it reuses: `0 … R-1` are those remembered before the call, `R + i` is the call's frame
            i. None: it is computed in full.
        update: places to compute anew.
    """

    reference: int | None
    update: int


@dataclass(frozen=True)
class Rule:
    """The part of a cacher's parameters that schedules: see `STC` for their meaning."""

    interval: int | None = 2
    chunk: int | None = 1
    update_ratio: float = 0.25
    max_update_ratio: float | None = None
    refresh_above: float | None = None
    reference: Reference = "last"

    @property
    def looks(self) -> bool:
        """Whether decisions depend on the frames themselves, which costs one read on the host per call."""
        return self.refresh_above is not None or self.max_update_ratio is not None or self._chooses

    @property
    def _chooses(self) -> bool:
        return self.reference == "nearest" and self.chunk != 1

    @property
    def reach(self) -> int | None:
        """How many frames back a reference can lie; None is no bound."""
        return None if self.interval is None or self.chunk is None else self.interval * self.chunk

    def updates(self, places: int, share: float | None = None) -> int:
        """U: of so many places, those to compute anew, given the share that changed where the ratio adapts."""
        ratio = self.update_ratio
        if self.max_update_ratio is not None and share is not None:
            ratio = min(max(ceil(share * STEPS) / STEPS, ratio), self.max_update_ratio)
        return min(places, max(int(ratio * places + 0.5), 1 if ratio > 0 else 0))

    def plan(
        self, progress: Progress, stored: int, frames: int, places: int, change: Change | None = None
    ) -> tuple[list[Frame], list[int], Progress]:
        """The frames of one call that belong to one stream.

        Args:
            progress: where the stream stood.
            stored: R, references remembered of it.
            frames: how many come now.
            places: N, of each.
            change: how much two frames differ; needed where `looks`.

        Returns:
            every frame's fate, the candidates to remember from now on, and where the stream stands then.
        """
        chunk, inside = progress.chunk, progress.inside
        if self.chunk is None and inside and frames:
            chunk, inside = chunk + 1, 0
        held, fates = list(range(stored)), []
        for frame in range(frames):
            if inside == self.chunk:
                chunk, inside = chunk + 1, 0
            if not held:
                chunk = inside = 0
            due = chunk == 0 if self.interval is None else chunk % self.interval == 0
            nearest, share = (None, None) if due else self._nearest(frame, held, change)
            if share is not None and self.refresh_above is not None and share > self.refresh_above:
                due, chunk, inside = True, 0, 0
            if due:
                held = self._with(held if inside else [], stored + frame)
            fates.append(Frame(None, places) if due else Frame(nearest, self.updates(places, share)))
            inside += 1
        return fates, held, Progress(chunk, inside)

    def _nearest(self, frame: int, held: list[int], change: Change | None) -> tuple[int, float | None]:
        """The reference to use, and how much of the frame changed since; ties go to the latest."""
        if change is None or not self.looks:
            return held[-1], None
        shares = [change(frame, candidate) for candidate in reversed(held)]
        share = min(shares)
        return held[-1 - shares.index(share)], share

    def _with(self, held: list[int], frame: int) -> list[int]:
        """The references of a full chunk in progress, with one more of its frames."""
        if self.reference == "last" or not held:
            return [frame]
        return held if self.reference == "first" else [*held, frame]
