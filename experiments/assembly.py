"""From a composed configuration to a compressor and its budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

import compressors  # noqa: F401  (registers every part)
from compressors.base import Compressor
from compressors.budget import Budget
from compressors.build import build
from compressors.errors import BuildError, InputError
from compressors.methods import PARTS, method
from experiments.frames import frames_setting

POSITIONS = ("original", "contiguous")
NEWLINES = ("raster", "last")
NUMBERS: Mapping[str, tuple[type, float]] = {
    "fps": (float, 0.001),
    "max_new_tokens": (int, 1),
    "seed": (int, 0),
    "task.repeats": (int, 1),
    "task.batch": (int, 1),
    "task.chunk": (int, 1),
    "task.threads": (int, 1),
    "task.height": (int, 28),
    "task.width": (int, 28),
    "task.prompt_length": (int, 1),
}


def compressor_from(cfg: DictConfig) -> Compressor:
    """The compressor that `compressor` and the part groups describe, with the cacher that works before it.

    Raises:
        UnknownNameError, BuildError: as `compressors.build.build`.
    """
    own = _mapping(cfg.compressor)
    name = own.pop("name")
    parts = {kind: _mapping(cfg[kind]) for kind in PARTS}
    if method(name).compressor is not None:
        # For a method that does not split into parts, "none" means that nothing was asked for.
        parts = {kind: spec for kind, spec in parts.items() if spec["name"] != "none"}
    return build(name, **parts, cacher=_mapping(cfg.cacher), **own)


def budget_from(cfg: DictConfig) -> dict[str, Any]:
    """The budget as keyword arguments of `press`, checked before anything slow starts.

    Raises:
        BudgetError: two are given, or one is out of range.
    """
    stated = {key: cfg[key] for key in ("retention", "tokens", "tokens_per_frame")}
    Budget(**stated)
    return {key: value for key, value in stated.items() if value is not None}


def check_numbers(cfg: DictConfig) -> None:
    """Settings that must be numbers; null is allowed where the default is null, and `frames` may be auto.

    Raises:
        InputError: something else was given.
        BudgetError: frames=auto without a token budget.
    """
    frames_setting(cfg)
    for key, (kind, least) in NUMBERS.items():
        value: Any = OmegaConf.select(cfg, key)
        absent = key.startswith("task.") and key.partition(".")[2] not in cfg.task
        if value is None and (key in ("fps", "task.prompt_length") or absent):
            continue
        fits = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not fits or float(value) < least:
            what = "a whole number" if kind is int else "a number"
            raise InputError(f"{key}={value} must be {what}, {least} or more.")


def refuse_streams(cfg: DictConfig, *groups: str) -> None:
    """Settings of streams, `memory` and `source`, where a task shows whole clips: they would do nothing.

    Args:
        cfg: the configuration.
        groups: those that mean nothing to the task.

    Raises:
        InputError: one of them is chosen.
    """
    for group in groups:
        name = OmegaConf.select(cfg, f"{group}.name", default="none")
        if name != "none":
            where = "task=stream or task=evaluate" if group == "memory" else "task=stream"
            raise InputError(f"{group}={name} is for streams, and task={cfg.task.name} makes none: write {where}.")


def layout_from(cfg: DictConfig) -> dict[str, str]:
    """Where kept tokens and newlines sit, as `press` takes it.

    Raises:
        BuildError: something else than the values it knows.
    """
    for key, known in (("positions", POSITIONS), ("newlines", NEWLINES)):
        if cfg[key] not in known:
            raise BuildError(f"{key}={cfg[key]}: write {' or '.join(known)}.")
    return {"positions": str(cfg.positions), "newlines": str(cfg.newlines)}


def _mapping(node: Any) -> dict[str, Any]:
    return dict(cast(Mapping[str, Any], _frozen(OmegaConf.to_container(node, resolve=True))))


def _frozen(value: Any) -> Any:
    """Lists as tuples: components are frozen and hashable."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
