"""The tables of methods, models and cachers, from the registries, into the pages: `python -m experiments.tables`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from adapters import families
from compressors.methods import rows
from compressors.registry import lookup, names

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
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


def models_table() -> str:
    """One Markdown row per model family."""
    lines = [
        "| `model=` | Hugging Face class | a published checkpoint | where video tokens sit | can supply |",
        "|---|---|---|---|---|",
    ]
    for family in families().values():
        classes = ", ".join(f"`{name}`" for name in family.classes.split(", "))
        supplies = ", ".join(f"`{need.__name__}`" for need in family.supplies)
        lines.append(f"| `{family.name}` | {classes} | `{family.checkpoint}` | {family.layout} | {supplies} |")
    return "\n".join(lines)


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
    """A page with the blocks between `<!-- methods -->` … `<!-- /methods -->` (and models, cachers) made anew."""
    for name, table in (("methods", methods_table()), ("models", models_table()), ("cachers", cachers_table())):
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}{table}\n{end}{after}" if after else text
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
