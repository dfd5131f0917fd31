"""README's tables are the registries'."""

from __future__ import annotations

from experiments.tables import README, models_table, with_tables
from vidpress import families, methods


def test_readme_is_up_to_date() -> None:
    """Run `python -m experiments.tables` when this fails."""
    text = README.read_text()
    assert with_tables(text) == text
    assert all(f"`{name}`" in text for name in methods())


def test_every_family_has_a_row() -> None:
    table = models_table()
    assert all(f"| `{name}` |" in table for name in families())
