"""The ways of answering that a benchmark times, and what one run of each gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters.clock import Clock
from adapters.report import Report
from adapters.timed import timed
from compressors.base import CacheReuser
from experiments.benchmarking.memory import PeakMemory
from vidpress import press

UNCOMPRESSED, RANDOM, NATIVE = "uncompressed", "random", "native"
BASELINES = (UNCOMPRESSED, RANDOM, NATIVE)
# What is timed of a call of `generate`; the first four are the clock's own stages.
STAGES = {
    "encode": "vision encoder",
    "compress": "compress",
    "prefill": "prefill",
    "decode": "decode",
    "step": "decode a token",
    "llm": "language model",
    "first_token": "first token",
    "generate": "whole generate",
}


@dataclass(frozen=True, eq=False)
class Variant:
    """One way of answering.

    Attributes:
        name: in tables.
        opened: attaches a press, or timers alone; gives the `Report` or the `Clock`.
        inputs: the prompt.
        length: tokens of a row that the language model sees.
        cacher: what reuses the vision tower's work, for counting it.
    """

    name: str
    opened: Callable[[], AbstractContextManager[Any]]
    inputs: dict[str, Tensor]
    length: int
    cacher: CacheReuser | None = None


def plain(model: Any, name: str, inputs: dict[str, Tensor], length: int) -> Variant:
    """The model as it is, with timers."""
    return Variant(name, lambda: timed(model), inputs, length)


def pressed(
    model: Any, name: str, inputs: dict[str, Tensor], length: int, compressor: Any, options: dict[str, Any]
) -> Variant:
    """The model under a press."""
    return Variant(name, lambda: press(model, compressor, **options), inputs, length, compressor.cacher)


@dataclass(frozen=True)
class Bench:
    """What runs variants.

    Attributes:
        model: the model.
        answer: tokens to generate; every run generates so many, whatever the model would end with.
        processor: time on the processor instead of the wall.
    """

    model: Any
    answer: int
    processor: bool = False

    def run(self, variant: Variant, memory: PeakMemory | None = None) -> dict[str, float]:
        """One run: seconds by the keys of `STAGES`."""
        with variant.opened() as opened:
            clock: Clock = opened.clock if isinstance(opened, Report) else opened
            if memory is None:
                self._generate(variant)
            else:
                clock.watcher = memory.watch
                with memory.measuring():
                    self._generate(variant)
            return self._seconds(clock)

    def requests_per_second(self, variant: Variant, threads: int) -> float:
        """Prompts answered per second of the wall's clock when so many threads ask at once, each a batch."""
        rows = variant.inputs["input_ids"].shape[0]
        with variant.opened(), ThreadPoolExecutor(threads) as pool:
            self._synchronize()
            start = time.perf_counter()
            list(pool.map(lambda _: self._generate(variant), range(threads)))
            self._synchronize()
            return threads * rows / (time.perf_counter() - start)

    def _generate(self, variant: Variant) -> None:
        self.model.generate(**variant.inputs, max_new_tokens=self.answer, min_new_tokens=self.answer, do_sample=False)

    def _seconds(self, clock: Clock) -> dict[str, float]:
        spent = clock.seconds(processor=self.processor)
        whole = clock.whole(processor=self.processor)
        return {
            **spent,
            "step": spent["decode"] / max(1, self.answer - 1),
            "llm": spent["compress"] + spent["prefill"] + spent["decode"],
            "first_token": whole - spent["decode"],
            "generate": whole,
        }

    def _synchronize(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
