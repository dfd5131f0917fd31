"""Peaks by stage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from experiments.benchmarking.memory import PeakMemory

MB = 1_000_000
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")


def hold(megabytes: int) -> None:
    held = torch.ones(megabytes * MB // 4)
    time.sleep(0.02)
    del held


def test_each_stage_has_its_own_peak() -> None:
    memory = PeakMemory(torch.device("cpu"))
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
    assert memory.peaks["encode"] == pytest.approx(100 * MB, abs=12 * MB)
    assert memory.peaks["prefill"] == pytest.approx(40 * MB, abs=12 * MB)
    assert memory.peaks["compress"] == pytest.approx(160 * MB, abs=12 * MB)
    assert memory.peaks["generate"] < 20 * MB, "a stage inside another counts for itself"
    assert memory.source == "resident set of the process"
