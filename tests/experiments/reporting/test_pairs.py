"""Differences between methods that are named in pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressors.errors import InputError
from experiments.reporting import pairs, tables
from experiments.reporting.collect import collect
from tests.experiments.reporting.synthetic import KINDS, write_run


@pytest.fixture
def samples(tmp_path: Path) -> object:
    for number, (label, retention) in enumerate([("good", 0.1), ("good", 0.25), ("bad", 0.1)]):
        skill = 0.95 if label == "good" else 0.2
        for seed in (0, 1):
            write_run(tmp_path / f"{number}_{seed}", label, retention, seed=seed, skill=skill, against=())
    return collect([tmp_path]).samples


def test_the_first_minus_the_second_where_both_were_run(samples: object) -> None:
    groups = tables.question_groups(KINDS)
    numbers = pairs.differences(samples, groups, [["good", "bad"], ["bad", "good"]])  # type: ignore[arg-type]
    assert list(numbers["budget"]) == ["retention 0.1", "retention 0.1"], "0.25 was run with one of them only"
    first, second = numbers.to_dict("records")
    assert first["all_n"] == 2 * 12 * len(KINDS)
    assert first["all_minus"] == -second["all_minus"] > 0.2
    assert first["all_low"] == pytest.approx(-second["all_high"], abs=0.02)
    of_groups = sum(first[f"{group}_minus"] * first[f"{group}_n"] for group in groups)
    assert of_groups == pytest.approx(first["all_minus"] * first["all_n"])
    text = pairs.readable(numbers, groups)
    assert list(text.columns) == ["method", "minus", "budget", "all, points", *(f"{g}, points" for g in groups)]
    assert text["all, points"][0].startswith("+")
    assert text["all, points"][1].startswith("−")


def test_names_that_no_run_has(samples: object) -> None:
    groups = tables.question_groups(KINDS)
    with pytest.raises(InputError, match=r"no run is called 'god'\. Did you mean good\?"):
        pairs.differences(samples, groups, [["god", "bad"]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is no pair"):
        pairs.differences(samples, groups, [["good"]])  # type: ignore[arg-type]
