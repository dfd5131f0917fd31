"""Architectures of reduced size for small machines: the widths are the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

MODELS = Path(__file__).parents[2] / "conf" / "model"
WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rope_parameters")


def described(name: str) -> dict[str, Any]:
    return json.loads((MODELS / f"{name}.json").read_text())


def test_the_mechanisms_model_has_the_width_of_7b() -> None:
    small, full = described("sizes/qwen2vl_7b_mechanism"), described("qwen2vl")
    assert {key: small["text_config"][key] for key in WIDTHS} == {key: full["text_config"][key] for key in WIDTHS}


def test_the_half_billion_model_has_its_widths_and_the_full_tower() -> None:
    small, full = described("sizes/llava_onevision_0_5b_cpu"), described("llava_onevision")
    text = small["text_config"]
    assert [text[key] for key in WIDTHS[:4]] == [896, 4864, 14, 2]
    assert small["vision_config"] == {**full["vision_config"], "num_hidden_layers": 1}


def test_every_size_builds() -> None:
    for path in sorted((MODELS / "sizes").glob("*.json")):
        with torch.device("meta"):
            AutoModelForImageTextToText.from_config(AutoConfig.for_model(**described(f"sizes/{path.stem}")))
