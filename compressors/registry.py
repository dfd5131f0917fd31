"""Names: one registry per kind of part, filled by decorators here and by entry points of installed plugins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from compressors.base import Allocator, CacheReuser, Compressor, FrameScorer, Merger, Part, Selector, TokenScorer
from compressors.errors import BuildError, UnknownNameError

P = TypeVar("P", bound=type[Part])

KINDS: Mapping[str, type[Part]] = {
    "scorer": TokenScorer,
    "frame_scorer": FrameScorer,
    "allocator": Allocator,
    "selector": Selector,
    "merger": Merger,
    "cacher": CacheReuser,
    "compressor": Compressor,
}


@dataclass(frozen=True)
class Entry:
    """A registered class and where it came from."""

    cls: type[Part]
    origin: str


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}


def register(kind: str, name: str) -> Callable[[P], P]:
    """Class decorator: make a part available by name.

    Args:
        kind: scorer, frame_scorer, allocator, selector, merger, cacher or compressor.
        name: the name users type.

    Raises:
        UnknownNameError: no such kind.
        BuildError: the name is taken, or the class is not of that kind.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of part", kind, KINDS)

    def decorate(cls: P) -> P:
        if not (isinstance(cls, type) and issubclass(cls, KINDS[kind])):
            raise BuildError(f"{kind} {name!r}: {cls!r} is not a subclass of {KINDS[kind].__name__}.")
        origin = f"{cls.__module__}.{cls.__qualname__}"
        taken = _entries[kind].get(name)
        if taken is not None and taken.origin != origin:
            raise BuildError(f"{kind} {name!r} is already registered by {taken.origin}; choose another name.")
        _entries[kind][name] = Entry(cls, origin)
        cls.name = name
        return cls

    return decorate


@cache
def plugins(group: str) -> Mapping[str, EntryPoint]:
    """Entry points of installed packages in `vidpress.<group>`, by name; nothing is imported yet."""
    return {point.name: point for point in entry_points(group=f"vidpress.{group}")}


def lookup(kind: str, name: str) -> type[Part]:
    """The class registered under a name; a plugin's module is imported the first time its name is used.

    Raises:
        UnknownNameError: nobody registered the name (the message suggests the closest).
        BuildError: a plugin's entry point does not yield a class of that kind.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of part", kind, KINDS)
    if name not in _entries[kind] and name in plugins(f"{kind}s"):
        register(kind, name)(load(plugins(f"{kind}s")[name]))
    if name not in _entries[kind]:
        raise UnknownNameError(kind, name, names(kind))
    return _entries[kind][name].cls


def load(point: EntryPoint) -> Any:
    """Import a plugin's entry point; an import error names the plugin."""
    try:
        return point.load()
    except Exception as error:
        raise BuildError(f"plugin {point.name!r} ({point.value}) could not be imported: {error}") from error


def names(kind: str) -> list[str]:
    """Every registered name of a kind, plugins included, sorted."""
    return sorted({*_entries[kind], *plugins(f"{kind}s")})


def make(kind: str, spec: str | Mapping[str, Any] | Part) -> Part:
    """One part from its name, `{"name": …, params}` or instance.

    Raises:
        UnknownNameError: no such part.
        BuildError: a parameter the part does not have, or an instance of another kind.
    """
    if isinstance(spec, Part):
        if not isinstance(spec, KINDS[kind]):
            raise BuildError(f"{kind}={spec!r} is not a {KINDS[kind].__name__}.")
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or "name" not in spec:
        if callable(spec):
            raise BuildError(f"{kind}={spec!r} is a plain callable; for a selector write selector=wrap(function).")
        raise BuildError(f"{kind}={spec!r}: write a name, or a mapping with 'name' and parameters.")
    params = {key: value for key, value in spec.items() if key != "name"}
    cls = lookup(kind, spec["name"])
    unknown = sorted(set(params) - fields_of(cls))
    if unknown:
        known = ", ".join(sorted(fields_of(cls))) or "none"
        raise BuildError(f"{kind} {spec['name']!r} has no parameter {', '.join(unknown)}; its parameters: {known}.")
    _check_values(f"{kind} {spec['name']!r}", cls, params)
    return cls(**params)


def _check_values(owner: str, cls: type[Part], params: Mapping[str, Any]) -> None:
    """Numbers and choices are what their fields say; any other field is the component's own business."""
    try:
        hints = get_type_hints(cls)
    except NameError:  # a plugin's annotation that exists for type checkers only
        return
    for key, value in params.items():
        hint, number = hints.get(key), isinstance(value, (int, float)) and not isinstance(value, bool)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise BuildError(f"{owner}: {key}={value!r} is unknown; known: {', '.join(map(str, get_args(hint)))}.")
        if (hint is float and not number) or (hint is int and not (number and isinstance(value, int))):
            raise BuildError(f"{owner}: {key}={value!r} must be a {'whole ' if hint is int else ''}number.")


def fields_of(cls: type[Part]) -> set[str]:
    """The parameters of a component: its dataclass fields."""
    return {f.name for f in dataclasses.fields(cls) if f.init} if dataclasses.is_dataclass(cls) else set()
