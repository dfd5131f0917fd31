"""What `pip install` installs: code, configurations, the embedded model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("compressors", "adapters", "conf", "experiments")
FILES = ("run.py", "vidpress.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("vidpress-*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_every_source_file_is_in_the_wheel(wheel: set[str]) -> None:
    wanted = {"run.py", "vidpress.py"}
    for room in ROOMS:
        for pattern in ("**/*.py", "**/*.yaml", "**/*.json", "micro/weights/*"):
            wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / room).glob(pattern) if path.is_file()}
    assert not wanted - wheel


def test_nothing_else_is_installed(wheel: set[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    assert top == {*ROOMS, "run.py", "vidpress.py"} | {name for name in top if name.endswith(".dist-info")}
