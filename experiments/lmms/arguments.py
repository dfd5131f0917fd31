"""lmms-eval's `--model_args`: from `key=value` pairs to a compressor, its budget and how the model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from adapters import families
from adapters.entry import Newlines, Positions
from adapters.family import Family
from compressors.base import Compressor, Part
from compressors.budget import Budget
from compressors.build import build
from compressors.errors import BuildError, InputError, UnknownNameError
from compressors.methods import PARTS
from compressors.registry import fields_of
from experiments.lmms import FAMILY

BUDGETS = ("retention", "tokens", "tokens_per_frame")


@dataclass(frozen=True)
class Arguments:
    """Everything `--model_args`, `--batch_size` and `--device` say.

    Attributes:
        name: what stands after `--model`.
        pretrained: a name on the Hub or a folder; None is the embedded model's own weights.
        compressor, budget, positions, newlines: as for `press`.
        frames, fps: how a video is sampled, as for `read_video`.
        device, dtype, attn_implementation: as for `load_published`.
        batch_size: requests answered in one call.
        stop_at_blank_line: whether an answer ends at its first empty line when the task lists that among its stop
            strings, which lmms-eval does for every task that lists none.
    """

    name: str
    pretrained: str | None
    compressor: Compressor
    budget: Mapping[str, Any] = field(default_factory=dict)
    positions: str = "original"
    newlines: str = "raster"
    frames: int | None = None
    fps: float | None = None
    device: str = "auto"
    dtype: str = "bfloat16"
    attn_implementation: str = "sdpa"
    batch_size: int = 1
    stop_at_blank_line: bool = True

    @property
    def family(self) -> Family:
        """The family the model must be of."""
        return families()[FAMILY[self.name]]


def parse(name: str, given: Mapping[str, Any]) -> Arguments:
    """Read model arguments.

    Args:
        name: the model's name, a key of `FAMILY`.
        given: keyword arguments as lmms-eval makes them; None stands for "not given". A parameter of the compressor
            is written by its name, or `allocator.temperature=0.05` where its part must be said.

    Raises:
        UnknownNameError: an argument that nothing here or in the compressor is called; names the closest.
        BuildError, BudgetError, InputError: a value that does not fit.
    """
    stated = {key: value for key, value in given.items() if value is not None}
    if "max_batch_size" in stated or not str(stated.get("batch_size", 1)).isdigit():
        raise InputError(
            f"batch_size={stated.get('batch_size', 1)}: automatic batch sizes are not supported; write a whole number, "
            f"without max_batch_size."
        )
    budget = {key: stated.pop(key) for key in BUDGETS if key in stated}
    Budget(**budget)
    micro = name == "vidpress_micro"
    settings: dict[str, Any] = {
        "pretrained": None if micro else families()[FAMILY[name]].checkpoint,
        "frames": None if micro or "fps" in stated else families()[FAMILY[name]].frames,
        "dtype": "float32" if micro else "bfloat16",
        "batch_size": 1,
    }
    own = {f.name for f in dataclasses.fields(Arguments)} - {"name", "compressor", "budget"}
    settings |= {key: stated.pop(key) for key in own if key in stated}
    _check(settings)
    settings["batch_size"] = int(settings["batch_size"])
    return Arguments(name=name, compressor=_compressor(stated, own | set(BUDGETS)), budget=budget, **settings)


def _compressor(stated: dict[str, Any], settings: set[str]) -> Compressor:
    """The compressor that the remaining arguments describe."""
    method = str(stated.pop("compressor", "vidcom2"))
    specs: dict[str, Any] = {kind: {"name": str(stated.pop(kind))} for kind in PARTS if kind in stated}
    plain = build(method, **specs)
    owned = _parameters(plain)
    dotted = {f"{kind}.{name}" for kind, names in owned.items() if kind for name in names}
    known = {*settings, "compressor", *PARTS, *dotted}.union(*owned.values())
    loose: dict[str, Any] = {}
    for key, value in stated.items():
        if key not in known:
            raise UnknownNameError("model argument", key, known)
        kind, _, parameter = key.rpartition(".")
        if kind:
            specs.setdefault(kind, {"name": getattr(plain, kind).name})[parameter] = value
        else:
            loose[key] = value
    return build(method, **specs, **loose) if stated else plain


def _parameters(compressor: Compressor) -> dict[str, set[str]]:
    """Names of parameters by part; under "" those of a compressor without parts."""
    parts = {kind: getattr(compressor, kind, None) for kind in PARTS}
    owned = {kind: fields_of(type(part)) for kind, part in parts.items() if isinstance(part, Part)}
    return owned or {"": {name for name in fields_of(type(compressor)) if not name.startswith("_")}}


def _check(settings: Mapping[str, Any]) -> None:
    """Values that would otherwise fail in the middle of a run."""
    frames, fps = settings.get("frames"), settings.get("fps")
    if frames is not None and fps is not None:
        raise InputError(f"frames={frames} and fps={fps}: give one of them.")
    for key, kind, least in (("frames", int, 1), ("fps", float, 0.001), ("batch_size", int, 1)):
        value = settings.get(key)
        if value is None or (key == "batch_size" and str(value).isdigit() and int(value) >= 1):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, kind)) or value < least:
            what = "a whole number" if kind is int else "a number"
            raise InputError(f"{key}={value} must be {what}, {least} or more.")
    for key, known in (("positions", get_args(Positions)), ("newlines", get_args(Newlines))):
        if settings.get(key, known[0]) not in known:
            raise BuildError(f"{key}={settings[key]}: write {' or '.join(known)}.")
    if not isinstance(settings.get("stop_at_blank_line", True), bool):
        raise InputError(f"stop_at_blank_line={settings['stop_at_blank_line']}: write True or False.")
