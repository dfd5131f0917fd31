"""What a compressor is called in tables: its preset, and what was changed about it."""

from __future__ import annotations

import dataclasses
from typing import Any

from compressors.base import Compressor, Part
from compressors.build import build
from compressors.composition import Composition
from compressors.methods import PARTS


def label(compressor: Compressor) -> str:
    """The preset's name, then what differs from it: `random+fca`, `vidcom2(allocator.temperature=0.1)`.

    A part of another kind is named with the parameters that differ from its own defaults.
    """
    name = compressor.title
    default = build(name)
    if not isinstance(compressor, Composition) or not isinstance(default, Composition):
        return name + _brackets(_changes(compressor, default))
    parts, changes = "", []
    for kind in PARTS:
        mine, theirs = getattr(compressor, kind), getattr(default, kind)
        if mine is not None and type(mine) is not type(theirs):
            parts += f"+{mine.name or type(mine).__name__}{_brackets(_own_changes(mine))}"
        elif mine is None and theirs is not None:
            parts += f"-{kind}"
        elif mine is not None:
            changes += [f"{kind}.{change}" for change in _changes(mine, theirs)]
    return name + _brackets(changes) + parts


def _own_changes(part: Part) -> list[str]:
    try:
        return _changes(part, type(part)())
    except TypeError:  # a part with parameters that have no default
        return _changes(part, None)


def _changes(mine: Any, theirs: Any) -> list[str]:
    """`field=value` of every parameter that differs, parts inside parts likewise."""
    found = []
    for field in dataclasses.fields(mine):
        if not field.init or field.name.startswith("_"):
            continue
        value, other = getattr(mine, field.name), getattr(theirs, field.name, None)
        if value == other:
            continue
        if isinstance(value, Part) and type(value) is type(other):
            found += [f"{field.name}.{change}" for change in _changes(value, other)]
        elif isinstance(value, Part):
            found.append(f"{field.name}={value.name}{_brackets(_own_changes(value))}")
        else:
            found.append(f"{field.name}={value}")
    return found


def _brackets(changes: list[str]) -> str:
    return f"({', '.join(changes)})" if changes else ""
