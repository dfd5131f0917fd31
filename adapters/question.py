"""Which tokens of a prompt are the question: what query-aware methods get as `VideoTokens.query`.

No tokenizer is at hand here, only token ids and the ids that configurations name. So a question is found by structure:

- Special tokens are never part of it: every id that a `..._token_id` or `..._token_index` of the model's configurations
  or of its generation configuration names (padding, ends, placeholders, vision marks).
- An end-of-sequence token closes a turn, the user's as well as the assistant's (ChatML, as all families here have it).
  The question is in the last closed turn with text in it: what comes after the last end is the header that asks for an
  answer. A prompt without any end is one turn.
- Within that turn it is the text after the last image or video; if there is none, the text before the first. Text
  between media (Qwen3-VL's timestamps) is not part of it.

What stays in although it is no question: the role name of a turn that has no medium before its question, since a header
is text like any other; and an assistant's answer that is closed already, in a prompt that asks for nothing new.
In a later turn on the same cache only the new tokens are looked at; tokens that are being generated are never.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compressors.errors import InputError


def special_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """Every token id that the model's configurations name, sorted."""
    config = model.config
    configs = [config, config.get_text_config(), getattr(model, "generation_config", None)]
    found = set(_named_ids(c for c in configs if c is not None))
    return tuple(sorted(found))


def end_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """The ids that close a turn, sorted."""
    configs = [model.config, model.config.get_text_config(), getattr(model, "generation_config", None)]
    return tuple(sorted({i for c in configs for i in _numbers(getattr(c, "eos_token_id", None))}))


def question_mask(ids: Tensor, valid: Tensor, media: Tensor, special: Iterable[int], ends: Iterable[int]) -> Tensor:
    """`[B, L]` bool: each row's question, by the rules above. Reads nothing on the host.

    Args:
        ids: `[B, L]` token ids.
        valid: `[B, L]` bool, False for padding.
        media: `[B, L]` bool, placeholders of images and videos.
        special: ids that are no text.
        ends: ids that close a turn.
    """
    column = torch.arange(ids.shape[1], device=ids.device)
    text = valid & ~media & ~_any_of(ids, special)
    end = valid & _any_of(ids, ends)
    turn = end.long().cumsum(1) - end.long()
    closed = text & (turn < end.sum(1, keepdim=True))
    usable = torch.where(closed.any(1, keepdim=True), closed, text)
    last_turn = turn == (turn + 1).mul(usable).amax(1, keepdim=True) - 1
    text, media = text & last_turn, media & valid & last_turn
    after = text & (column > torch.where(media, column, -1).amax(1, keepdim=True))
    before = text & (column < torch.where(media, column, ids.shape[1]).amin(1, keepdim=True))
    return torch.where(after.any(1, keepdim=True), after, before)


def embedded_question(embeds: Tensor, question: Tensor | None, counts: list[int], row: int) -> Tensor:
    """`[Q, C]`: a row's question in embeddings.

    Raises:
        InputError: the row has no text at all.
    """
    if question is None or not counts[row]:
        raise InputError(
            f"row {row} of the prompt has no text to take the question from: write one after the video, or choose a "
            f"method that does not need the question."
        )
    chosen = torch.sort(question[row].logical_not().to(torch.uint8), stable=True).indices[: counts[row]]
    return embeds[row, chosen.to(embeds.device)]


def _any_of(ids: Tensor, numbers: Iterable[int]) -> Tensor:
    """Comparing one by one copies nothing to the device."""
    found = torch.zeros_like(ids, dtype=torch.bool)
    for number in numbers:
        found |= ids == number
    return found


def _named_ids(configs: Iterable[object]) -> Iterable[int]:
    for config in configs:
        for name, value in vars(config).items():
            if name.endswith(("_token_id", "_token_index")):
                yield from _numbers(value)


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0]
