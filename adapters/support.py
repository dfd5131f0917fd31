"""What a press can do with a family's models, feature by feature; what it cannot is refused with the reason."""

from __future__ import annotations

from typing import Literal, get_args

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
