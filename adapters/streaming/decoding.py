"""Running the language model on a stream: chunks into a memory, a question and its answer out of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from adapters.attention import one_sequence
from adapters.family import Family
from adapters.streaming.form import Kept, Part, Piece, text_positions
from adapters.streaming.memory.base import Asked
from compressors.errors import InputError


@dataclass(frozen=True, eq=False)
class Spoken:
    """What came out of greedy decoding: ids, and the logits `[steps, vocabulary]` if they were asked for."""

    ids: tuple[int, ...]
    logits: Tensor | None


class LanguageModel:
    """A model's decoder, called with embeddings and positions that the caller has laid out."""

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        self._model, self._family = model, family
        self.decoder = family.decoder(model)
        self._embed: Any = model.get_input_embeddings()
        self._head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        ends = model.generation_config.eos_token_id if model.generation_config is not None else None
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        self._suppressed = list(getattr(model.generation_config, "suppress_tokens", None) or ())

    @property
    def device(self) -> torch.device:
        return self._embed.weight.device  # type: ignore[no-any-return]

    @property
    def layers(self) -> int:
        return int(self.decoder.config.num_hidden_layers)

    def without_end(self, ids: Sequence[int]) -> Sequence[int]:
        """Generated ids without the token that ended them."""
        return ids[:-1] if ids and ids[-1] in self._ends else ids

    def write(self, pieces: Sequence[Piece], kept: Kept | None, cache: Cache) -> None:
        """Run pieces of a prompt, one after the other, and let the cache take their keys and values."""
        parts = list(itertools.chain.from_iterable(piece.parts for piece in pieces))
        positions = torch.cat([piece.unit.positions for piece in pieces], dim=1)
        self._forward(parts, kept, positions, cache)

    def speak(self, asked: Asked, parts: Sequence[Part], most: int, keep_logits: bool) -> Spoken:
        """Read a question and decode greedily, until an end token or `most` tokens."""
        count = sum(part.shape[0] if isinstance(part, Tensor) else 1 for part in parts)
        positions = text_positions(asked.start, count, self.device)
        hidden = self._forward(parts, None, positions, asked.cache(count))
        asked.commit(count)
        ids: list[int] = []
        logits: list[Tensor] = []
        while True:
            scores = self._head(hidden[:, -1])[0]
            if keep_logits:
                logits.append(scores)
            if self._suppressed:
                scores = scores.clone()
                scores[self._suppressed] = -torch.inf
            ids.append(int(scores.argmax()))
            if ids[-1] in self._ends or len(ids) >= most:
                return Spoken(tuple(ids), torch.stack(logits) if keep_logits else None)
            step = torch.tensor(ids[-1:], device=self.device)
            positions = positions[:, -1:] + 1
            hidden = self._forward([step], None, positions, asked.cache(1))
            asked.commit(1)

    def _forward(self, parts: Sequence[Part], kept: Kept | None, positions: Tensor, cache: Cache) -> Tensor:
        """Hidden states `[1, n, C]` after the last layer."""
        embedded, visual = [], []
        for part in parts:
            rows = self._rows(part, kept)
            embedded.append(rows)
            visual.append(torch.full((rows.shape[0],), isinstance(part, slice), device=rows.device))
        extra: dict[str, Any] = {}
        if kept is not None and kept.planes:
            extra = {
                "visual_pos_masks": torch.cat(visual).unsqueeze(0),
                "deepstack_visual_embeds": [plane.to(self.device) for plane in kept.planes],
            }
        if positions.shape[0] == 1 and kept is not None:  # a pruner may have left jumps in them
            extra |= one_sequence(self.decoder, int(cache.get_seq_length()), positions.shape[1], self.device)
        output = self.decoder(
            inputs_embeds=torch.cat(embedded).unsqueeze(0),
            position_ids=positions.unsqueeze(1) if positions.shape[0] > 1 else positions,
            past_key_values=cache,
            use_cache=True,
            **extra,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _rows(self, part: Part, kept: Kept | None) -> Tensor:
        weight: Tensor = self._embed.weight
        if isinstance(part, Tensor):
            rows: Tensor = self._embed(part)
            return rows
        if isinstance(part, slice):
            assert kept is not None
            return kept.features[part].to(weight.device, weight.dtype)
        newline: Any = getattr(self._family.base(self._model), "image_newline", None)
        if newline is None:
            raise InputError(f"{type(self._model).__name__} has no image_newline.")
        return newline.to(weight.device, weight.dtype).unsqueeze(0)  # type: ignore[no-any-return]
