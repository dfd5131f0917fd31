"""What happens before the model: stages on the CPU that all variants share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from experiments.benchmarking.memory import PeakMemory

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Before:
    """Times these stages, and measures their memory.

    Attributes:
        repeats: timed runs of each.
        processor: by the processor time of this process instead of the wall's clock.
        memory: measures peaks, in a run that is not timed; None measures none.
        seconds: stage -> seconds of every timed run.
        peaks: stage -> bytes over what was held before it.
    """

    repeats: int
    processor: bool = False
    memory: PeakMemory | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    def run(self, stage: str, call: Callable[[], Outcome]) -> Outcome:
        """Run a stage: once untimed, once more for its memory, then timed. Returns the last outcome."""
        now = time.process_time if self.processor else time.perf_counter
        outcome = call()
        if self.memory is not None:
            with self.memory.measuring():
                self.memory.watch(stage, True)
                outcome = call()
                self.memory.watch(stage, False)
            self.peaks.update(self.memory.peaks)
        spent = self.seconds[stage] = []
        for _ in range(self.repeats):
            start = now()
            outcome = call()
            spent.append(now() - start)
        return outcome
