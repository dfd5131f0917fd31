"""Peak memory per stage: what PyTorch allocated on a GPU, what the process held (resident set) on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

INTERVAL = 0.001  # seconds between two looks at the resident set
_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Peaks by stage, over what was held before. Hand `watch` to `Clock.watcher`, and run inside `measuring`.

    A stage inside another counts for itself alone. The CPU's figure is the process's resident set, sampled every
    millisecond and at each change of stage, where the allocator is made to give back what it holds in reserve.

    Attributes:
        peaks: stage -> bytes over those held when measuring began.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peaks: dict[str, int] = {}
        self._stages: list[str] = []
        self._before = 0
        self._lock = threading.Lock()

    @property
    def source(self) -> str | None:
        """What is measured, in words; None where this system does not say."""
        if self.device.type == "cuda":
            return "allocated by PyTorch on the GPU"
        return "resident set of the process" if _STATM.exists() else None

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure while the block runs; one thread may generate in it."""
        if self.source is None:
            yield
            return
        self.peaks, self._stages = {}, []
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            yield
            self._note()
            return
        gc.collect()
        _trim()
        self._before = resident()
        done = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(done,), daemon=True)
        sampler.start()
        try:
            yield
        finally:
            done.set()
            sampler.join()

    def watch(self, stage: str, begins: bool) -> None:
        """A stage begins or ends."""
        if self.source is None:
            return
        self._note()  # for the stage so far
        if self.device.type != "cuda":
            _trim()  # or the next stage would be charged for this one's leftovers
        with self._lock:
            if begins:
                self._stages.append(stage)
            elif stage in self._stages:
                self._stages.remove(stage)

    def _sample(self, done: threading.Event) -> None:
        while not done.wait(INTERVAL):
            self._note()

    def _note(self) -> None:
        if self.device.type == "cuda":
            held = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            held = resident()
        with self._lock:
            if self._stages:
                stage = self._stages[-1]
                self.peaks[stage] = max(self.peaks.get(stage, 0), held - self._before)


def _trim() -> None:
    """Have the allocator return what it holds in reserve, so that what is asked for next shows (glibc alone can)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def anonymous() -> int:
    """Bytes that this process allocated itself, in main memory or swapped out (Linux; elsewhere an OSError).

    What it maps from files is not in it: under pressure the kernel drops such pages, and `resident` falls.
    """
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return sum(1024 * int(fields[name].split()[0]) for name in ("RssAnon", "VmSwap"))


def resident() -> int:
    """Bytes of main memory that this process holds (Linux; elsewhere an OSError)."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
