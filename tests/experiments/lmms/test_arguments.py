"""`--model_args`: everything that is asked for is followed or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from adapters import families
from compressors import build
from compressors.errors import BudgetError, BuildError, InputError, UnknownNameError
from experiments.lmms import CLASSES
from experiments.lmms.arguments import FAMILY, parse

CONF = Path(__file__).parents[3] / "conf" / "model"


def test_every_family_has_a_model() -> None:
    assert set(CLASSES) == set(FAMILY)
    assert set(FAMILY.values()) == set(families())


@pytest.mark.parametrize("name", sorted(set(FAMILY) - {"vidpress_micro"}))
def test_defaults_are_those_of_the_configurations(name: str) -> None:
    found, stated = parse(name, {}), OmegaConf.load(CONF / f"{FAMILY[name]}.yaml")
    for key in ("frames", "dtype", "device", "attn_implementation"):
        assert getattr(found, key) == stated[key], key
    assert found.pretrained == stated.path
    assert found.compressor == build("vidcom2")


def test_defaults_of_the_embedded_model() -> None:
    found, stated = parse("vidpress_micro", {}), OmegaConf.load(CONF / "micro.yaml")
    assert (found.frames, found.dtype, found.device) == (stated.frames, stated.dtype, stated.device)
    assert found.pretrained is None


def test_a_method_with_other_parts_and_parameters() -> None:
    given = {"compressor": "random", "allocator": "fca", "allocator.temperature": 0.05, "seed": 3, "tokens": 64}
    found = parse("vidpress_qwen2_vl", given)
    assert found.compressor == build("random", allocator={"name": "fca", "temperature": 0.05}, seed=3)
    assert found.budget == {"tokens": 64}


def test_a_parameter_of_the_presets_own_part() -> None:
    assert parse("vidpress_micro", {"allocator.temperature": 0.5}).compressor == build("vidcom2", temperature=0.5)


def test_a_parameter_of_a_method_without_parts() -> None:
    assert parse("vidpress_micro", {"compressor": "chain", "split": 0.3}).compressor == build("chain", split=0.3)


def test_a_cacher_and_its_parameters() -> None:
    for key in ("interval", "cacher.interval"):
        found = parse("vidpress_qwen2_vl", {"compressor": "stc_pruner", "cacher": "stc", key: 4})
        assert found.compressor.cacher == build("stc_pruner", cacher="stc", interval=4).cacher
    with pytest.raises(UnknownNameError, match="interval"):
        parse("vidpress_qwen2_vl", {"interval": 4})


def test_a_part_can_be_left_out() -> None:
    assert parse("vidpress_micro", {"allocator": "none"}).compressor == build("vidcom2", allocator="none")


def test_what_is_not_given_is_none() -> None:
    assert parse("vidpress_micro", {"device": None, "max_batch_size": None, "batch_size": "4"}).batch_size == 4


def test_frames_per_second_replace_the_number_of_frames() -> None:
    found = parse("vidpress_qwen2_vl", {"fps": 2})
    assert (found.frames, found.fps) == (None, 2)


@pytest.mark.parametrize(
    ("given", "closest"),
    [
        ({"retenton": 0.1}, "retention"),
        ({"max_frames": 8}, "frames"),
        ({"alocator": "fca"}, "allocator"),
        ({"temprature": 0.1}, "temperature"),
        ({"allocator.temprature": 0.1}, "allocator.temperature"),
        ({"compressor": "none", "allocator.temperature": 0.1}, None),
    ],
    ids=str,
)
def test_an_unknown_argument_is_refused_with_the_closest(given: dict[str, object], closest: str | None) -> None:
    hint = rf"Did you mean '{closest}'\?" if closest else "unknown model argument"
    with pytest.raises(UnknownNameError, match=hint):
        parse("vidpress_qwen2_vl", given)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"compressor": "vidcom"}, UnknownNameError, "Did you mean 'vidcom2'"),
        ({"allocator": "fcb"}, UnknownNameError, "Did you mean 'fca'"),
        ({"compressor": "fastvid", "selector": "random"}, BuildError, "does not split into parts"),
        ({"retention": 2.0}, BudgetError, "outside"),
        ({"retention": 0.1, "tokens": 8}, BudgetError, "two budgets"),
        ({"frames": 8, "fps": 1.0}, InputError, "give one of them"),
        ({"frames": 2.5}, InputError, "whole number"),
        ({"fps": "fast"}, InputError, "must be a number"),
        ({"batch_size": "auto"}, InputError, "automatic batch sizes"),
        ({"max_batch_size": 8}, InputError, "automatic batch sizes"),
        ({"batch_size": 0}, InputError, "1 or more"),
        ({"positions": "closed"}, BuildError, "original or contiguous"),
        ({"stop_at_blank_line": "no"}, InputError, "True or False"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_refused(given: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        parse("vidpress_qwen2_vl", given)
