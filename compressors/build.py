"""`build`: from names and plain parameters to a compressor."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

from compressors.base import Allocator, CacheReuser, Compressor, Merger, Part, Selector, TokenScorer
from compressors.composition import Composition
from compressors.errors import BuildError
from compressors.methods import PARTS, method
from compressors.registry import fields_of, lookup, make

PartSpec = str | Mapping[str, Any] | Part | None


def build(
    name: str | Compressor,
    *,
    scorer: PartSpec = None,
    allocator: PartSpec = None,
    selector: PartSpec = None,
    merger: PartSpec = None,
    cacher: PartSpec = None,
    **params: Any,
) -> Compressor:
    """Build a compressor from a preset, with parts replaced and parameters set.

    Args:
        name: a method's name (`vidpress.methods()` lists them), or a compressor, which is returned as it is.
        scorer, allocator, selector, merger: a part's name, `{"name": …, params}`, an instance, "none" to leave the
            preset's part out, or None to keep the preset's.
        cacher: what reuses the vision tower's work between frames, in the same forms; presets have none. A finished
            compressor takes one, too.
        **params: parameters of whichever single part owns a field of that name.

    Raises:
        UnknownNameError: no such method or part.
        BuildError: a parameter that no part or two parts own, or parts that do not fit together.

    Example:
        >>> build("vidcom2", allocator="uniform")
        >>> build("random", allocator={"name": "fca", "temperature": 0.05}, seed=3)
        >>> build("stc_pruner", cacher="stc", interval=4)
    """
    given = {"scorer": scorer, "allocator": allocator, "selector": selector, "merger": merger}
    if cacher is None:
        return _build(name, given, params)
    reuser, params = _cacher(_normal("cacher", cacher), name, given, params)
    made = copy.copy(_build(name, given, params))
    object.__setattr__(made, "_cacher", reuser)  # it acts before compression, so it is no parameter of it
    return made


def _cacher(
    spec: Mapping[str, Any] | Part | None, name: str | Compressor, given: Mapping[str, PartSpec], params: dict[str, Any]
) -> tuple[CacheReuser | None, dict[str, Any]]:
    """The cacher with the loose parameters that it owns, and the parameters that are left for the other parts."""
    if not isinstance(spec, Mapping):
        return None if spec is None else cast(CacheReuser, make("cacher", spec)), params
    taken = {key: value for key, value in params.items() if key in fields_of(lookup("cacher", spec["name"]))}
    for kind, other in _parts_of(name, given).items():
        if both := sorted(set(taken) & fields_of(lookup(kind, other))):
            raise BuildError(
                f"parameter {both[0]!r} belongs to cacher and {kind}: "
                f'write cacher={{"name": "{spec["name"]}", "{both[0]}": …}} to say which.'
            )
    left = {key: value for key, value in params.items() if key not in taken}
    return cast(CacheReuser, make("cacher", {**spec, **taken})), left


def _parts_of(name: str | Compressor, given: Mapping[str, PartSpec]) -> dict[str, str]:
    """Kind -> registered name of what else takes loose parameters."""
    if isinstance(name, Compressor):
        return {}
    preset = method(name)
    if preset.compressor is not None:
        return {"compressor": preset.compressor["name"]}
    specs = {**preset.parts, **{kind: _normal(kind, part) for kind, part in given.items() if part is not None}}
    return {kind: spec["name"] for kind, spec in specs.items() if isinstance(spec, Mapping)}


def _build(name: str | Compressor, given: Mapping[str, PartSpec], params: dict[str, Any]) -> Compressor:
    changed = sorted(kind for kind, part in given.items() if part is not None)
    if isinstance(name, Compressor):
        if changed or params:
            extra = ", ".join([*changed, *params])
            raise BuildError(f"a finished compressor takes no {extra}; set them when building it.")
        return name
    preset = method(name)
    if preset.compressor is not None:
        made = cast(
            Compressor, make("compressor", {**preset.compressor, **_whole(preset.compressor, given, name), **params})
        )
        object.__setattr__(made, "_preset", name)  # for `title`; no parameter, so it takes no part in equality
        return made
    specs: dict[str, PartSpec] = {kind: preset.parts.get(kind) for kind in PARTS}
    specs.update({kind: part for kind, part in given.items() if part is not None})
    parts = assign({kind: _normal(kind, spec) for kind, spec in specs.items()}, params)
    if parts["selector"] is None:
        raise BuildError(f"method {name!r} has no selector: add selector=token_saliency.")
    return Composition(
        selector=cast(Selector, parts["selector"]),
        scorer=cast("TokenScorer | None", parts["scorer"]),
        allocator=cast("Allocator | None", parts["allocator"]),
        merger=cast("Merger | None", parts["merger"]),
        label=name,
    )


def _whole(spec: Mapping[str, Any], given: Mapping[str, PartSpec], method: str) -> dict[str, PartSpec]:
    """The parts that a method of one piece takes after all, as parameters of its own."""
    cls = cast(type[Compressor], lookup("compressor", spec["name"]))
    asked = {kind: part for kind, part in given.items() if part is not None}
    refused = sorted(set(asked) - fields_of(cls))
    if refused == ["allocator"]:
        raise BuildError(f"method {method!r} takes no allocator: {cls.no_allocator}.")
    if refused:
        raise BuildError(f"method {method!r} does not split into parts, so it takes no {', '.join(refused)}.")
    return {kind: _normal(kind, part) for kind, part in asked.items()}


def assign(specs: Mapping[str, Mapping[str, Any] | Part | None], params: Mapping[str, Any]) -> dict[str, Part | None]:
    """Give each loose parameter to the one part that owns it, and make the parts."""
    full: dict[str, dict[str, Any]] = {k: dict(s) for k, s in specs.items() if isinstance(s, Mapping)}
    for key, value in params.items():
        owners = [kind for kind, spec in full.items() if key in fields_of(lookup(kind, spec["name"]))]
        if not owners:
            listing = "; ".join(
                f"{kind} {spec['name']}: {', '.join(sorted(fields_of(lookup(kind, spec['name'])))) or 'none'}"
                for kind, spec in full.items()
            )
            raise BuildError(f"no part has a parameter {key!r}. Parameters here: {listing}.")
        if len(owners) > 1:
            raise BuildError(
                f"parameter {key!r} belongs to {' and '.join(owners)}: "
                f'write {owners[0]}={{"name": "{full[owners[0]]["name"]}", "{key}": …}} to say which.'
            )
        full[owners[0]][key] = value
    return {kind: None if spec is None else make(kind, full.get(kind, spec)) for kind, spec in specs.items()}


def _normal(kind: str, spec: PartSpec) -> Mapping[str, Any] | Part | None:
    if isinstance(spec, str):
        spec = {"name": spec}
    if isinstance(spec, Mapping):
        if "name" not in spec:
            raise BuildError(f"{kind}={dict(spec)!r}: a mapping needs 'name' beside the parameters.")
        return None if spec["name"] == "none" else spec
    return spec
