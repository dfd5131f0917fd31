"""What a compressor is called in tables: its preset, and what was changed about it; and the way back."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from compressors.base import Compressor, Part
from compressors.build import build
from compressors.composition import Composition
from compressors.errors import BuildError, UnknownNameError
from compressors.methods import PARTS
from compressors.registry import names


def label(compressor: Compressor) -> str:
    """The preset's name, then what differs from it: `random+fca`, `vidcom2(allocator.temperature=0.1)`, `none+stc`.

    A part of another kind, and a cacher, are named with the parameters that differ from their own defaults.
    """
    cacher = compressor.cacher
    return _method(compressor) + ("" if cacher is None else f"+{cacher.name}{_brackets(_own_changes(cacher))}")


def _method(compressor: Compressor) -> str:
    name = compressor.title
    default = build(name)
    if not isinstance(compressor, Composition) or not isinstance(default, Composition):
        inside = getattr(compressor, "allocator", None)
        changes = [change for change in _changes(compressor, default) if not change.startswith("allocator=")]
        if isinstance(inside, Part) and inside != getattr(default, "allocator", None):
            return f"{name}{_brackets(changes)}+{inside.name}{_brackets(_own_changes(inside))}"
        return name + _brackets(changes)
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


def parse(text: str) -> Compressor:
    """The compressor of a short name: a preset, parameters in brackets, another allocator after a plus, then a cacher.

    A parameter of a part may be written as in labels, `allocator.temperature=0.1`.

    Raises:
        UnknownNameError, BuildError: as `build`; text that is no such name.

    Example:
        >>> label(parse("random(seed=3)+mass(power=2)"))
        'random(selector.seed=3)+mass(power=2)'
    """
    match = re.fullmatch(rf"{_PIECE}(?:\+{_PIECE})?(?:\+{_PIECE})?", str(text).strip())
    if match is None:
        raise BuildError(f"{text!r} is no method: write random, random+fca, random(seed=3)+mass(power=2) or none+stc.")
    name, own, allocator, its, cacher, setting = match.groups()
    if cacher is None and allocator in names("cacher"):
        allocator, its, cacher, setting = None, None, allocator, its
    elif cacher is not None and cacher not in names("cacher"):
        raise UnknownNameError("cacher", cacher, names("cacher"))
    params = _parameters(own, text)
    parts = {kind: params.pop(kind) for kind in PARTS if kind in params}
    if allocator is not None:
        if "allocator" in parts:
            raise BuildError(f"{text!r} names two allocators: write one.")
        parts["allocator"] = {"name": allocator, **_parameters(its, text)}
    plain = build(name)
    for kind, spec in parts.items():
        if isinstance(spec, dict) and "name" not in spec:
            part = getattr(plain, kind, None)
            if not isinstance(part, Part):
                raise BuildError(f"{text!r}: {name} has no {kind} whose parameters could be set.")
            parts[kind] = {"name": part.name, **spec}
    reuse = None if cacher is None else {"name": cacher, **_parameters(setting, text)}
    return build(name, cacher=reuse, **parts, **params)


_PIECE = r"(\w+)(?:\(([^()]*)\))?"


def _parameters(text: str | None, whole: str) -> dict[str, Any]:
    """`a=1, part.b=max` as plain values, read as YAML; those of a part in a dictionary of their own."""
    found: dict[str, Any] = {}
    for item in filter(None, re.split(r",(?![^\[]*\])", text or "")):
        key, equals, value = item.partition("=")
        kind, _, field = key.strip().rpartition(".")
        if not equals or not field.isidentifier() or kind not in ("", *PARTS):
            raise BuildError(f"{whole!r}: {item.strip()!r} is no parameter; write name=value, of a part's own fields.")
        try:
            read: Any = OmegaConf.to_container(OmegaConf.create(f"value: {value}"))
        except (YAMLError, OmegaConfBaseException) as error:
            raise BuildError(f"{whole!r}: {value.strip()!r} cannot be read as a value.") from error
        content = read["value"]
        content = tuple(content) if isinstance(content, list) else content
        if kind:
            found.setdefault(kind, {})[field] = content
        else:
            found[field] = content
    return found


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
            found.append(f"{field.name}={'null' if value is None else value}")
    return found


def _brackets(changes: list[str]) -> str:
    return f"({', '.join(changes)})" if changes else ""
