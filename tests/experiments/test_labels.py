"""What compressors are called in tables."""

from __future__ import annotations

import pytest

from compressors import BuildError, UnknownNameError, build
from compressors.methods import method_names
from compressors.registry import names
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
        (build("flashvid", allocator="fca"), "flashvid+fca"),
        (build("none", cacher="stc"), "none+stc"),
        (build("random", allocator="fca", cacher="stc", interval=4), "random+fca+stc(interval=4)"),
        (build("sttm", cacher={"name": "stc", "refresh_above": 0.5}), "sttm+stc(refresh_above=0.5)"),
    ],
    ids=str,
)
def test_what_was_changed_is_in_the_name(compressor: object, expected: str) -> None:
    assert label(compressor) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "random(selector.seed=3)+mass(power=2)",
        "vidcom2(allocator.temperature=0.5)",
        "vidcom2(scorer.channels=all, allocator.strength=2)",
        "sttm(threshold=0.5)",
        "fastvid+fca(strength=2)",
        "flashvid(selection=diversity)+mass",
        "none+stc",
        "stc_pruner(scorer.frame_weight=2.0)+stc(interval=null, update_ratio=0.5)",
        "random+mass(power=2)+stc(reuse=mlp)",
    ],
)
def test_names_lead_back(text: str) -> None:
    assert label(parse(text)) == text


@pytest.mark.parametrize("allocator", names("allocator"))
@pytest.mark.parametrize("name", method_names())
def test_what_builds_leads_back(name: str, allocator: str) -> None:
    try:
        compressor = build(name, allocator=allocator)
    except BuildError:
        pytest.skip("they do not go together")
    if ".frame_scorer." not in label(compressor):  # parts inside parts cannot be written so
        assert label(parse(label(compressor))) == label(compressor)
    assert parse(f"{name}+{allocator}") == compressor


def test_names_that_are_none() -> None:
    with pytest.raises(BuildError, match="is no method"):
        parse("random++fca")
    for wrong in ("random(seed)", "random(a b=1)", "random(part.seed=1)"):
        with pytest.raises(BuildError, match="is no parameter"):
            parse(wrong)
    with pytest.raises(BuildError, match="cannot be read"):
        parse("random(seed=[)")
    with pytest.raises(BuildError, match="two allocators"):
        parse("vidcom2(allocator.strength=2)+uniform")
    with pytest.raises(BuildError, match="has no merger"):
        parse("random(merger.metric=keys)")
    with pytest.raises(UnknownNameError):
        parse("randon")
