"""Peaks by stage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from experiments.benchmarking.memory import PeakMemory, TensorMemory, model_memory

MB = 1_000_000


def hold(megabytes: int) -> None:
    held = torch.ones(megabytes * MB // 4)
    time.sleep(0.02)
    del held


def stages(memory: PeakMemory) -> None:
    with memory.measuring():
        memory.watch("generate", True)
        memory.watch("encode", True)
        hold(100)
        memory.watch("encode", False)
        memory.watch("prefill", True)
        hold(40)
        memory.watch("compress", True)
        hold(160)
        memory.watch("compress", False)
        memory.watch("prefill", False)
        memory.watch("generate", False)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_each_stage_has_its_own_peak() -> None:
    memory = PeakMemory(torch.device("cpu"))
    stages(memory)
    assert memory.peaks["encode"] == pytest.approx(100 * MB, abs=12 * MB)
    assert memory.peaks["prefill"] == pytest.approx(40 * MB, abs=12 * MB)
    assert memory.peaks["compress"] == pytest.approx(160 * MB, abs=12 * MB)
    assert memory.peaks["generate"] < 20 * MB, "a stage inside another counts for itself"
    assert memory.source == "resident set of the process"


def test_tensors_are_counted() -> None:
    memory = model_memory(torch.device("cpu"))
    for _ in range(2):
        stages(memory)
        want = {"generate": 0, "encode": 100 * MB, "prefill": 40 * MB, "compress": 160 * MB}
        assert memory.peaks == want
    assert memory.source == "tensors alive, counted"


def test_what_was_there_before_and_views_count_nothing() -> None:
    memory, weight = TensorMemory(), torch.ones(1000)
    with memory.measuring():
        memory.watch("prefill", True)
        weight.mul_(2)
        parts = weight.view(10, 100).unbind()
        made = parts[0] + 1
        again = made[:50]
        del made
        again.neg()
        memory.watch("prefill", False)
    assert memory.peaks == {"prefill": 400 + 200}
