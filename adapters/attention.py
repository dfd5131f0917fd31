"""What FlashAttention reads out of a decoder's arguments beside masks."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, StaticCache
from transformers.utils.generic import is_flash_attention_requested

from adapters.errors import UnsupportedError
from adapters.support import FLASH_TURNS


def one_sequence(decoder: PreTrainedModel, past: int, new: int, device: torch.device) -> dict[str, Any]:
    """Arguments by which FlashAttention takes the tokens of one row for one sequence, though their positions jump.

    Without a mask it reads sequences packed side by side out of the position ids of a single row, in every layer: of a
    first prompt with jumps it makes one sequence all the same, of tokens behind a cache one that sees as many keys as
    there are new tokens, the first ones. Lengths that are given go before that.

    Args:
        decoder: the language model.
        past: keys in the cache.
        new: tokens about to be added.
        device: of these.

    Returns:
        `cu_seq_lens_q`, `cu_seq_lens_k` (int32 `[2]`), `max_length_q`, `max_length_k`; nothing for other attention, and
        for layers that do not all see all keys.
    """
    if not is_flash_attention_requested(decoder.config) or not _sees_all_keys(decoder.config):
        return {}
    start = torch.zeros(1, dtype=torch.int32, device=device)
    queries, keys = (torch.cat([start, torch.full_like(start, length)]) for length in (new, past + new))
    return {"cu_seq_lens_q": queries, "cu_seq_lens_k": keys, "max_length_q": new, "max_length_k": past + new}


def check_jumps(decoder: PreTrainedModel) -> None:
    """Refuse jumps in 1-D positions behind a filled cache where FlashAttention would misread them.

    Raises:
        UnsupportedError: some layers do not see all keys, so one length cannot be right for all.
    """
    if is_flash_attention_requested(decoder.config) and not _sees_all_keys(decoder.config):
        raise UnsupportedError(f"{FLASH_TURNS}.")


def needs_mask(decoder: PreTrainedModel, cache: Any) -> bool:
    """Whether a mask of ones says something: to FlashAttention it says which slots of a static cache are filled."""
    return isinstance(cache, StaticCache) and is_flash_attention_requested(decoder.config)


def _sees_all_keys(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return all(getattr(config, name, None) is None for name in ("sliding_window", "attention_chunk_size"))
    return set(kinds) == {"full_attention"}
