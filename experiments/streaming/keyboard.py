"""Questions typed on a terminal while the view is drawn over and over."""

from __future__ import annotations

import codecs
import os
import select
import termios
import threading
import tty
from collections.abc import Callable
from typing import Any

_POLL = 0.1  # seconds between looks at the flag
_ENTER, _ERASE, _CLEAR, _ESCAPE = "\r\n", "\x7f\b", "\x15", "\x1b"


class Line:
    """A line that is being typed: characters in, whole lines out. Arrow keys and the like are left out."""

    def __init__(self) -> None:
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escaped = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes finished."""
        done = []
        for key in self._decoder.decode(data):
            if self._escaped:
                # ESC [ … letter, or ESC and one key.
                self._escaped += key
                if key not in "[O" if len(self._escaped) == 2 else key.isalpha() or key == "~":
                    self._escaped = ""
            elif key == _ESCAPE:
                self._escaped = key
            elif key in _ENTER:
                done.append(self.text)
                self.text = ""
            elif key in _ERASE:
                self.text = self.text[:-1]
            elif key == _CLEAR:
                self.text = ""
            elif key.isprintable():
                self.text += key
        return [line for line in done if line.strip()]


class Keyboard:
    """Reads a terminal for as long as the context is open. Ctrl-C works as ever.

    Args:
        descriptor: of the terminal.
        quiet: key by key and without the terminal's echo, for a view that shows what is typed itself; else by lines.
        on_line: takes every line that is typed, on a thread of its own.
    """

    def __init__(self, descriptor: int, on_line: Callable[[str], None], *, quiet: bool) -> None:
        self._descriptor, self._on_line, self._quiet = descriptor, on_line, quiet
        self._line, self._end = Line(), threading.Event()
        self._thread = threading.Thread(target=self._read, name="vidpress-keyboard", daemon=True)
        self._before: list[Any] | None = None

    def typed(self) -> str:
        """What has been typed of the next line."""
        return self._line.text

    def _read(self) -> None:
        while not self._end.is_set():
            if select.select([self._descriptor], [], [], _POLL)[0]:
                data = os.read(self._descriptor, 1024)
                if not data:
                    return
                for line in self._line.feed(data):
                    self._on_line(line)

    def __enter__(self) -> Keyboard:
        if self._quiet:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor, termios.TCSANOW)  # keeps what was typed before
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
