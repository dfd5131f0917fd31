"""The tables of methods and models, from the registries, into README.md: `python -m experiments.tables`."""

from __future__ import annotations

from pathlib import Path

from adapters import families
from adapters.support import FEATURES
from compressors.methods import rows

README = Path(__file__).resolve().parent.parent / "README.md"


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


def support_table() -> str:
    """One Markdown row per model family: which features work; below the table, why the others do not."""
    lines = [
        "| `model=` | " + " | ".join(FEATURES) + " | held to |",
        "|---|" + "---|" * (len(FEATURES) + 1),
    ]
    reasons: dict[str, int] = {}
    for family in families().values():
        cells = []
        for reason in family.support().values():
            cells.append("yes" if reason is None else f"no ({reasons.setdefault(reason, len(reasons) + 1)})")
        held = "dropping equals masking" if family.masking else "the hand-pruned sequence"
        lines.append(f"| `{family.name}` | " + " | ".join(cells) + f" | {held} |")
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", *notes] if notes else lines)


def with_tables(text: str) -> str:
    """A page with the blocks between `<!-- methods -->` … `<!-- /methods -->` (models, support) made anew."""
    tables = {"methods": methods_table(), "models": models_table(), "support": support_table()}
    for name, table in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}{table}\n{end}{after}" if after else text
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
