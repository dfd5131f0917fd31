"""What compressors are called in tables."""

from __future__ import annotations

import pytest

from compressors import BuildError, UnknownNameError, build
from compressors.methods import method_names
from experiments.labels import label, parse

MAXIMUM = {"name": "fca", "frame_scorer": {"name": "frame_uniqueness", "statistic": "max"}}


@pytest.mark.parametrize("name", method_names())
def test_a_preset_is_called_by_its_name(name: str) -> None:
    assert label(build(name)) == name


@pytest.mark.parametrize(
    ("compressor", "expected"),
    [
        (build("random", allocator="fca"), "random+fca"),
        (build("vidcom2", allocator="none"), "vidcom2-allocator"),
        (build("vidcom2", allocator="fca"), "vidcom2"),
        (build("vidcom2", allocator={"name": "fca", "temperature": 0.5}), "vidcom2(allocator.temperature=0.5)"),
        (build("random", allocator={"name": "fca", "temperature": 0.5}), "random+fca(temperature=0.5)"),
        (
            build(
                "vidcom2", allocator={"name": "fca", "frame_scorer": {"name": "frame_uniqueness", "statistic": "max"}}
            ),
            "vidcom2(allocator.frame_scorer.statistic=max)",
        ),
        (build("random", seed=3, allocator="uniform"), "random(selector.seed=3)+uniform"),
        (build("sttm", threshold=0.5), "sttm(threshold=0.5)"),
    ],
    ids=str,
)
def test_what_was_changed_is_in_the_name(compressor: object, expected: str) -> None:
    assert label(compressor) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["vidcom2", "random+fca", "random(selector.seed=3)+mass(power=2)", "vidcom2+uniform", "sttm(threshold=0.5)"]
)
def test_names_lead_back(text: str) -> None:
    assert label(parse(text.replace("selector.", ""))) == text


def test_names_that_are_none() -> None:
    with pytest.raises(BuildError, match="is no method"):
        parse("random++fca")
    with pytest.raises(BuildError, match="is no parameter"):
        parse("random(seed)")
    with pytest.raises(UnknownNameError):
        parse("randon")
