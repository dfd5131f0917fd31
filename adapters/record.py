"""What a compressed prompt leaves on its key/value cache, and how logical and physical lengths translate.

*Logical* lengths and masks count every token of the prompt; *physical* ones count the slots in the cache. Hugging Face
generation keeps logical ones; attention needs physical ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters.errors import UnsupportedError

_RECORDS = "_vidpress_records"


@dataclass(frozen=True, eq=False)
class Moved:
    """How contiguous positions differ from the model's own, for what follows a prompt.

    A model continues in two ways: `generate` behind the prompt's last token, everything else behind the largest M-RoPE
    position so far, which a long video's time axis may have pushed beyond the last token's.

    Attributes:
        shift: `[B, 1]`, how far the last token moved down; None when positions are the original ones.
        extent: `[B, 1]`, the largest original position so far (M-RoPE only).
        end: `[B, 1]`, the largest position after moving (M-RoPE only).
    """

    shift: Tensor | None = None
    extent: Tensor | None = None
    end: Tensor | None = None

    def reaching(self, largest: Tensor) -> Moved:
        """A further stretch of prompt whose largest position, as given (moved like what came before), is `largest`."""
        original = largest if self.shift is None else largest + self.shift
        return Moved(self.shift, _larger(self.extent, original), _larger(self.end, largest))

    def by(self, more: Tensor, end: Tensor | None) -> Moved:
        """The same after that stretch moved down by `more`, up to the largest position `end`."""
        return Moved(more if self.shift is None else self.shift + more, self.extent, end)

    def apply(self, positions: Tensor) -> Tensor:
        """Positions `[B, q]` or `[axes, B, q]` as the model computes them, moved.

        With four axes the first is the text index that only masks look at; it stays. One axis means that the model
        continued behind the largest position.
        """
        if self.shift is None:
            return positions
        if positions.ndim == 3 and positions.shape[0] == 4:
            return torch.cat([positions[:1], positions[1:] - self.shift])
        if positions.ndim == 3 and self.extent is not None and self.end is not None:
            return positions - (self.extent - self.end)
        return positions - self.shift

    def repeated(self, times: int) -> Moved:
        """For every row of a batch as many copies in a row."""
        return Moved(*(None if v is None else v.repeat_interleave(times, 0) for v in vars(self).values()))


def _larger(one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else torch.maximum(one, other)


@dataclass(frozen=True, eq=False)
class Record:
    """Bookkeeping of one compressed prompt.

    Attributes:
        logical: tokens of the prompt so far, dropped ones included.
        valid: `[B, P]` bool, which of the P physical slots hold a token of their row (False: padding).
        ragged: whether `valid` may contain False.
        rope_deltas: `[B, 1]`, what to add to a token's index for its (moved) M-RoPE position; None for 1-D.
        moved: what contiguous positions changed.
        first_layer: the layer from which the record holds; 0 for compression before the language model.
    """

    logical: int
    valid: Tensor
    ragged: bool
    rope_deltas: Tensor | None = None
    moved: Moved = field(default_factory=Moved)
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
            length = int(cache.get_seq_length()) + new - self.physical
            rest = torch.ones(self.valid.shape[0], length, dtype=torch.long, device=self.valid.device)
            return torch.cat([self.valid.long(), rest], dim=1)
        return torch.cat([self.valid.to(mask.device, mask.dtype), mask[:, self.logical :]], dim=1)

    def for_rows(self, rows: int) -> Record:
        """The record of a cache whose rows were each repeated (several answers to one prompt).

        Raises:
            UnsupportedError: the rows are no multiple of the compressed prompt's.
        """
        times, rest = divmod(rows, self.valid.shape[0])
        if rest or not times:
            raise UnsupportedError(
                f"the cache holds a compressed prompt of {self.valid.shape[0]} rows, and {rows} rows continue it: "
                f"continue with the same rows, or with each repeated equally often."
            )
        if times == 1:
            return self
        deltas = None if self.rope_deltas is None else self.rope_deltas.repeat_interleave(times, 0)
        valid, moved = self.valid.repeat_interleave(times, 0), self.moved.repeated(times)
        return replace(self, valid=valid, rope_deltas=deltas, moved=moved)


def record_of(cache: Any) -> Record | None:
    """The record a cache carries, or None; nothing about the cache is read."""
    records: list[Record] | None = getattr(cache, _RECORDS, None)
    return records[0] if records else None


def checked_record(cache: Any) -> Record | None:
    """`record_of`, after looking at the cache's length (a read on the host for some caches): for new turns only.

    A cache that was reset loses its record.

    Raises:
        UnsupportedError: the cache was cropped into the compressed prompt.
    """
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


def continued(values: dict[str, Any], tokens: Tensor, record: Record, cache: Any) -> dict[str, Any]:
    """What `generate` would have supplied to a forward on a compressed cache: positions and a physical mask."""
    new, mask, length = tokens.shape[1], values.get("attention_mask"), int(cache.get_seq_length())
    supplied: dict[str, Any] = {}
    logical = mask if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] != length + new else None
    if mask is None or logical is not None:
        supplied["attention_mask"] = record.physical_mask(logical, cache, new)
    if values.get("position_ids") is None:
        start = length + record.missing
        positions = torch.arange(start, start + new, device=tokens.device).expand(tokens.shape[0], new)
        if record.rope_deltas is None:
            # The library counts padding here: without position ids it looks at nothing but the cache's length.
            supplied["position_ids"] = record.moved.apply(positions)
        else:
            if logical is not None:
                positions = (logical.long().cumsum(1) - 1).masked_fill(logical == 0, 0)[:, -new:]
            supplied["position_ids"] = (positions + record.rope_deltas.to(positions.device)).expand(3, *positions.shape)
    return supplied


def newest(value: Tensor, new: int, total: int) -> Tensor:
    """`[B, new]`: a statement about tokens, for the newest of `total` (0: nobody knows).

    It says nothing about tokens that came after the prompt (generated, or proposed by an assistant): zeros.
    """
    missing = max(0, total - value.shape[1], new - value.shape[1])
    return functional.pad(value, (0, missing))[:, -new:]


def marked(
    values: dict[str, Any], names: Sequence[str], new: int, total: int, mask: Tensor | None, cache: Any
) -> dict[str, Tensor]:
    """Marks of tokens, which the base model looks up by place in the cache, with a zero for every slot before."""
    given = {name: value for name in names if (value := values.get(name)) is not None}
    if not given:
        return {}
    past = mask.shape[1] - new if mask is not None else int(cache.get_seq_length())
    return {name: functional.pad(newest(value, new, total), (past, 0)) for name, value in given.items()}
