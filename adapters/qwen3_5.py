"""Qwen3.5, dense and mixture of experts: the layout of Qwen3-VL without DeepStack; most of its layers are recurrent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adapters.family import register_family
from adapters.qwen3_vl import Qwen3VL
from adapters.support import Feature


@register_family
class Qwen35(Qwen3VL):
    """Three layers in four keep a recurrent state (gated delta rule) instead of keys and values.

    A masked token would still decay that state, so dropping does not equal masking here: a compressed prompt gives what
    the shortened sequence gives.
    """

    name = "qwen3_5"
    model_types = ("qwen3_5", "qwen3_5_moe")
    classes = "Qwen3_5ForConditionalGeneration, Qwen3_5MoeForConditionalGeneration"
    checkpoint = "Qwen/Qwen3.5-9B"
    layout = "one run per group of two frames, timestamps between; linear and full attention layers"
    streams = False
    masking = False
    refuses: ClassVar[Mapping[Feature, str]] = {
        "assisted decoding": "transformers cannot take rejected tokens back out of its recurrent states"
    }
