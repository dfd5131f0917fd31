"""Benchmark requests with the library's own processors, where the `hf` extra is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="the `hf` extra is not installed")
def test_every_family_in_batches() -> None:
    """Texts, images and videos in any order: a batch answers as one by one, and inputs are those of `prompt`."""
    program = [sys.executable, "-m", "tests.experiments.lmms.with_processors"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
