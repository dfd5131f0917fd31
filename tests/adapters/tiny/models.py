"""Tiny random models of every family.

Weights are drawn large enough that attention is far from uniform: a wrong mask or position moves the logits visibly.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest
import torch
import transformers

from adapters import family_of
from tests.adapters.tiny import families
from tests.adapters.tiny.family import EOS, PAD, SPECIAL, TEXT, VOCABULARY, Family


def _found() -> dict[str, Family]:
    """The `FAMILIES` of every module in `families/`, core ones first."""
    modules = [
        importlib.import_module(f"{families.__name__}.{m.name}") for m in pkgutil.iter_modules(families.__path__)
    ]
    found = [family for module in modules for family in module.FAMILIES]
    return {family.name: family for family in sorted(found, key=lambda family: not family.core)}


FAMILIES = _found()
CORE = {name: family for name, family in FAMILIES.items() if family.core}


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights at a scale where every layer, head and position matters to the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1 and name.endswith("weight"):  # normalisation layers
                weight.copy_(1 + 0.2 * noise)
            elif weight.ndim == 1:
                weight.copy_(0.2 * noise)
            elif "embed" in name and weight.ndim == 2:
                weight.copy_(noise)
            else:
                weight.copy_(noise * 1.5 / weight[0].numel() ** 0.5)


def quiet_generation(model: Any) -> None:
    """Greedy by default; placeholders are never generated, and nothing ends a sequence early."""
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=PAD, eos_token_id=EOS, suppress_tokens=list(SPECIAL), do_sample=False
    )


@cache
def _master(name: str, attention: str, dtype: torch.dtype, vocabulary: int) -> Any:
    model = FAMILIES[name].master(attention, vocabulary)
    model.eval().requires_grad_(False)
    randomize(model)
    quiet_generation(model)
    return model.to(dtype)


def build(
    family: Family, attention: str = "eager", dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY
) -> Any:
    """A fresh tiny model; equal arguments give equal weights. What the shared one remembers of prompts stays there."""
    model = copy.deepcopy(_master(family.name, attention, dtype, vocabulary))
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = None
    return model


def untouched(
    family: Family, attention: str = "eager", dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY
) -> Any:
    """The shared model of the same weights that no test may press or change: what truth is computed with."""
    return _master(family.name, attention, dtype, vocabulary)


def understood(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that the model takes: an unpressed one does not know what is told to a press alone."""
    told = () if "_vidpress" in vars(model) else family_of(model).told
    return {name: value for name, value in inputs.items() if name not in told}


def tiny_llama() -> Any:
    """A text-only model that no family covers."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT)).eval()
    quiet_generation(model)
    return model


def params(named: Sequence[str] | None = None, *, slow: bool = True) -> list[Any]:
    """Families as pytest parameters; those that are not core are slow.

    Args:
        named: of those that are not core, only these; None takes all.
        slow: all of these are slow; else only further settings of a family are.
    """
    return [
        pytest.param(family, id=name, marks=pytest.mark.slow if family.setting or (slow and not family.core) else ())
        for name, family in FAMILIES.items()
        if family.core or named is None or name in named
    ]
