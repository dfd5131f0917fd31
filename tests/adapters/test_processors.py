"""The whole way with the library's own processors, where the `hf` extra is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="the `hf` extra is not installed")
def test_from_file_to_answer() -> None:
    """mp4 file -> frames -> the family's processor -> generate under press, for every family."""
    program = [sys.executable, "-m", "tests.adapters.from_file_to_answer"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
