"""README's tables are the registries'."""

from __future__ import annotations

from compressors.registry import fields_of, lookup, names
from experiments.tables import MODELS, PAGES, README, cachers_table, models_table, with_tables
from vidpress import families, methods


def test_pages_are_up_to_date() -> None:
    """Run `python -m experiments.tables` when this fails."""
    for page in PAGES:
        assert with_tables(page.read_text()) == page.read_text()
    assert all(f"`{name}`" in README.read_text() for name in methods())


def test_every_parameter_of_a_cacher_has_a_row() -> None:
    table = cachers_table()
    for name in names("cacher"):
        assert all(f"| `{name}` | `{field}` |" in table for field in fields_of(lookup("cacher", name)))
    assert any(cachers_table() in page.read_text() for page in PAGES)


def test_every_family_has_a_row() -> None:
    table = models_table()
    assert all(f"\n| `{name}`" in table for name in families())


def test_every_preset_stands_in_its_family_s_row() -> None:
    """`model=` takes all of them; the embedded model is described below the tables."""
    rows = [line.split(" | ")[0] for line in models_table().splitlines()]
    for file in MODELS.glob("*.yaml"):
        assert file.stem == "micro" or sum(f"`{file.stem}`" in row for row in rows) == 1, file.stem
