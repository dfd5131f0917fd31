"""The thread that works: feeds frames to the session and asks it questions, one thing after the other."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from compressors.errors import VidpressError
from experiments.streaming.questions import Asked, Inbox, Question
from experiments.streaming.queue import Frame, FrameQueue

_PATIENCE = 0.05  # seconds between looks at the questions


class Feeder(threading.Thread):
    """Feeds a session until the queue is exhausted and every question is answered.

    A question with a time is asked when every frame up to that time has been fed, and none after it. One that comes
    while the stream runs is asked after the chunk in hand.

    Args:
        session: a `StreamSession`.
        queue, inbox: frames and questions.
        timed: questions with times, in their order.
        chunk: frames fed at once, at most; a session makes its own chunks of them.
        max_new_tokens: length of answers, where a question has none of its own.
        stay: whether to go on answering after the last frame, until `stop`.
        stop: ends it after what it has in hand.
        on_answer: takes every answer's record.

    Attributes:
        handled: frames fed.
        unfinished: frames in hand when feeding failed.
        answered: questions answered, those that failed with them.
        lag, longest_lag: seconds between a frame's moment and the end of its feeding: of the last chunk, and the worst.
        status: the session's, after the last step.
        error: what ended it, if it was neither the end nor `stop`.
        done: set at its very end.
    """

    def __init__(
        self,
        session: Any,
        queue: FrameQueue,
        inbox: Inbox,
        timed: Sequence[Question],
        *,
        chunk: int,
        max_new_tokens: int,
        stay: bool,
        stop: threading.Event,
        on_answer: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(name="vidpress-feeder", daemon=True)
        self._session, self._queue, self._inbox, self.timed = session, queue, inbox, list(timed)
        self._chunk, self._max_new_tokens, self._stay, self._halt = chunk, max_new_tokens, stay, stop
        self._on_answer = on_answer
        self._numbers = itertools.count(1)
        self.handled = self.unfinished = self.answered = 0
        self.lag: float | None = None
        self.longest_lag: float | None = None
        self.status: Any = session.status
        self.error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """The thread's work."""
        try:
            while not self._halt.is_set() and self._step():
                pass
        except BaseException as error:
            self.error = error
        finally:
            self._queue.cut()
            self._inbox.close()
            self.done.set()

    def leave_after_the_end(self) -> None:
        """Do not stay."""
        self._stay = False

    def _step(self) -> bool:
        if asked := self._inbox.take():
            self._answer(asked)
            return True
        until = math.inf if not self.timed or self.timed[0].at is None else self.timed[0].at
        frames = self._queue.take(self._chunk, until, _PATIENCE)
        if frames:
            self._feed(frames)
            return True
        upcoming, exhausted = self._queue.next_time, self._queue.exhausted
        if self.timed and (exhausted or (upcoming is not None and upcoming > until)):
            asked = Asked(self.timed.pop(0), time.monotonic())
            asked.answered.set_running_or_notify_cancel()
            self._answer(asked)
        elif exhausted:
            self._halt.wait(_PATIENCE if self._stay else 0)
            return self._stay
        return True

    def _feed(self, frames: Sequence[Frame]) -> None:
        self.unfinished = len(frames)
        images = torch.from_numpy(np.stack([frame.image for frame in frames]))
        self._session.feed(images, [frame.time for frame in frames])
        self.unfinished = 0
        self.handled += len(frames)
        self.status = self._session.status
        if frames[-1].due is not None:
            self.lag = time.monotonic() - frames[-1].due
            self.longest_lag = max(self.lag, self.longest_lag or 0.0)

    def _answer(self, asked: Asked) -> None:
        question, started = asked.question, time.monotonic()
        record: dict[str, Any] = {
            "id": next(self._numbers),
            "question": question.text,
            "origin": question.origin,
            "at": "end" if question.at == math.inf else question.at,
            "asked_at": self.status.seconds,
            "frames": self.handled,
            "waited": started - asked.since,
            "expected": question.expected,
        }
        try:
            tokens = question.max_new_tokens or self._max_new_tokens
            answer = self._session.ask(question.text, max_new_tokens=tokens)
            record |= {
                "answer": answer.text,
                "seconds": answer.seconds,
                "tokens_used": answer.tokens_used,
                "error": None,
            }
        except (VidpressError, torch.OutOfMemoryError) as error:
            # One question that cannot be answered is no reason to end the stream: the session is as it was.
            spent, said = time.monotonic() - started, str(error)
            if not isinstance(error, VidpressError):
                said = (
                    f"{said.partition(chr(10))[0]} (ask with a lower max_new_tokens, or run with a memory that keeps "
                    f"fewer tokens: memory=window memory.recent=1024)"
                )
            record |= {"answer": None, "seconds": spent, "tokens_used": None, "error": said}
        except BaseException as error:
            asked.answered.set_exception(error)
            raise
        self.answered += 1
        self.status = self._session.status
        asked.answered.set_result(record)
        self._on_answer(record)
