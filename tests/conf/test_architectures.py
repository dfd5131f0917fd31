"""The published architectures that come with vidpress have the published sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForImageTextToText

from adapters import families
from adapters.errors import LoadError
from adapters.loading import keep_layers

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
}


def architecture(name: str) -> dict:
    return json.loads((MODELS / f"{name}.json").read_text())


def parameters(described: dict) -> int:
    config = AutoConfig.for_model(**described)
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForImageTextToText.from_config(config).parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_size(name: str) -> None:
    assert parameters(architecture(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_fewer_layers(name: str) -> None:
    reduced = keep_layers(architecture(name), 2)
    assert parameters(reduced) < PARAMETERS[name] / 2
    assert reduced["text_config"]["num_hidden_layers"] == 2
    assert all(i < 2 for i in reduced["vision_config"].get("deepstack_visual_indexes", []))


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
