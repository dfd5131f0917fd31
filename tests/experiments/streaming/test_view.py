"""What is shown, on a terminal and elsewhere; and what is typed."""

from __future__ import annotations

import io
import os
import time
from typing import Any

from rich.console import Console

from experiments.streaming.keyboard import Keyboard, Line
from experiments.streaming.view import Lines, LiveView, rows, seconds, size, spoken, view_for

STATUS: dict[str, Any] = {
    "state": "running",
    "elapsed": 75.0,
    "stream_seconds": 12.5,
    "frames": {
        "seen": 100, "skipped": 60, "thinned": 0, "dropped": 7, "handled": 30,
        "waiting": 3, "left": 0, "broken": 2, "rescaled": 0,
    },
    "fps": {"seen": 10.0, "handled": 2.5},
    "policy": "lower_rate",
    "stride": 2,
    "lag": 1.5,
    "longest_lag": 2.25,
    "reconnections": 1,
    "tokens": {"seen": 1000, "kept": 250, "held": 200},
    "bytes": {"device": 2048, "host": 3 * 2**20, "disk": 0},
    "reuse": 0.375,
    "stages": {"encode": {"last": 0.2, "median": 0.0125}, "answer": {"last": 0.0, "median": 0.0}},
    "questions": {"answered": 1, "waiting": 0},
}  # fmt: skip
ANSWER = {
    "question": "What [bold]?",
    "answer": "a ring",
    "asked_at": 3.0,
    "expected": None,
    "error": None,
    "seconds": 0.5,
}


def test_every_figure_is_told() -> None:
    told = rows(STATUS)
    assert told["frames"] == (
        "100 seen, 30 handled, 60 sampled away, 7 dropped, 2 broken, 3 waiting (lower_rate, every 2nd frame)"
    )
    assert (told["rate"], told["lag"]) == ("10.0 frames/s in, 2.5 handled", "1.50 s (at most 2.25 s)")
    assert told["tokens"] == "1000 seen, 250 kept, 200 held"
    assert told["memory"] == "2.0 KiB device, 3.0 MiB host, 0 B disk"
    assert (told["reuse"], told["reconnected"]) == ("38% of the encoder's tokens", "1 times")
    assert told["medians"] == "encode 12.5 ms"
    assert spoken({**ANSWER, "answer": "a\n\x1b[2Jring"}) == "[3.0 s] What [bold]? → a  [2Jring (0.50 s)"
    assert [seconds(value) for value in (None, 5, 187, 7509)] == ["–", "5.0 s", "3:07 min", "2:05:09 h"]
    assert size(5 * 2**50) == "5120.0 TiB"


def test_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    view = view_for(Console(file=out, width=20), "clip", every=0.05)
    assert isinstance(view, Lines)
    with view:
        view.show(STATUS)  # too soon
        view.notice("beware")
        view.say(ANSWER)
        view.say({**ANSWER, "error": "cannot", "answer": None})
        time.sleep(0.06)
        view.show(STATUS)
        view.show(STATUS)
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["stream: clip", "note: beware"]
    assert lines[2:4] == ["[3.0 s] What [bold]? → a ring (0.50 s)", "[3.0 s] What [bold]? → error: cannot"]
    assert len(lines) == 5
    assert lines[4].startswith("stream 12.5 s in 1:15 min, running; frames 100 seen")


def test_a_live_view_on_a_terminal() -> None:
    out = io.StringIO()
    view = view_for(Console(file=out, force_terminal=True, width=100), "clip", 5, typed=lambda: "which sh")
    assert isinstance(view, LiveView)
    with view:
        view.show(STATUS)
        view.notice("beware")
        for _ in range(9):
            view.say(ANSWER)
        view._live.refresh()
    drawn = out.getvalue()
    for part in ("clip", "100 seen", "38%", "a ring", "beware", "? which sh▏"):
        assert part in drawn
    assert "which sh" not in drawn[drawn.rindex("╭") :], "the last picture has no line to type on"
    assert drawn[drawn.rindex("╭") :].count("a ring") == 5


def test_a_line_is_typed() -> None:
    line = Line()
    assert line.feed("What wasx\x7f thé".encode()[:-1]) == []
    assert line.text == "What was th"
    assert line.feed("é".encode()[-1:] + b"\x1b[D\x1bOA\x1b[3~re?\n") == ["What was thére?"]
    assert (line.feed(b"\n \n"), line.text) == ([], "")
    assert line.feed(b"no\x15yes\ragain\n") == ["yes", "again"]


def test_a_terminal_is_read_without_its_echo_and_left_as_it_was() -> None:
    import termios

    ours, theirs = os.openpty()
    lines: list[str] = []
    try:
        before = termios.tcgetattr(theirs)
        with Keyboard(theirs, lines.append, quiet=True) as keyboard:
            os.write(ours, b"hello\nwor")
            deadline = time.monotonic() + 5
            while keyboard.typed() != "wor" and time.monotonic() < deadline:
                time.sleep(0.01)
            assert (lines, keyboard.typed()) == (["hello"], "wor")
            assert not termios.tcgetattr(theirs)[3] & termios.ECHO
            assert termios.tcgetattr(theirs)[3] & termios.ISIG, "Ctrl-C is a signal still"
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
