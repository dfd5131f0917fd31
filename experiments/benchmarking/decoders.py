"""What a decoder's layers compute and read, layer by layer: full attention, windows, recurrent states, experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

CHUNK = 64  # positions that the gated delta rule takes together while a prompt is read
STATE = 4  # bytes of a value of a recurrent state: float32, whatever the model's dtype


@dataclass
class Tally:
    """Operations (FLOP) and bytes that have been counted so far."""

    operations: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Call:
    """One call of the decoder.

    Attributes:
        rows: of the batch.
        new: tokens of each row that are read.
        past: tokens that its cache holds already.
        item: bytes of a value.
    """

    rows: int
    new: int
    past: int
    item: int


def countable(decoder: Any) -> bool:
    """Whether all of its layers are of kinds that are known here."""
    return all(_attention(layer) is not None or _delta_rule(layer) is not None for layer in _layers(decoder))


def count(decoder: Any, config: Any, call: Call) -> Tally:
    """All of its layers, and what comes before them beside the embedding (Gemma 4's inputs per layer).

    Args:
        decoder: with `layers`, each with a `self_attn`, or with a `linear_attn` that is a gated delta rule.
        config: the text model's.
        call: what is asked of it.
    """
    tally = Tally()
    for name, part in decoder.named_children():
        if name != "layers":
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    _matrix(tally, module.weight, call.rows * call.new, call.item)
    last_only = _last_only(decoder)
    for index, layer in enumerate(_layers(decoder)):
        queries = 1 if index >= last_only else call.new
        _weights(tally, layer, config, call.rows * queries, call.item)
        if (attention := _attention(layer)) is not None:
            _attend(tally, attention, config, call, queries)
        elif (rule := _delta_rule(layer)) is not None:
            _recur(tally, rule, call)
    return tally


def _layers(decoder: Any) -> list[Any]:
    return list(decoder.layers)


def _attention(layer: Any) -> Any:
    attention = getattr(layer, "self_attn", None)
    return attention if hasattr(attention, "head_dim") else None


def _delta_rule(layer: Any) -> Any:
    rule = getattr(layer, "linear_attn", None)
    return rule if hasattr(rule, "head_k_dim") and hasattr(rule, "num_v_heads") else None


def _last_only(decoder: Any) -> int:
    """From which layer on only the last token of a prompt is computed: Gemma 4's, which have no keys of their own.

    FlashAttention and FlexAttention compute all of them.
    """
    layers = len(_layers(decoder))
    kernel = str(decoder.config._attn_implementation)
    if not hasattr(decoder, "_maybe_slice_kv_shared_inputs") or "flash" in kernel or "flex" in kernel:
        return layers
    return int(getattr(decoder, "first_kv_shared_layer_idx", layers) or layers)


def _matrix(tally: Tally, weight: Any, tokens: int, item: int) -> None:
    tally.operations += 2 * weight.numel() * tokens
    tally.bytes += weight.numel() * item


def _weights(tally: Tally, layer: Any, config: Any, tokens: int, item: int) -> None:
    """Matrices that every token meets, convolutions along the sequence, and experts, of which a token meets some."""
    convolutions = {id(module.weight) for module in layer.modules() if isinstance(module, nn.Conv1d)}
    for weight in layer.parameters():
        if weight.ndim == 2 or id(weight) in convolutions:
            _matrix(tally, weight, tokens, item)
        elif weight.ndim == 3:
            active = getattr(config, "num_experts_per_tok", None) or config.top_k_experts
            tally.operations += 2 * weight[0].numel() * active * tokens
            tally.bytes += weight[0].numel() * item * min(weight.shape[0], active * tokens)


def _attend(tally: Tally, attention: Any, config: Any, call: Call, queries: int) -> None:
    """Every query sees every key, or as many as its window has; keys and values are written once and read once."""
    length = call.past + call.new
    window = getattr(attention, "sliding_window", None)
    seen = length if window is None else min(length, window)
    heads, width = config.num_attention_heads, attention.head_dim
    groups = getattr(attention, "num_key_value_groups", None) or heads // config.num_key_value_heads
    token = 2 * (heads // groups) * width * call.item
    tally.operations += 4 * call.rows * queries * seen * heads * width
    # All that is in the cache is read, of a window at most what it holds; of a prompt, all of it.
    tally.bytes += call.rows * token * (min(length, max(seen, call.new)))
    if not getattr(attention, "is_kv_shared_layer", False):
        tally.bytes += call.rows * token * (call.new if window is None else min(call.new, window))


def _recur(tally: Tally, rule: Any, call: Call) -> None:
    """The gated delta rule: chunks of a prompt, each against a state of one size; one update per decoding step.

    A chunk of c positions: k kᵀ, q kᵀ and the product with the values inside it, three products with the state. A step:
    what the state says of the key, its update, and what it says of the query. Solving a chunk's triangular system is
    not counted.
    """
    keys, values = rule.head_k_dim, rule.head_v_dim
    state = keys * values
    if call.new == 1:
        operations = 6 * state
    else:
        chunks = -(-call.new // CHUNK)
        operations = chunks * 2 * CHUNK * (CHUNK * (2 * keys + values) + 3 * state)
    tally.operations += call.rows * rule.num_v_heads * operations
    held = rule.num_v_heads * state * STATE + rule.conv1d.weight.numel() * call.item
    tally.bytes += call.rows * held * (2 if call.past else 1)


__all__ = ["Call", "Tally", "count", "countable"]
