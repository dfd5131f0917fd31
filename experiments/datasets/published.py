"""What data sets in a published form share: their settings, and their problems told all at once."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from compressors.errors import InputError

SHOWN = 20  # problems spelled out in an error
FIRST_FRAME = 1e-3  # a question at second 0 sees the first frame


class Problems(list[str]):
    """What is wrong with a file, collected while it is read."""

    def tell(self, path: Path) -> None:
        """Raise them, if there are any.

        Raises:
            InputError: naming up to `SHOWN` of them.
        """
        if self:
            more = f"\n… and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
            raise InputError(f"{path} cannot be used:\n" + "\n".join(self[:SHOWN]) + more)


def annotation_file(data: DictConfig, example: str) -> Path:
    """The file that `data.path` names.

    Raises:
        InputError: none is named, or it is not there.
    """
    if not data.path:
        raise InputError(f"data={data.name} needs its annotation file: data.path={example}")
    path = Path(str(data.path)).expanduser()
    if not path.is_file():
        raise InputError(f"data.path={data.path}: no such file.")
    return path


def video_folder(data: DictConfig, path: Path) -> Path:
    """The folder of the videos: `data.videos`, or else the annotation file's own.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(str(data.videos)).expanduser() if data.videos else path.parent
    if not folder.is_dir():
        raise InputError(f"data.videos={data.videos}: no such folder.")
    return folder


def chosen_tasks(data: DictConfig, known: Collection[str]) -> list[str]:
    """The tasks that `data.tasks` names, all that are known by default.

    Raises:
        InputError: one is not known, or the list is empty.
    """
    if data.tasks is None:
        return list(known)
    names = [name.strip() for name in data.tasks.split(",")] if isinstance(data.tasks, str) else list(data.tasks)
    wrong = [str(name) for name in names if name not in known]
    if wrong or not names:
        raise InputError(f"data.tasks: no {', '.join(wrong) or 'empty list'}; known: {', '.join(known)}.")
    return names


def until(seconds: float) -> float:
    """Where a clip ends that is shown up to a question's time; at least its first frame is shown."""
    return max(seconds, FIRST_FRAME)


def seconds_of(value: Any) -> float | None:
    """Seconds from a number or from `[H:]M:S` (also `S` as text); None if it is neither."""
    if isinstance(value, str):
        match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", value.strip())
        if not match:
            return None
        hours, minutes, rest = match.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
        return None
    return float(value)


def text_of(row: Mapping[str, Any], name: str) -> str | None:
    """A field that must be a text; None if it is missing, empty or something else."""
    value = row.get(name)
    return value.strip() if isinstance(value, str) and value.strip() else None


def texts_of(value: Any) -> Sequence[str] | None:
    """Options: a list of two or more texts; None if it is anything else."""
    if not isinstance(value, (list, tuple)) or not 2 <= len(value) <= 26:
        return None
    texts = [str(item).strip() for item in value if isinstance(item, (str, int, float)) and str(item).strip()]
    return texts if len(texts) == len(value) else None
