"""Questions about a stream: those with a time, from the configuration or a file, and those that come while it runs."""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compressors.errors import InputError, VidpressError

KEYS = {"at", "question", "expected", "max_new_tokens"}
LONGEST = 4000  # characters
MOST_TOKENS = 4096  # of an answer: its room is set aside before it begins, so nobody may ask for any number


class Refused(VidpressError):
    """A question that is not answered: too many wait, or the stream is over."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        text: the question.
        at: seconds of stream after which it is asked; infinity is at the end, None as soon as possible.
        origin: file, setting, terminal, http or websocket.
        expected: the right answer, where it is known.
        max_new_tokens: None is the run's own.
    """

    text: str
    at: float | None = None
    origin: str = "setting"
    expected: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Asked:
    """A question on its way to its answer, which is a record as in `answers.jsonl`."""

    question: Question
    since: float
    answered: Future[dict[str, Any]] = field(default_factory=Future)


class Inbox:
    """Questions that come while the stream runs, in order; safe from any thread.

    Args:
        capacity: questions that may wait.
    """

    def __init__(self, capacity: int) -> None:
        self._waiting: deque[Asked] = deque()
        self._capacity, self._closed, self._lock = capacity, False, threading.Lock()

    def put(self, asked: Asked) -> None:
        """Raises Refused: too many wait, or the stream is over."""
        with self._lock:
            if self._closed:
                raise Refused("the stream has ended; nothing more is answered")
            if len(self._waiting) >= self._capacity:
                raise Refused(f"{self._capacity} questions wait already; ask again later")
            self._waiting.append(asked)

    def take(self) -> Asked | None:
        """The next question that its asker still waits for."""
        with self._lock:
            while self._waiting:
                asked = self._waiting.popleft()
                if asked.answered.set_running_or_notify_cancel():
                    return asked
            return None

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def close(self) -> None:
        """Take no more; what waited is refused."""
        with self._lock:
            self._closed = True
            waiting = [asked for asked in self._waiting if asked.answered.set_running_or_notify_cancel()]
            self._waiting.clear()
        for asked in waiting:
            asked.answered.set_exception(Refused("the stream ended before this was answered"))


def question_from(content: Any, where: str, origin: str, *, timed: bool) -> Question:
    """A question from a mapping, checked.

    Args:
        content: `question`, and if wanted `at` (seconds; absent is at the end), `expected`, `max_new_tokens`.
        where: for messages.
        origin: as in `Question`.
        timed: whether `at` and `expected` belong there.

    Raises:
        InputError: something is missing, unknown or out of range.
    """
    keys = KEYS if timed else {"question", "max_new_tokens"}
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: a question is a mapping with {', '.join(sorted(keys))}, not {content!r:.80}")
    if unknown := set(map(str, content)) - keys:
        raise InputError(f"{where}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(keys))}")
    text = content.get("question")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: question must be a text that is not empty")
    if len(text) > LONGEST:
        raise InputError(f"{where}: a question has at most {LONGEST} characters, this one has {len(text)}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{where}: question has half a character in it (a lone surrogate, \\ud800 to \\udfff)")
    at = content.get("at")
    if at is not None and (not _is_number(at) or not 0 <= at < math.inf):
        raise InputError(f"{where}: at={at} must be seconds from the start of the stream, 0 or more")
    tokens = content.get("max_new_tokens")
    if tokens is not None and (
        not isinstance(tokens, int) or isinstance(tokens, bool) or not 1 <= tokens <= MOST_TOKENS
    ):
        raise InputError(f"{where}: max_new_tokens={tokens} must be a whole number, 1 to {MOST_TOKENS}")
    expected = content.get("expected")
    moment = (math.inf if at is None else float(at)) if timed else None
    return Question(text.strip(), moment, origin, None if expected is None else str(expected), tokens)


def questions_from(contents: Iterable[Any], where: str, origin: str) -> list[Question]:
    """Questions with times, in the order of their times; those at one time in the order given.

    Raises:
        InputError: as `question_from`.
    """
    listed = enumerate(contents, start=1)
    found = [question_from(content, f"{where}, question {i}", origin, timed=True) for i, content in listed]
    return sorted(found, key=lambda question: math.inf if question.at is None else question.at)


def read_questions(path: Path) -> list[Question]:
    """Questions from a file: a YAML or JSON list, or JSON lines (`.jsonl`).

    Raises:
        InputError: the file cannot be read, or as `question_from`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            contents = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            contents = yaml.safe_load(text)  # JSON is YAML
    except OSError as error:
        raise InputError(f"questions={path}: cannot be read ({error.strerror})") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"questions={path}: neither YAML nor JSON lines ({' '.join(str(error).split())}); put questions in quotes"
        ) from error
    if not isinstance(contents, list) or not contents:
        raise InputError(f"questions={path}: write a list, as in - {{at: 12.5, question: 'Who is there?'}}")
    return questions_from(contents, str(path), "file")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
