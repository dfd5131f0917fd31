"""The tables of methods, models and cachers, from the registries, into the pages: `python -m experiments.tables`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from adapters import families
from adapters.family import Family
from adapters.support import FEATURES
from compressors.methods import rows
from compressors.registry import lookup, names

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MODELS = ROOT / "conf" / "model"
PAGES = (README, ROOT / "docs" / "streaming_cacher.md")


def methods_table() -> str:
    """One Markdown row per preset: what it does, what it needs, what it promises."""
    lines = [
        "| method | what it keeps | parts | needs | prunes or merges | exact budget | host reads | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        parts = ", ".join(f"{kind} `{name}`" for kind, name in row.parts.items())
        needs = ", ".join(f"`{need}`" for need in row.needs) or "–"
        kind = "merges" if row.merges else "prunes"
        exact = "yes" if row.exact else "no"
        lines.append(
            f"| `{row.name}` | {row.summary} | {parts} | {needs} | {kind} | {exact} | {row.host_reads} | {row.source} |"
        )
    return "\n".join(lines)


def presets_of(family: Family) -> dict[str, str]:
    """What `model=` may be for a family, each with its published checkpoint; the family's own name comes first."""
    mine = {name: path for name, (model_type, path) in _presets().items() if model_type in family.model_types}
    return {family.name: family.checkpoint} | mine


@functools.cache
def _presets() -> dict[str, tuple[str, str]]:
    """Of every published model under `conf/model`, its `model_type` and its checkpoint."""
    loaded = [OmegaConf.load(file) for file in sorted(MODELS.glob("*.yaml"))]
    return {
        preset.name: (json.loads((MODELS / preset.architecture).read_text())["model_type"], preset.path)
        for preset in loaded
        if "architecture" in preset
    }


def models_table() -> str:
    """One Markdown row per model family, with every preset of it."""
    lines = [
        "| `model=` | Hugging Face class | published checkpoints | where video tokens sit | can supply |",
        "|---|---|---|---|---|",
    ]
    for family in families().values():
        classes = ", ".join(f"`{name}`" for name in family.classes.split(", "))
        supplies = ", ".join(f"`{need.__name__}`" for need in family.supplies)
        presets = presets_of(family)
        named, checkpoints = (", ".join(f"`{name}`" for name in column) for column in (presets, presets.values()))
        lines.append(f"| {named} | {classes} | {checkpoints} | {family.layout} | {supplies} |")
    return "\n".join(lines)


def support_table() -> str:
    """One Markdown row per model family: which features work, in which cases they do not, and why the others do not."""
    lines = [
        "| `model=` | " + " | ".join(FEATURES) + " | held to |",
        "|---|" + "---|" * (len(FEATURES) + 1),
    ]
    notes: dict[str, int] = {}

    def cell(word: str, *reasons: str) -> str:
        numbers = ", ".join(str(notes.setdefault(reason, len(notes) + 1)) for reason in reasons)
        return f"{word} ({numbers})" if reasons else word

    for family in families().values():
        exceptions = family.exceptions()
        cells = [
            cell("yes", *exceptions[feature]) if reason is None else cell("no", reason)
            for feature, reason in family.support().items()
        ]
        held = "dropping equals masking" if family.masking else "the hand-pruned sequence"
        named = ", ".join(f"`{name}`" for name in presets_of(family))
        lines.append(f"| {named} | " + " | ".join(cells) + f" | {held} |")
    if notes:
        lines += ["", "*yes (n)*: but for the case that note n describes, which is refused with these words.", ""]
    return "\n".join([*lines, *(f"{number}. {reason}" for reason, number in notes.items())])


def cachers_table() -> str:
    """One Markdown row per parameter of every cacher, with what its docstring says of it."""
    lines = ["| cacher | parameter | default | meaning |", "|---|---|---|---|"]
    for name in names("cacher"):
        cls: Any = lookup("cacher", name)
        told = attributes(cls)
        for field in dataclasses.fields(cls):
            default = "null" if field.default is None else field.default
            lines.append(f"| `{name}` | `{field.name}` | `{default}` | {told[field.name]} |")
    return "\n".join(lines)


def attributes(cls: type) -> dict[str, str]:
    """What a class's docstring says of each of its attributes."""
    _, _, section = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    entries = re.split(r"^ {4}(?=\w+: )", section, flags=re.MULTILINE)
    found = (entry.partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(meaning.split()) for name, _, meaning in found}


def with_tables(text: str) -> str:
    """A page with the blocks between `<!-- methods -->` … `<!-- /methods -->` (models, support, cachers) made anew."""
    tables = {
        "methods": methods_table(),
        "models": models_table(),
        "support": support_table(),
        "cachers": cachers_table(),
    }
    for name, table in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}{table}\n{end}{after}" if after else text
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
