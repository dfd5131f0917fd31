"""What attention backends read out of a decoder's arguments beside masks."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils.generic import is_flash_attention_requested

from adapters.errors import UnsupportedError
from adapters.support import FLASH_TURNS


def one_sequence(decoder: PreTrainedModel, past: int, new: int, device: torch.device) -> dict[str, Any]:
    """Arguments by which FlashAttention takes the tokens of one row for one sequence, though their positions jump.

    Without a mask it reads sequences packed side by side out of the position ids of a single row. Of a first prompt it
    makes one sequence all the same; of tokens behind a cache it makes one that sees as many keys as there are new
    tokens, the first ones. Lengths that are given go before that.

    Args:
        decoder: the language model.
        past: keys in the cache.
        new: tokens about to be added.
        device: of these.

    Returns:
        `cu_seq_lens_q`, `cu_seq_lens_k` (int32 `[2]`), `max_length_q`, `max_length_k`; nothing where none is needed.

    Raises:
        UnsupportedError: some layers do not see all keys, so one length cannot be right for all.
    """
    if not past or not is_flash_attention_requested(decoder.config):
        return {}
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UnsupportedError(f"{type(decoder).__name__} has {sorted(kinds)} layers: {FLASH_TURNS}.")
    # Built on the host and sent along, so that nothing waits.
    queries, keys = torch.tensor([[0, new], [0, past + new]], dtype=torch.int32).to(device, non_blocking=True)
    return {"cu_seq_lens_q": queries, "cu_seq_lens_k": keys, "max_length_q": new, "max_length_k": past + new}
