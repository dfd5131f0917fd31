"""The published architectures that come with vidpress have the published sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText

from adapters import Family, families
from adapters.errors import LoadError
from adapters.loading import keep_layers
from tests.extras import needs_processors, run

MODELS = Path(__file__).parents[2] / "conf" / "model"
PARAMETERS = {
    "qwen2vl": 8_291_375_616,
    "qwen2_5vl": 8_292_166_656,
    "qwen3vl": 8_767_123_696,
    "qwen3vl_moe": 31_070_754_032,
    "qwen3_5": 9_409_813_744,
    "qwen3_5_moe": 35_107_181_936,
    "qwen2_5_omni": 8_931_813_888,
    "qwen3_omni": 31_719_205_488,
    "glm4v": 10_292_777_472,
    "glm4v_moe": 107_744_743_936,
    "glm46v": 10_292_777_472,
    "llava_onevision": 8_030_807_584,
    "llava_next_video": 7_063_431_168,
    "llava_video": 8_030_348_832,
    "video_llava": 7_366_279_168,
    "gemma4": 7_632_344_064,  # without its audio tower
    "molmo2": 8_661_703_120,
    "minicpmv4_6": 1_300_659_440,
    "minicpmv4_7": 1_300_659_440,
    "internvl3": 7_944_373_760,
    "internvl2_5": 8_075_365_376,
    "smolvlm2": 2_246_784_880,
    "perception_lm": 1_533_524_992,
    "video_llama_3": 8_044_744_944,
}
OF_TIMM = {"perception_lm"}  # towers


def architecture(name: str) -> dict:
    return json.loads((MODELS / f"{name}.json").read_text())


def parameters(described: dict) -> int:
    if described["model_type"] not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not have {described['model_type']}")
    config = AutoConfig.for_model(**described)
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForImageTextToText.from_config(config).parameters())


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - OF_TIMM))
def test_size(name: str) -> None:
    assert parameters(architecture(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - OF_TIMM))
def test_fewer_layers(name: str) -> None:
    reduced = keep_layers(architecture(name), 2)
    assert parameters(reduced) < PARAMETERS[name] / 2
    assert reduced["text_config"]["num_hidden_layers"] == 2
    assert all(i < 2 for i in reduced["vision_config"].get("deepstack_visual_indexes", []))


@needs_processors
def test_towers_of_timm() -> None:
    """Size and fewer layers of those whose tower needs the `hf` extra."""
    run("tests.conf.with_timm")


def test_no_layers_are_refused() -> None:
    with pytest.raises(LoadError, match="at least one layer"):
        keep_layers(architecture("qwen2vl"), 0)


def test_every_family_can_be_chosen() -> None:
    supported = {kind for family in families().values() for kind in family.model_types}
    for name in PARAMETERS:
        assert architecture(name)["model_type"] in supported, name
        settings = yaml.safe_load((MODELS / f"{name}.yaml").read_text())
        assert (settings["name"], settings["architecture"]) == (name, f"{name}.json")
        family = next(f for f in families().values() if architecture(name)["model_type"] in f.model_types)
        assert settings["frames"] == family.frames
    assert {path.stem for path in MODELS.glob("*.json")} == set(PARAMETERS)


OURS = {name: family for name, family in families().items() if type(family).__module__.startswith("adapters.")}


@pytest.mark.parametrize("family", OURS.values(), ids=OURS)
def test_every_family_has_its_checkpoint(family: Family) -> None:
    """`model=<family>` exists, and loads the checkpoint that README's table names."""
    settings = yaml.safe_load((MODELS / f"{family.name}.yaml").read_text())
    assert settings["path"] == family.checkpoint
    assert architecture(family.name)["model_type"] in family.model_types
