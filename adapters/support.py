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

UNEVEN_TURNS = (
    "where the rows of a batch keep different numbers of tokens in a later turn, what pads the shorter would stand "
    "between the turns, and this decoder does not ignore it: continue each conversation on its own, or keep equally "
    "many tokens"
)
FLASH_TURNS = (
    "FlashAttention reads sequences out of position ids, and a compressed video behind a filled cache leaves jumps in "
    "them, which layers that do not see all keys (windows, recurrence) cannot be told to ignore: load the model with "
    "attn_implementation='sdpa', or take positions='contiguous'"
)
