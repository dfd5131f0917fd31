"""What a press can do with a family's models, feature by feature; what it cannot is refused with the reason."""

from __future__ import annotations

from typing import Literal, get_args

from transformers import GenerationMixin

Feature = Literal[
    "pruning",
    "merging",
    "encoder taps",
    "batch",
    "static cache",
    "beams",
    "assisted decoding",
    "chat turns",
    "contiguous positions",
    "cacher",
    "streaming",
]
FEATURES: tuple[Feature, ...] = get_args(Feature)

ENCODES_BEFORE_EXPANDING = hasattr(GenerationMixin, "_expand_multimodal_outputs")
"""Whether this transformers encodes media once and then repeats what came out for every beam (from 5.23); before, it
repeated the pixels."""
