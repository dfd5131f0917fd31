"""`Queries`: a question's mean query in every layer of the language model, read while its forward runs.

A forward hook on what each layer makes its queries with (`q_proj`, or the norm after it where there is one) notes the
mean over the question's tokens, before rotary embedding: a layer's keys are compared by content, whatever their place.
The hooks are there while one question is asked and look away from other threads, so several may be asked at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.errors import UnsupportedError


class Queries:
    """What the hooks noted.

    Attributes:
        mean: per layer, `[heads, D]` float32: the layer's mean query, from when the layer has computed it.
    """

    def __init__(self) -> None:
        self.mean: dict[int, Tensor] = {}


def query_modules(decoder: PreTrainedModel) -> list[tuple[nn.Module, int]]:
    """Per layer, the module whose output is its queries, and their width D.

    Raises:
        UnsupportedError: the layers are built otherwise.
    """
    found: list[tuple[nn.Module, int]] = []
    for layer in getattr(decoder, "layers", ()):
        attention: Any = getattr(layer, "self_attn", None)
        if not hasattr(attention, "q_proj") or not hasattr(attention, "head_dim"):
            found.clear()
            break
        found.append((getattr(attention, "q_norm", attention.q_proj), int(attention.head_dim)))
    if not found:
        raise UnsupportedError(
            f"{type(decoder).__name__} has no layers with self_attn.q_proj, so a question's queries cannot be read: "
            f"use memory=window."
        )
    return found


@contextmanager
def reading(decoder: PreTrainedModel, asked: Tensor) -> Iterator[Queries]:
    """Note the queries of this thread's next forward; later ones are not looked at.

    Args:
        decoder: the language model.
        asked: `[n]` bool, the question's own tokens among the n that the forward gets.
    """
    queries, thread = Queries(), threading.get_ident()

    def note(layer: int, width: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            if threading.get_ident() == thread and layer not in queries.mean:
                rows = output.detach().reshape(asked.shape[0], -1, width)
                queries.mean[layer] = rows[asked.to(rows.device)].float().mean(0)

        return hook

    modules = query_modules(decoder)
    handles = [module.register_forward_hook(note(i, width)) for i, (module, width) in enumerate(modules)]
    try:
        yield queries
    finally:
        for handle in handles:
            handle.remove()
