"""Result files: complete or absent, and saying which versions made them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

ROOT = Path(__file__).resolve().parent.parent
CODE = ("compressors", "adapters", "conf", "experiments", "run.py", "vidpress.py")
PACKAGES = ("vidpress", "torch", "transformers", "hydra-core", "av", "safetensors")


def output_folder() -> Path:
    """Hydra's output directory of this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file in one step."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Write a file in one step: a reader, or a crash, sees all of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # vidpress itself, when run from a checkout that was not installed
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """The git commit of the code that runs, "abc1234 with changes" if it was changed since; None outside a checkout.

    A copy that was installed into some other project's checkout has no commit: only tracked files do.
    """
    try:
        _git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        name = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, no commit yet
        return None
    return f"{name} with changes" if changed else name


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, stdin=subprocess.DEVNULL)
    return done.stdout.strip()
