"""Methods by name: what a preset is, and how to ask for one. The list itself stands in `compressors.presets`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compressors.errors import BuildError, UnknownNameError
from compressors.registry import load, plugins
from compressors.requirements import Requirement

PARTS = ("scorer", "allocator", "selector", "merger")


@dataclass(frozen=True)
class Method:
    """A preset: which parts, with which parameters.

    Attributes:
        name: what users type.
        summary: one line for tables and `--help`.
        source: paper (arXiv id) or where the definition stands.
        parts: part -> {"name": …, params}; a part that is absent is not used.
        compressor: for methods that do not split into parts: {"name": …, params} of a registered compressor.
    """

    name: str
    summary: str
    source: str = ""
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    compressor: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        unknown = set(self.parts) - set(PARTS)
        if unknown:
            raise BuildError(
                f"method {self.name!r} names unknown parts {sorted(unknown)}; parts are {', '.join(PARTS)}."
            )
        if self.compressor is not None and self.parts:
            raise BuildError(f"method {self.name!r} gives both parts and a compressor: choose one.")


_METHODS: dict[str, Method] = {}


def add_method(method: Method) -> Method:
    """Add a preset to the list (a plugin's, or one's own).

    Raises:
        BuildError: the name is taken by a different preset.
    """
    if _METHODS.get(method.name, method) != method:
        raise BuildError(f"method {method.name!r} exists already; choose another name.")
    _METHODS[method.name] = method
    return method


def method(name: str) -> Method:
    """The preset of that name.

    Raises:
        UnknownNameError: there is none (the message suggests the closest).
    """
    if name not in _METHODS and name in plugins("methods"):
        loaded = load(plugins("methods")[name])
        if not isinstance(loaded, Method):
            raise BuildError(f"plugin method {name!r} is a {type(loaded).__name__}; its entry point must be a Method.")
        add_method(loaded)
    if name not in _METHODS:
        raise UnknownNameError("method", name, method_names())
    return _METHODS[name]


def method_names() -> list[str]:
    """Every preset's name, in the order of the list, then plugins."""
    return [*_METHODS, *sorted(set(plugins("methods")) - set(_METHODS))]


def methods() -> dict[str, Method]:
    """Every preset by name, plugins included (and imported)."""
    return {name: method(name) for name in method_names()}


@dataclass(frozen=True)
class Row:
    """What the table of methods and `--help` say about a preset; all of it asked from the built compressor.

    Attributes:
        name, summary, source: the preset's.
        needs: requirements besides features.
        merges: kept tokens are mixtures; otherwise tokens are only dropped.
        exact: keeps exactly the budget's number of tokens.
        host_reads: reads of tensor values on the host.
        parts: kind -> registered name.
    """

    name: str
    summary: str
    source: str
    needs: tuple[Requirement, ...]
    merges: bool
    exact: bool
    host_reads: int
    parts: Mapping[str, str]


def rows() -> list[Row]:
    """One row per preset, in the order of the list."""
    from compressors.build import build

    table = []
    for preset in methods().values():
        compressor = build(preset.name)
        parts = {kind: str(spec["name"]) for kind, spec in preset.parts.items()}
        needs = tuple(sorted(compressor.requirements, key=repr))
        table.append(
            Row(
                preset.name,
                preset.summary,
                preset.source,
                needs,
                compressor.merges,
                compressor.exact,
                compressor.host_reads,
                parts,
            )
        )
    return table
