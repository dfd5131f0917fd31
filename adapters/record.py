"""What a compressed prompt leaves on its key/value cache, and how logical and physical lengths translate.

*Logical* lengths and masks count every token of the prompt; *physical* ones count the slots in the cache. Hugging Face
generation keeps logical ones; attention needs physical ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters.errors import UnsupportedError

_RECORDS = "_vidpress_records"


@dataclass(frozen=True, eq=False)
class Record:
    """Bookkeeping of one compressed prompt.

    Attributes:
        logical: tokens of the prompt so far, dropped ones included.
        valid: `[B, P]` bool, which of the P physical slots hold a token of their row (False: padding).
        ragged: whether `valid` may contain False.
        rope_deltas: `[B, 1]`, what the model adds to a token's index to get its M-RoPE position; None for 1-D.
        shift: `[B, 1]`, how far positions moved down (contiguous positions); None when they are original.
        first_layer: the layer from which the record holds; 0 for compression before the language model.
    """

    logical: int
    valid: Tensor
    ragged: bool
    rope_deltas: Tensor | None = None
    shift: Tensor | None = None
    first_layer: int = 0

    @property
    def physical(self) -> int:
        """P."""
        return self.valid.shape[1]

    @property
    def missing(self) -> int:
        """Logical minus physical length; constant once the prompt is in."""
        return self.logical - self.physical

    def physical_mask(self, mask: Tensor | None, cache: Any, new: int) -> Tensor | None:
        """A logical 2-D mask over everything (or None for all ones) as a mask over the physical slots.

        Args:
            mask: `[B, logical length now]` or None.
            cache: the cache, whose length is read only where no mask says it.
            new: tokens about to be added.
        """
        if mask is None and not self.ragged:
            return None
        if mask is None:
            rows = self.valid.shape[0]
            length = int(cache.get_seq_length()) + new - self.physical
            rest = torch.ones(rows, length, dtype=torch.long, device=self.valid.device)
            return torch.cat([self.valid.long(), rest], dim=1)
        valid = self.valid
        if valid.shape[0] != mask.shape[0]:
            valid = valid.repeat_interleave(mask.shape[0] // valid.shape[0], dim=0)
        return torch.cat([valid.to(mask.device, mask.dtype), mask[:, self.logical :]], dim=1)

    def shifted(self, positions: Tensor) -> Tensor:
        """Original positions `[B, q]` or `[axes, B, q]` of tokens after the prompt, moved with it.

        With four axes the first is the text index that only masks look at; it stays.
        """
        if self.shift is None:
            return positions
        if positions.ndim == 3 and positions.shape[0] == 4:
            return torch.cat([positions[:1], positions[1:] - self.shift])
        return positions - self.shift


def record_of(cache: Any) -> Record | None:
    """The record a cache carries, or None; a cache that was reset loses it.

    Raises:
        UnsupportedError: the cache was cropped into the compressed prompt.
    """
    records: list[Record] | None = getattr(cache, _RECORDS, None)
    return records[0] if records else None


def checked_record(cache: Any) -> Record | None:
    """`record_of`, after looking at the cache's length (a read on the host for some caches): for new turns only."""
    record = record_of(cache)
    if record is None:
        return None
    length = int(cache.get_seq_length())
    if length == 0:
        delattr(cache, _RECORDS)
        return None
    if length < record.physical:
        raise UnsupportedError(
            f"the cache was cropped to {length} slots, inside a compressed prompt of {record.physical}: "
            f"crop only what came after the prompt, or start with a new cache."
        )
    return record


def attach_record(cache: Any, record: Record) -> None:
    """Put a record on a cache (state belongs to the cache, so several conversations do not mix)."""
    setattr(cache, _RECORDS, [record])


class LogicalLength:
    """Stands for a cache where only its length is asked for, and answers with the logical one."""

    def __init__(self, cache: Any, record: Record) -> None:
        self._cache, self._missing = cache, record.missing

    def get_seq_length(self, *args: Any, **kwargs: Any) -> Any:
        return self._cache.get_seq_length(*args, **kwargs) + self._missing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)
