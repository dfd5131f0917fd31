"""The kernels where Triton is installed, without a GPU: interpreted, and compiled for one; each in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compressors import kernels

ROOT = Path(__file__).parents[3]
PROGRAMS = {
    "interpreted": ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/compressors/kernels/interpreted.py"],
    "compiled": ["-m", "tests.compressors.kernels.compiled"],
}


@pytest.mark.skipif(not kernels.installed(), reason="Triton is not installed; `make test` installs it on Linux")
@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels(name: str, tmp_path: Path) -> None:
    settings = {"TRITON_INTERPRET": "1" if name == "interpreted" else "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *PROGRAMS[name]],
        cwd=ROOT,
        env=os.environ | settings | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
