"""What a source of frames is."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from adapters.live_video import LiveInput, Picture
from compressors.errors import VidpressError

Notice = Callable[[str], None]


class SourceError(VidpressError):
    """A source that stopped in another way than by coming to its end.

    Attributes:
        reason: one word for result files: missing, stalled, lost, broken or cut_off.
    """

    def __init__(self, message: str, reason: str = "lost") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Broken:
    """A frame that could not be decoded."""


class Source(ABC):
    """Where frames come from.

    Attributes:
        title: what the view and messages call it.
        paced: whether its frames are handed on at the times they carry, although they could be had at once.
        live: whether frames come whether or not they are handled.
        watched: seconds without a frame after which others must call it stalled, because it cannot tell by itself.
        reconnections: attempts so far to get a lost connection back.
        rate: frames per second, after `check` where it can be known then, else once the first picture is there.
    """

    title: str
    paced: bool = False
    live: bool = False
    watched: float | None = None
    reconnections: int = 0
    rate: float = 25.0

    def check(self) -> None:  # noqa: B027  (there may be nothing to know)
        """Whatever can be known before anything slow starts.

        Raises:
            VidpressError: it will not work, and why.
        """

    @abstractmethod
    def pictures(self, stop: threading.Event, notice: Notice) -> Iterator[Picture | Broken]:
        """Frames with their seconds since the stream's start, which never fall, until the source ends.

        Args:
            stop: set when no more frames are wanted; seen before the next frame, and while waiting.
            notice: takes what the user should know, such as a lost connection.

        Raises:
            VidpressError: it ended in another way; a `SourceError` names the reason.
        """


class Timeline:
    """Seconds since the stream's start, over clocks that begin anywhere, jump back, or start again."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self.last: float | None = None
        self._gap = 0.0

    def join(self, gap: float) -> None:
        """The next picture is of another clock, and comes `gap` seconds after the last one."""
        self._offset, self._gap = None, gap

    def along(self, video: LiveInput, notice: Notice) -> Iterator[Picture | Broken]:
        """An input's pictures at their times on this line."""
        for picture in video.pictures():
            if picture is None:
                yield Broken()
                continue
            if self._offset is None:
                self._offset = (0.0 if self.last is None else self.last + self._gap) - picture.time
            now = picture.time + self._offset
            if self.last is not None and now < self.last:
                now = self.last + 1 / video.rate
                self._offset = now - picture.time
                notice(f"{video.name}: its clock jumped back; the stream's goes on from {now:.2f} s")
            self.last = now
            yield replace(picture, time=now)
