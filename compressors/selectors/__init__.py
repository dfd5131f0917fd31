"""Selectors: which tokens stay, given how many."""

from compressors.selectors.divprune import DivPrune
from compressors.selectors.dominant_contextual import DominantContextual
from compressors.selectors.dpp import DeterminantalPointProcess
from compressors.selectors.one_per_block import OnePerBlock
from compressors.selectors.random import Random
from compressors.selectors.stride import Stride
from compressors.selectors.token_saliency import TokenSaliency
from compressors.selectors.tome import ToMe
from compressors.selectors.tome_temporal import ToMeTemporal

__all__ = [
    "DeterminantalPointProcess",
    "DivPrune",
    "DominantContextual",
    "OnePerBlock",
    "Random",
    "Stride",
    "ToMe",
    "ToMeTemporal",
    "TokenSaliency",
]
