"""What is seen while a stream runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from experiments.display import facts

_ANSWERS, _NOTICES = 5, 3  # the last ones, shown
Status = Mapping[str, Any]


class Watcher(Protocol):
    """Something that is told how a stream goes; safe from any thread."""

    def show(self, status: Status) -> None:
        """The state of things; told several times a second."""

    def say(self, answer: Mapping[str, Any]) -> None:
        """An answer's record."""

    def notice(self, text: str) -> None:
        """What the user should know."""


def view_for(console: Console, title: str, every: float, typed: Callable[[], str] | None = None) -> Lines | LiveView:
    """A live view where `console` is a terminal, else lines, with the state every so many seconds.

    Args:
        console: where to.
        title: of the stream.
        every: seconds between lines that tell the state.
        typed: what has been typed so far of a question; None where none can be.
    """
    return LiveView(console, title, typed) if console.is_terminal else Lines(console, title, every)


class Lines:
    """One line per answer and notice, and one for the state now and then."""

    def __init__(self, console: Console, title: str, every: float) -> None:
        self._console, self._title, self._every = console, title, every
        self._next = time.monotonic() + every

    def show(self, status: Status) -> None:
        """A line, if it is time for one."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._print("; ".join(f"{name} {value}" for name, value in rows(status).items()))

    def say(self, answer: Mapping[str, Any]) -> None:
        """The question and its answer."""
        self._print(spoken(answer))

    def notice(self, text: str) -> None:
        """The text."""
        self._print(f"note: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def __enter__(self) -> Lines:
        self._print(f"stream: {self._title}")
        return self

    def __exit__(self, *_: object) -> None:
        return None


class LiveView:
    """A panel that is drawn over and over, with the last answers and notices, and what is being typed."""

    def __init__(self, console: Console, title: str, typed: Callable[[], str] | None) -> None:
        self._title, self._typed = title, typed
        self._status: Status = {}
        self._answers: deque[str] = deque(maxlen=_ANSWERS)
        self._notices: deque[str] = deque(maxlen=_NOTICES)
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=8)

    def show(self, status: Status) -> None:
        """Shown at the next refresh."""
        self._status = status

    def say(self, answer: Mapping[str, Any]) -> None:
        """Among the last answers."""
        self._answers.append(spoken(answer))

    def notice(self, text: str) -> None:
        """Among the last notices."""
        self._notices.append(text)

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = [facts(rows(self._status))] if self._status else []
        for heading, texts in (("answers", tuple(self._answers)), ("notes", tuple(self._notices))):
            if texts:
                parts += [Rule(heading, style="dim"), *(Text(text) for text in texts)]
        if self._typed is not None:
            parts += [Rule("type a question, Enter asks it; Ctrl-C ends", style="dim"), Text(f"? {self._typed()}▏")]
        return Panel(Group(*parts), title=Text(self._title), title_align="left")

    def __enter__(self) -> LiveView:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._typed = None
        self._live.refresh()
        self._live.stop()


def rows(status: Status) -> dict[str, str]:
    """The state in words: names and values."""
    frames, fps, tokens, held = status["frames"], status["fps"], status["tokens"], status["bytes"]
    policy = status["policy"] + (f", every {_nth(status['stride'])} frame" if status["stride"] > 1 else "")
    passed = (
        ("sampled away", "skipped"),
        ("thinned", "thinned"),
        ("dropped", "dropped"),
        ("broken", "broken"),
        ("rescaled", "rescaled"),
        ("left", "left"),
    )
    told = "".join(f", {frames[key]} {name}" for name, key in passed if frames[key])
    shown = {
        "stream": f"{seconds(status['stream_seconds'])} in {seconds(status['elapsed'])}, {status['state']}",
        "frames": f"{frames['seen']} seen, {frames['handled']} handled{told}, {frames['waiting']} waiting ({policy})",
        "rate": f"{fps['seen']:.1f} frames/s in, {fps['handled']:.1f} handled",
        "lag": "–" if status["lag"] is None else f"{status['lag']:.2f} s (at most {status['longest_lag']:.2f} s)",
        "tokens": f"{tokens['seen']} seen, {tokens['kept']} kept, {tokens['held']} held",
        "memory": ", ".join(f"{size(held[place])} {place}" for place in ("device", "host", "disk")),
        "reuse": "–" if status["reuse"] is None else f"{status['reuse']:.0%} of the encoder's tokens",
        "questions": f"{status['questions']['answered']} answered, {status['questions']['waiting']} waiting",
    }
    if stages := {name: spent["median"] for name, spent in status["stages"].items() if spent["median"]}:
        shown["medians"] = ", ".join(f"{name} {1000 * spent:.1f} ms" for name, spent in stages.items())
    if status["reconnections"]:
        shown["reconnected"] = f"{status['reconnections']} times"
    return shown


def spoken(answer: Mapping[str, Any]) -> str:
    """A question and its answer in one line, without what could move a terminal's cursor."""
    moment = f"[{answer['asked_at']:.1f} s]" if answer["asked_at"] is not None else "[–]"
    if answer["error"] is not None:
        told = f"{moment} {answer['question']} → error: {answer['error']}"
    else:
        expected = "" if answer["expected"] is None else f" (right: {answer['expected']})"
        told = f"{moment} {answer['question']} → {answer['answer']}{expected} ({answer['seconds']:.2f} s)"
    return "".join(letter if letter.isprintable() else " " for letter in told)


def seconds(value: float | None) -> str:
    """`12.5 s`, `3:07 min`, `2:05:09 h`."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def size(number: float) -> str:
    """Bytes, as `3.4 MiB`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    step = min(len(units) - 1, max(0, math.floor(math.log2(max(number, 1)) / 10)))
    return f"{number / 1024**step:.{1 if step else 0}f} {units[step]}"


def _nth(number: int) -> str:
    return f"{number}nd" if number in (2, 32) else f"{number}th"  # powers of two, up to 64
