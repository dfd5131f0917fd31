"""Qwen3.5, dense and mixture of experts: one recurrent layer, one of full attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import transformers

from tests.adapters.tiny.families.qwens import ROPE, VISION, Qwen3VL
from tests.adapters.tiny.family import HIDDEN, IDS, TEXT


class Qwen35(Qwen3VL):
    name = "qwen3_5"
    model_class = "Qwen3_5ForConditionalGeneration"
    core = False
    tolerance = 1e-5  # recurrences are computed in float32, a step at a time and in chunks; 4.3e-6 was seen
    skips: Mapping[str, str] = {
        "test_a_second_turn_with_several_answers": "the library cannot repeat the states of its recurrent layers",
    }
    vision: ClassVar[dict[str, Any]] = {
        **VISION,
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": HIDDEN,
        "num_position_embeddings": 16,
    }
    text: ClassVar[dict[str, Any]] = {
        **TEXT,
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "rope_parameters": {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0},
    }

    def config(self) -> Any:
        return transformers.Qwen3_5Config(text_config=dict(self.text), vision_config=dict(self.vision), **IDS)


class Qwen35Moe(Qwen35):
    name = "qwen3_5_moe"
    model_class = "Qwen3_5MoeForConditionalGeneration"

    def config(self) -> Any:
        text = {**self.text, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        text |= {"shared_expert_intermediate_size": 16}
        return transformers.Qwen3_5MoeConfig(text_config=text, vision_config=dict(self.vision), **IDS)

    def master(self, attention: str, vocabulary: int) -> Any:
        model = super().master(attention, vocabulary)
        model.set_experts_implementation("eager")  # the grouped kernels have no float64
        return model


FAMILIES = (Qwen35(), Qwen35Moe())
