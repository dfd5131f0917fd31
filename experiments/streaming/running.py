"""A stream that runs: two threads, a queue between them, and whoever watches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from experiments.streaming.feeder import Feeder
from experiments.streaming.interrupts import Interrupts
from experiments.streaming.questions import Asked, Inbox, Question
from experiments.streaming.queue import FrameQueue
from experiments.streaming.reader import Reader
from experiments.streaming.sources import Source, SourceError
from experiments.streaming.view import Watcher

_WINDOW = 5.0  # seconds that rates are taken over
_QUIET = 1.0  # seconds without a frame that are told
_GOODBYE = 1.0  # seconds for a reader to see that it is over; one that is stuck is left behind


@dataclass(frozen=True)
class Pace:
    """How frames are taken and handled.

    Attributes:
        policy, capacity, slowest: as in `FrameQueue`.
        fps, seconds, broken_limit: as in `Reader`.
        chunk, max_new_tokens, stay: as in `Feeder`.
        waiting: questions that may wait for their answers.
        refresh: seconds between looks at the state.
    """

    policy: str
    capacity: int
    slowest: int
    fps: float | None
    seconds: float | None
    broken_limit: int
    chunk: int
    max_new_tokens: int
    stay: bool
    waiting: int = 32
    refresh: float = 0.25


class Stream:
    """One run of a source through a session.

    Args:
        session: a `StreamSession`.
        source: of frames.
        questions: with times, in their order.
        pace: how frames are taken and handled.
    """

    def __init__(self, session: Any, source: Source, questions: Sequence[Question], pace: Pace) -> None:
        self._source, self._pace = source, pace
        self._watchers: tuple[Watcher, ...] = ()
        self._halt = threading.Event()
        self._queue = FrameQueue(pace.policy, pace.capacity, pace.slowest)
        self._inbox = Inbox(pace.waiting)
        self._reader = Reader(
            source,
            self._queue,
            fps=pace.fps,
            seconds=pace.seconds,
            broken_limit=pace.broken_limit,
            stop=self._halt,
            notice=self._notice,
        )
        self._feeder = Feeder(
            session,
            self._queue,
            self._inbox,
            questions,
            chunk=pace.chunk,
            max_new_tokens=pace.max_new_tokens,
            stay=pace.stay,
            stop=self._halt,
            on_answer=self._say,
        )
        self._started = time.monotonic()
        self._samples = deque([(self._started, 0, 0)])
        self._fps = {"seen": 0.0, "handled": 0.0}
        self._interrupted = self._over = False
        self._stalled: SourceError | None = None

    def ask(self, question: Question) -> Future[dict[str, Any]]:
        """Have a question asked as soon as possible.

        Raises:
            Refused: too many wait, or the stream is over.
        """
        asked = Asked(question, time.monotonic())
        self._inbox.put(asked)
        return asked.answered

    def run(self, watchers: Sequence[Watcher]) -> None:
        """Run until the source has ended and every question is answered, or until Ctrl-C or SIGTERM; then all is in
        order.

        A second Ctrl-C does not wait for what is in hand. What went wrong is `error`.
        """
        self._watchers, self._started = tuple(watchers), time.monotonic()
        self._samples = deque([(self._started, 0, 0)])
        self._reader.start()
        self._feeder.start()
        try:
            with Interrupts() as interrupts:
                while not self._feeder.done.wait(self._pace.refresh):
                    self._look(interrupts.count)
        finally:
            self._halt.set()
            self._queue.cut()
        self._reader.done.wait(_GOODBYE)
        self._over = True
        self._show()

    def _look(self, interrupts: int) -> None:
        if interrupts and not self._interrupted:
            self._interrupted = True
            self._halt.set()
            self._notice("stopping after what is in hand; Ctrl-C again quits at once")
        if interrupts > 1:
            raise KeyboardInterrupt
        since, patience = self._reader.waiting_since, self._source.watched
        waits = since is not None and patience is not None and time.monotonic() - since > patience
        if waits and self._stalled is None:
            self._stalled = SourceError(f"{self._source.title}: nothing came for {patience:g} s", "stalled")
            self._queue.end()
        if self._stalled or self._reader.error:
            self._feeder.leave_after_the_end()
        self._show()

    def _show(self) -> None:
        self._fps = self._rates(time.monotonic())
        status = self.status()
        for watcher in self._watchers:
            watcher.show(status)

    def _say(self, answer: dict[str, Any]) -> None:
        for watcher in self._watchers:
            watcher.say(answer)

    def _notice(self, text: str) -> None:
        for watcher in self._watchers:
            watcher.notice(text)

    @property
    def error(self) -> BaseException | None:
        """What ended the stream, if it was neither its end nor the user."""
        return self._feeder.error or self._stalled or self._reader.error

    @property
    def ended(self) -> str:
        """Why it ended: end, seconds, interrupted, the reason of a `SourceError`, or error."""
        error = self.error
        if error is not None:
            return error.reason if isinstance(error, SourceError) else "error"
        if self._interrupted:
            return "interrupted"
        return "seconds" if self._reader.limited else "end"

    @property
    def unasked(self) -> int:
        """Questions with times that were not asked, because it ended before."""
        return len(self._feeder.timed)

    def status(self) -> dict[str, Any]:
        """The state, as JSON: what the view shows, the endpoint tells and the curve samples."""
        reader, feeder, queue, session = self._reader, self._feeder, self._queue, self._feeder.status
        now = time.monotonic()
        return {
            "state": self._state(now),
            "elapsed": now - self._started,
            "stream_seconds": session.seconds,
            "frames": {
                "seen": reader.seen,
                "skipped": reader.skipped,
                "thinned": queue.thinned,
                "dropped": queue.dropped,
                "handled": feeder.handled,
                "waiting": len(queue),
                "left": queue.left + (feeder.unfinished if self._over else 0),
                "broken": reader.broken,
                "rescaled": reader.rescaled,
            },
            "fps": dict(self._fps),
            "policy": queue.policy,
            "stride": queue.stride,
            "lag": feeder.lag,
            "longest_lag": feeder.longest_lag,
            "reconnections": self._source.reconnections,
            "tokens": {"seen": session.tokens, "kept": session.kept, "held": session.held},
            "bytes": {"device": session.device_bytes, "host": session.host_bytes, "disk": session.disk_bytes},
            "reuse": session.reuse,
            "stages": {name: spent._asdict() for name, spent in session.stages.items()},
            "questions": {"answered": feeder.answered, "waiting": len(self._inbox)},
        }

    def _state(self, now: float) -> str:
        if self._over:
            return "ended"
        if self._halt.is_set():
            return "stopping"
        if self._reader.done.is_set():
            return "finishing" if len(self._queue) or not self._pace.stay else "staying for questions"
        since = self._reader.waiting_since
        quiet = 0.0 if since is None else now - since
        return f"no frame for {quiet:.0f} s" if quiet > _QUIET else "running"

    def _rates(self, now: float) -> dict[str, float]:
        """Frames per second seen and handled, over the last seconds; over all of them at the end."""
        seen, handled = self._reader.seen, self._feeder.handled
        self._samples.append((now, seen, handled))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _WINDOW and not self._over:
            self._samples.popleft()
        then, seen_then, handled_then = (self._started, 0, 0) if self._over else self._samples[0]
        span = max(now - then, 1e-9)
        return {"seen": (seen - seen_then) / span, "handled": (handled - handled_then) / span}
