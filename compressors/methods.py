"""The method list: every preset, in one place. It drives `build`, the YAML files, the tests, the table and `--help`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compressors.errors import BuildError, UnknownNameError
from compressors.registry import load, plugins

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
            raise BuildError(f"method {self.name!r} names unknown parts {sorted(unknown)}; parts are {', '.join(PARTS)}.")
        if self.compressor is not None and self.parts:
            raise BuildError(f"method {self.name!r} gives both parts and a compressor: choose one.")


_VIDCOM2 = "VidCom2, arXiv 2505.14454"

_METHODS: dict[str, Method] = {
    method.name: method
    for method in [
        Method("none", "no compression: every token is kept", compressor={"name": "none"}),
        Method(
            "vidcom2",
            "tokens unlike their frame's and the video's mean, more of them in unique frames",
            _VIDCOM2,
            {"scorer": {"name": "vidcom2"}, "allocator": {"name": "fca"}, "selector": {"name": "token_saliency"}},
        ),
    ]
}


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
