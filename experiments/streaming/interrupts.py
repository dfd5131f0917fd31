"""Ctrl-C, and the signal that ends services."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_PATIENCE = 2  # of them are left to whoever counts


class Interrupts:
    """Counts SIGINT and SIGTERM for as long as the context is open.

    They would raise `KeyboardInterrupt` wherever the main thread happens to be, and there it may just have taken a lock
    that other threads wait for. Beyond the second one they do all the same.

    Attributes:
        count: so far; stays 0 where the context is not opened by the main thread, which alone can hear signals.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > _PATIENCE:
            raise KeyboardInterrupt

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
