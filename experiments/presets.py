"""The YAML files of parts and presets, derived from the Python list: `python -m experiments.presets` writes them.

A part's file holds its name and every parameter with its default. A preset's file chooses the parts; where it wants a
part with other parameters than the defaults, that variant is a file of its own, named after the preset. So
`allocator=fca` on the command line means the same as `allocator="fca"` in Python, whatever the preset.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import compressors  # noqa: F401  (registers every part)
from compressors.base import Part
from compressors.methods import PARTS, Method, method, method_names
from compressors.registry import lookup, make, names, plugins

GROUPS = (*PARTS, "cacher")

# Further variants of parts, named so that a sweep takes several settings by one key: `scorer=vidcom2_frame,vidcom2`.
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "scorer": {
        "vidcom2_frame": {"name": "vidcom2", "video_weight": 0.0},
        "vidcom2_video": {"name": "vidcom2", "frame_weight": 0.0},
        "vidcom2_frame_similar": {"name": "vidcom2", "video_weight": 0.0, "keep": "similar"},
        "vidcom2_video_similar": {"name": "vidcom2", "frame_weight": 0.0, "keep": "similar"},
        "vidcom2_frame_twice": {"name": "vidcom2", "frame_weight": 2.0},
        "vidcom2_video_twice": {"name": "vidcom2", "video_weight": 2.0},
        "stc_spatial": {"name": "stc_pruner", "memory_weight": 0.0},
        "stc_temporal": {"name": "stc_pruner", "frame_weight": 0.0},
        "stc_temporal_twice": {"name": "stc_pruner", "memory_weight": 2.0},
        "stc_spatial_twice": {"name": "stc_pruner", "frame_weight": 2.0},
    },
    "allocator": {
        "fca_max": {"name": "fca", "frame_scorer": {"name": "frame_uniqueness", "statistic": "max"}},
    },
    "cacher": {
        "stc_attention": {"name": "stc", "reuse": "attention", "update_ratio": 0.15},
        "stc_mlp": {"name": "stc", "reuse": "mlp", "update_ratio": 0.15},
        "stc_shared": {"name": "stc", "selection": "shared"},
    },
}
CONF = Path(__file__).resolve().parent.parent / "conf"


def plain(part: Part) -> dict[str, Any]:
    """A part as its name and every parameter, in plain Python values; parts inside parts likewise."""
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}  # type: ignore[arg-type]
    return {"name": part.name, **{key: _plain_value(value) for key, value in values.items()}}


def choices(preset: Method) -> dict[str, str]:
    """Which file of each part group a preset chooses: the part's own, or the preset's variant of it."""
    chosen = dict.fromkeys(GROUPS, "none")
    for kind, spec in preset.parts.items():
        varied = plain(make(kind, spec)) != plain(make(kind, spec["name"]))
        chosen[kind] = variant_name(preset, kind) if varied else spec["name"]
    return chosen


def variant_name(preset: Method, kind: str) -> str:
    """The file of a preset's variant of a part: the preset's name, unless a part of that kind is called so."""
    return f"{preset.name}_preset" if preset.name in names(kind) else preset.name


def files() -> Iterator[tuple[str, str]]:
    """(path under conf/, content) of every part, variant and preset of ours; plugins bring their own files."""
    for kind in GROUPS:
        for name in names(kind):
            if name not in plugins(f"{kind}s"):
                part = make(kind, name)
                yield f"{kind}/{name}.yaml", _yaml(_summary(lookup(kind, name)), plain(part))
    for kind, variants in VARIANTS.items():
        for name, spec in variants.items():
            changed = ", ".join(f"{key}={_changed(value)}" for key, value in spec.items() if key != "name")
            yield f"{kind}/{name}.yaml", _yaml(f"{spec['name']} with {changed}.", plain(make(kind, spec)))
    for name in method_names():
        if name not in plugins("methods"):
            yield from preset_files(method(name))


def preset_files(preset: Method) -> Iterator[tuple[str, str]]:
    """The files of one preset. A plugin may write its own with this."""
    chosen = choices(preset)
    for kind, spec in preset.parts.items():
        if chosen[kind] != spec["name"]:
            yield f"{kind}/{chosen[kind]}.yaml", _yaml(f"As {preset.name} sets it.", plain(make(kind, spec)))
    own = {"name": preset.name}
    if preset.compressor is not None:
        whole = plain(make("compressor", preset.compressor))
        # A part that a method of one piece takes is chosen by its group, as everywhere.
        own = {key: value for key, value in whole.items() if key not in PARTS} | {"name": preset.name}
    text = ["# @package _global_", f"# {preset.summary}", "defaults:"]
    text += [f"  - override /{kind}: {choice}" for kind, choice in chosen.items() if kind != "cacher"]
    yield f"compressor/{preset.name}.yaml", "\n".join([*text, "", OmegaConf.to_yaml({"compressor": own})])


def _plain_value(value: Any) -> Any:
    if isinstance(value, Part):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_value(item) for item in value]
    return value


def _changed(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    changed = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
    return f"{value['name']} ({changed})"


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _yaml(comment: str, content: Mapping[str, Any]) -> str:
    return f"# {comment}\n{OmegaConf.to_yaml(dict(content))}"


if __name__ == "__main__":
    for path, text in files():
        target = CONF / path
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            print(f"wrote conf/{path}")
