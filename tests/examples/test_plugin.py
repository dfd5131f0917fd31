"""The example plugin, installed into an environment of its own and used by name on the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed in it, as `pip install` does, without an index."""
    folder = tmp_path_factory.mktemp("plugin")
    # A copy: building leaves files beside the sources.
    source = shutil.copytree(ROOT / "examples" / "plugin", folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "site"


def vidpress(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python run.py` where the plugin is installed."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_the_plugins_selector_is_wrapped_by_fca(site: Path, tmp_path: Path) -> None:
    """Its selector under our allocator, by name, with a parameter: budgets are those of vidcom2 on the same clip."""
    common = ("task.baseline=false", "task.warmup=false", "task.repeats=1", "max_new_tokens=1", "hydra.run.dir=.")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    plugin = ("scorer=none", "selector=centre_first", "selector.row=0.4", "allocator=fca")
    for folder, arguments in ((ours, ()), (theirs, plugin)):
        done = vidpress(site, folder, *arguments, *common)
        assert done.returncode == 0, done.stderr
    ours_result, theirs_result = (json.loads((folder / "result.json").read_text()) for folder in (ours, theirs))
    assert theirs_result["config"]["selector"] == {"name": "centre_first", "row": 0.4, "column": 0.5}
    assert theirs_result["budgets"] == ours_result["budgets"]
    assert len(set(theirs_result["budgets"])) > 1


def test_the_plugins_method_and_the_rules_for_ours_hold(site: Path, tmp_path: Path) -> None:
    """Its method is listed, composes, and says the same in YAML as in Python."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    subprocess.run([sys.executable, "-m", "tests.examples.agreement"], cwd=tmp_path, env=environment, check=True)
    page = vidpress(site, tmp_path, "--help")
    assert page.returncode == 0, page.stderr
    assert "centre_first" in page.stdout
    assert "tokens nearest to the middle of the frame [example plugin]" in page.stdout
