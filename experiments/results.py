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

PACKAGES = ("vidpress", "torch", "transformers", "hydra-core", "av", "safetensors")


def output_folder() -> Path:
    """Hydra's output directory of this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a file in one step: a reader, or a crash, sees all of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
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
    """The git commit of the code, "with changes" if it was edited since; None where it is no checkout."""
    folder = Path(__file__).parent
    try:
        told = [
            subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
            for arguments in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return told[0].stdout.strip() + (" with changes" if told[1].stdout.strip() else "")
