"""The thread that reads: from the source, sampled and paced, into the queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

from adapters.live_video import Picture
from adapters.video import RateSampler, VideoError
from experiments.streaming.queue import Frame, FrameQueue
from experiments.streaming.sources import Broken, Source, SourceError


class Reader(threading.Thread):
    """Reads a source to its end, and then ends the queue.

    Args:
        source, queue: from where, to where.
        fps: frames per second to take, by their times; None takes all.
        seconds: of stream, after which it stops; None goes on.
        broken_limit: frames in a row that cannot be decoded before the source counts as broken.
        stop: ends it.
        notice: takes what the user should know.

    Attributes:
        seen: frames that could be decoded.
        skipped: of these, frames that `fps` passed over.
        broken: frames that could not.
        rescaled: frames of another size than the first, scaled to it.
        waiting_since: since when it has been waiting for the source, on the monotonic clock; None while it is not.
        limited: whether `seconds` ended it.
        error: what ended it, if it was neither the source's end nor `stop`.
        done: set at its very end.
    """

    def __init__(
        self,
        source: Source,
        queue: FrameQueue,
        *,
        fps: float | None,
        seconds: float | None,
        broken_limit: int,
        stop: threading.Event,
        notice: Callable[[str], None],
    ) -> None:
        # A source may be stuck where nothing reaches it: the program must be able to end all the same.
        super().__init__(name="vidpress-reader", daemon=True)
        self._source, self._queue, self._halt, self._notice = source, queue, stop, notice
        self._fps, self._seconds, self._broken_limit = fps, seconds, broken_limit
        self._size: tuple[int, int] | None = None
        self._odd_size: tuple[int, int] | None = None
        self._in_a_row = 0
        self._anchor: float | None = None
        self.seen = self.skipped = self.broken = self.rescaled = 0
        self.waiting_since: float | None = None
        self.limited = False
        self.error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """The thread's work."""
        try:
            self._read()
        except BaseException as error:
            # When nothing more is wanted, how the source takes its end is of no interest.
            self.error = None if self._halt.is_set() else error
        finally:
            self.waiting_since = None
            self._queue.end()
            self.done.set()

    def _read(self) -> None:
        sampler: RateSampler | None = None
        self.waiting_since = time.monotonic()
        with closing(self._source.pictures(self._halt, self._notice)) as pictures:  # type: ignore[type-var]
            for picture in pictures:
                self.waiting_since = None
                if self._halt.is_set():
                    return
                sampler = sampler or RateSampler(self._fps, self._source.rate)
                if isinstance(picture, Broken):
                    self._count_broken()
                elif self._seconds is not None and picture.time >= self._seconds:
                    self.limited = True
                    return
                else:
                    due = self._due(picture.time)
                    if self._halt.is_set():  # its time has not come
                        return
                    if sampler.takes(picture.time):
                        self._take(picture, due)
                    else:
                        self._in_a_row = 0
                        self.seen += 1
                        self.skipped += 1
                self.waiting_since = time.monotonic()

    def _due(self, shown: float) -> float | None:
        """When a frame is shown, or came, by the machine's clock; waits for that moment where the source is paced."""
        now = time.monotonic()
        if self._source.paced:
            self._anchor = now - shown if self._anchor is None else self._anchor
            self._halt.wait(max(0.0, self._anchor + shown - now))
        elif self._source.live:
            # The frame that came soonest after it was shown says how the two clocks relate.
            self._anchor = min(now - shown, now - shown if self._anchor is None else self._anchor)
        else:
            return None
        return self._anchor + shown

    def _take(self, picture: Picture, due: float | None) -> None:
        try:
            image = picture.image(self._size)
        except VideoError:
            self._count_broken()
            return
        self._in_a_row = 0
        self.seen += 1
        self._size = self._size or picture.size
        if picture.size != self._size:
            self.rescaled += 1
            if picture.size != self._odd_size:
                self._odd_size = picture.size
                (height, width), (first, second) = picture.size, self._size
                self._notice(f"frames are now {width}×{height}; they are scaled to {second}×{first}, as the first was")
        self._queue.put(Frame(image, picture.time, due))

    def _count_broken(self) -> None:
        self.broken += 1
        self._in_a_row += 1
        if self._in_a_row > self._broken_limit:
            raise SourceError(
                f"{self._source.title}: {self._in_a_row} frames in a row could not be decoded "
                f"(source.broken_limit={self._broken_limit})",
                "broken",
            )
