"""Sweeps in processes of their own: one job that fails leaves the others' results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOBS = ("retention=0.1,2,0.5", "task.baseline=false", "task.warmup=false", "task.repeats=1", "max_new_tokens=4")
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "hydra.launcher.timeout_min=5"),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failing_job_leaves_the_others(tmp_path: Path, launcher: str) -> None:
    package, setting = LAUNCHERS[launcher]
    pytest.importorskip(package)
    command = [sys.executable, str(ROOT / "run.py"), "-m", f"hydra/launcher={launcher}", setting, *JOBS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "error: retention=2 is outside (0, 1]" in done.stderr
    assert "Traceback" not in done.stderr
    results = sorted(json.loads(path.read_text())["tokens"]["kept"] for path in tmp_path.rglob("result.json"))
    assert results == [26, 128]
    (error,) = tmp_path.rglob("error.json")
    assert "retention=2 is outside" in json.loads(error.read_text())["error"]
    folders = {path.parent.name for path in tmp_path.rglob("*.json")}
    assert folders == {"0", "1", "2"}
