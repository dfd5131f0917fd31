"""Rows of one layer's attention matrix, recomputed from its queries and keys without ever holding the matrix."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

BLOCK = 1 << 24  # float32 values in the largest block of scores: 64 MiB


def attention_received(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """How much attention every place receives: `softmax(QKᵀ · scaling)` summed over heads and over the queries given.

    Computed in float32 whatever the dtype, sequence by sequence and in chunks of queries.

    Memory: one block of at most `BLOCK` scores (or one query's row over all heads, if that is more) and their softmax,
    128 MiB together, beside float32 copies of one sequence's queries and keys.

    Args:
        query: `[B, H, q, d]`, the rows wanted.
        key: `[B, H, n, d]`.
        scaling: of the logits.

    Returns:
        `[B, n]` float32; each row sums to H·q.
    """
    heads, places = key.shape[1:3]
    received = torch.zeros(key.shape[0], places, dtype=torch.float32, device=key.device)
    step = max(1, BLOCK // (heads * places))
    with torch.no_grad(), torch.autocast(key.device.type, enabled=False):
        for number, (queries, keys) in enumerate(zip(query, key, strict=True)):
            transposed = keys.float().transpose(1, 2)
            for rows in torch.split(queries, step, dim=1):
                received[number] += ((rows.float() * scaling) @ transposed).softmax(dim=-1).sum((0, 1))
    return received


def pooling_row(head: nn.Module, hidden: Tensor) -> Tensor:
    """The row of a multihead attention pooling head: its probe's attention over the places, summed over heads.

    Args:
        head: a module with `probe [1, 1, C]` and `attention`, a `torch.nn.MultiheadAttention`.
        hidden: `[F, n, C]`, what the head is called with.

    Returns:
        `[F, n]` float32. Memory: the keys of all frames, `[F, n, C]` in the model's dtype.
    """
    attention = cast(nn.MultiheadAttention, head.attention)
    size, heads = attention.embed_dim, attention.num_heads
    weights = attention.in_proj_weight[: 2 * size].chunk(2)
    biases = (None, None) if attention.in_proj_bias is None else attention.in_proj_bias[: 2 * size].chunk(2)
    probe = cast(Tensor, head.probe)
    with torch.no_grad():
        probe = nn.functional.linear(probe[0], weights[0], biases[0])
        keys = nn.functional.linear(hidden, weights[1], biases[1])
    query = probe.view(1, 1, heads, -1).transpose(1, 2).expand(hidden.shape[0], -1, -1, -1)
    keys = keys.view(*keys.shape[:2], heads, -1).transpose(1, 2)
    return attention_received(query, keys, attention.head_dim**-0.5)
