"""Peak memory per stage: what PyTorch allocated on a GPU, tensors alive on a CPU; of a process, its resident set."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

INTERVAL = 0.001  # seconds between two looks at the resident set
_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Peaks by stage, over what was held before. Hand `watch` to `Clock.watcher`, and run inside `measuring`.

    A stage inside another counts for itself alone. On a CPU it is the process's resident set, sampled every millisecond
    and at each change of stage, where the allocator is made to give back what it holds in reserve.

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


class TensorMemory(PeakMemory):
    """Peaks of the tensors alive that were made since measuring began, counted; the same in every run.

    What a kernel uses inside itself is not in it.
    """

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self._alive = _Alive(self._note)

    @property
    def source(self) -> str:
        return "tensors alive, counted"

    @contextmanager
    def measuring(self) -> Iterator[None]:
        self.peaks, self._stages = {}, []
        self._alive = _Alive(self._note)
        gc.collect()
        with self._alive:
            yield

    def watch(self, stage: str, begins: bool) -> None:
        self._note()
        if begins:
            self._stages.append(stage)
        elif stage in self._stages:
            self._stages.remove(stage)

    def _note(self) -> None:
        if self._stages:
            self.peaks[self._stages[-1]] = max(self.peaks.get(self._stages[-1], 0), self._alive.bytes)


def model_memory(device: torch.device) -> PeakMemory:
    """What measures a model on this device."""
    return PeakMemory(device) if device.type == "cuda" else TensorMemory()


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of storages that operations made and nobody has let go of; those that were there before count nothing."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._note, self._known = note, dict[int, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._meet(tensor, counts=False)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._meet(tensor, counts=True)
        self._note()
        return result

    def _meet(self, tensor: Tensor, *, counts: bool) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            size = storage.nbytes() if counts else 0
            self._known[storage._cdata] = size
            self.bytes += size
            weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self.bytes -= self._known.pop(key, 0)


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
