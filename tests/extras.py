"""The packages of the `hf` extra, for the tests that run the library's own processors.

`make` installs them into a folder of their own, which only the programs of those tests see: torchvision's wheel is a
CUDA build, which cannot be imported as it is beside a CPU build of torch, nor can transformers, which looks for it.
The programs prepare it first. Everything else is tested without the extra, which is how `make demo` runs.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-processors"
PACKAGES = ("torchvision", "PIL", "num2words", "timm")


# CI has them: there it is a failure, not a reason to skip, that one is missing.
EXPECTED = os.environ.get("CI") == "true" and sys.platform == "linux" and platform.machine() == "x86_64"


def missing() -> list[str]:
    """Those that are installed neither in the folder nor beside everything else."""
    return [package for package in PACKAGES if PathFinder.find_spec(package, [*sys.path, str(FOLDER)]) is None]


needs_processors = pytest.mark.skipif(
    bool(missing()) and not EXPECTED, reason="the `hf` extra is not installed (make test installs it)"
)


def run(module: str) -> None:
    """Run a program of the tests that first calls `prepare_torchvision`; it fails with what the program printed."""
    assert not missing(), f"not installed: {', '.join(missing())} (make test installs them)"
    path = [os.environ.get("PYTHONPATH", ""), str(FOLDER)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
