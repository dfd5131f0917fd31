"""FlashAttention's functions in plain operations, so that the library's own path to them runs without a GPU.

Same arguments and meaning as the package's: tokens of several sequences side by side, cumulative lengths, a causal mask
that ends at the lower right corner, windows to both sides.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import modeling_flash_attention_utils as library

NAME = "flash_attention_2"


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """`[B, q, H, D]` over `[B, k, H', D]`."""
    groups = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(groups, 2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (softmax_scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    place = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    ahead = torch.arange(k.shape[1]) - place
    left, right = window_size[0], 0 if causal else window_size[1]
    hidden = torch.zeros_like(ahead, dtype=torch.bool)
    if right >= 0:
        hidden |= ahead > right
    if left >= 0:
        hidden |= ahead < -left
    # A query that sees no key gives zeros.
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).nan_to_num()
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """`[tokens, H, D]`, sequences one behind the other."""
    queries, keys = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert max(queries) <= max_seqlen_q
    assert max(keys) <= max_seqlen_k
    options = {"softmax_scale": softmax_scale, "causal": causal, "window_size": window_size, "softcap": softcap}
    parts = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)  # the lengths must add up
    return torch.cat([flash_attn_func(*(x.unsqueeze(0) for x in part), **options)[0] for part in parts])


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's FlashAttention functions are these from now on."""

    def functions(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return flash_attn_func, flash_attn_varlen_func, None, library._pad_input, library._unpad_input

    monkeypatch.setattr(library, "_lazy_imports", functions)
    monkeypatch.setattr(library, "_loaded_implementation", None)
    monkeypatch.setattr("transformers.integrations.flash_attention._use_top_left_mask", False)


def with_flash(model: Any) -> Any:
    """The model, calling them, its vision tower too."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = NAME
    return model
