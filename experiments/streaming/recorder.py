"""What a stream leaves behind while it runs: its answers, and its state over time."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.scoring import normal

_NOTICES = 100


class Recorder:
    """Appends to `answers.jsonl` and `curve.jsonl` of a folder, line by line, so that a crash loses nothing.

    Args:
        folder: where to.
        every: seconds between samples of the state.

    Attributes:
        answers: how many there were: `all`, `failed`, `expected` (whose right answer is known) and `right`.
        notices: the last of them, with the seconds since the start.
    """

    def __init__(self, folder: Path, every: float) -> None:
        self._answers = (folder / "answers.jsonl").open("a", encoding="utf-8")
        self._curve = (folder / "curve.jsonl").open("a", encoding="utf-8")
        self._every, self._next, self._started = every, 0.0, time.monotonic()
        self._lock = threading.Lock()
        self.answers = Counter(all=0, failed=0, expected=0, right=0)
        self.notices: deque[dict[str, Any]] = deque(maxlen=_NOTICES)

    def show(self, status: Mapping[str, Any]) -> None:
        """A sample, if it is time for one, and always of the end."""
        if time.monotonic() >= self._next or status["state"] == "ended":
            self._next = time.monotonic() + self._every
            _append(self._curve, status)

    def say(self, answer: Mapping[str, Any]) -> None:
        """An answer's record."""
        with self._lock:
            _append(self._answers, answer)
            self.answers["all"] += 1
            self.answers["failed"] += answer["error"] is not None
            if answer["expected"] is not None:
                self.answers["expected"] += 1
                self.answers["right"] += normal(answer["answer"] or "") == normal(answer["expected"])

    def notice(self, text: str) -> None:
        """What the user should know."""
        self.notices.append({"elapsed": time.monotonic() - self._started, "text": text})

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.close()
        self._curve.close()


def _append(file: Any, record: Mapping[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()
