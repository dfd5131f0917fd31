"""`full`: everything is kept, up to a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from adapters.streaming.errors import StreamError
from adapters.streaming.memory.base import After, Asked, Memory, Store
from adapters.streaming.memory.queries import Queries
from adapters.streaming.memory.slots import Slots
from adapters.streaming.memory.units import Unit, Vector
from adapters.streaming.rotation import Rotation
from compressors.errors import BuildError


@dataclass(frozen=True)
class FullMemory(Memory):
    """Every token stays where one prefill of the whole stream would have it. Beyond the limit, feeding is an error.

    Bytes: `2·layers·kv_heads·head_dim·bytes` per slot; at most `limit` slots, allocated by doubling.

    Attributes:
        limit: tokens held at most, the prompt's opening included.
    """

    name = "full"
    limit: int = 32768

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise BuildError(f"memory full: limit={self.limit} must be at least 1.")

    def open(self, layers: int, rotation: Callable[[], Rotation], axes: int) -> FullStore:
        return FullStore(self.limit, layers, axes)


class FullStore(Store):
    """All tokens of a stream."""

    def __init__(self, limit: int, layers: int, axes: int) -> None:
        self._limit, self._layers, self._axes = limit, layers, axes
        self._slots = Slots(layers, bound=limit)
        self.tail = (0,) * axes

    @property
    def held(self) -> int:
        return self._slots.length

    @property
    def nbytes(self) -> Mapping[str, int]:
        return {"device": self._slots.nbytes}

    def check(self, units: Sequence[Unit]) -> None:
        new = sum(unit.tokens for unit in units)
        if self.held + new > self._limit:
            raise StreamError(
                f"full memory holds {self.held} tokens and {new} more would exceed limit={self._limit}: "
                f'use memory="window" or "retrieval", raise the limit, keep fewer tokens (pruner=), or reset().'
            )

    def cache(self, tokens: int) -> Cache:
        return self._slots.cache(tokens)

    def begin(self, opening: Unit) -> None:
        self.begun = True
        self.commit([opening], opening.following)

    def commit(self, units: Sequence[Unit], tail: Vector) -> None:
        self._slots.commit(sum(unit.tokens for unit in units))
        self.tail = tail

    def fork(self, room: int) -> FullStore:
        twin = FullStore(self._limit, self._layers, self._axes)
        twin._slots, twin.tail, twin.begun = self._slots.copy(room), self.tail, self.begun
        return twin

    def question(self, after: After, queries: Queries | None, tokens: int) -> Asked:
        return AskedSlots(self._slots, after(self.tail))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self._slots.state(), {"tail": list(self.tail), "begun": self.begun}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], device: torch.device) -> None:
        self._slots.restore(dict(tensors), device)
        self.tail, self.begun = tuple(values["tail"]), values["begun"]


class AskedSlots(Asked):
    """A question behind everything in the slots of a fork."""

    def __init__(self, slots: Slots, start: Vector) -> None:
        self._slots, self.start = slots, start
        self._seen = slots.length

    @property
    def slots(self) -> int:
        return self._seen

    def cache(self, tokens: int) -> Cache:
        return self._slots.cache(tokens)

    def commit(self, tokens: int) -> None:
        self._slots.commit(tokens)
