"""Settings of `task=stream`, checked before anything slow starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressors.errors import InputError


def number(key: str, value: Any, least: float, *, whole: bool = False) -> float:
    """A finite number, `least` or more.

    Raises:
        InputError: it is not.
    """
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < least or (whole and int(value) != value):
        raise InputError(f"{key}={value} must be {'a whole number' if whole else 'a number'}, {least:g} or more.")
    return float(value)


def number_or_none(key: str, value: Any, least: float) -> float | None:
    """As `number`, where null is allowed."""
    return None if value is None else number(key, value, least)


def one_of(key: str, value: Any, choices: Sequence[Any]) -> Any:
    """One of several values.

    Raises:
        InputError: another one.
    """
    if value not in choices:
        known = " | ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices)
        raise InputError(f"{key}={value}: write {known}.")
    return value


def path(key: str, value: Any, example: str) -> Path:
    """A path, with ~ for the home folder.

    Raises:
        InputError: none was given.
    """
    if value is None or not str(value):
        raise InputError(f"{key} is not set: {key}={example}")
    return Path(str(value)).expanduser()


def texts(key: str, value: Mapping[str, Any] | None) -> dict[str, str]:
    """Names and values as texts.

    Raises:
        InputError: no mapping.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) and not hasattr(value, "items"):
        raise InputError(f"{key}={value}: write {{name: value}}, as in '{key}={{rtsp_transport: tcp}}'.")
    return {str(name): str(item) for name, item in value.items()}
