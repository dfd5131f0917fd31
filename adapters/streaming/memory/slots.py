"""`Slots`: keys and values of all layers in tensors with room to spare, and the cache that a forward writes them by.

`DynamicCache` concatenates: every forward copies all that came before. Here new tokens are written behind the last one
in place, and what is no longer wanted is left behind at the front; when the end of the tensor is reached, what is in
use moves to its front. A token is moved once per window at most, so a chunk costs the same however long the stream is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Slots:
    """Keys and values `[1, heads, capacity, D]` per layer, in use from `first` to `end`.

    A forward writes behind `end`; nothing of it counts until `commit`. So a forward that fails leaves no trace.

    Args:
        layers: of the language model.
        bound: slots that are never exceeded by growing ahead; None is no bound.
    """

    def __init__(self, layers: int, bound: int | None = None) -> None:
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self.first = self.end = self.capacity = 0
        self._bound = bound

    @property
    def length(self) -> int:
        """Slots in use."""
        return self.end - self.first

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, room to spare included."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values) if t is not None)

    def cache(self, tokens: int) -> Cache:
        """What a forward that adds `tokens` tokens takes as `past_key_values`."""
        self.reserve(tokens)
        return Cache(layers=[SlotLayer(self, layer) for layer in range(len(self.keys))])

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens behind the end."""
        if self.end + tokens <= self.capacity:
            return
        length = self.length
        if length <= self.first and length + tokens <= self.capacity:
            self._move(0, None)  # the two places do not overlap
            return
        capacity = 2 * (length + tokens)
        if self._bound is not None:
            capacity = max(length + tokens, min(capacity, self._bound))
        self._move(0, capacity)

    def _move(self, to: int, capacity: int | None) -> None:
        """Bring what is in use to slot `to`, of new tensors if a capacity is given."""
        length = self.length
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                if old is None:
                    continue
                new = old
                if capacity is not None:
                    new = old.new_empty(*old.shape[:2], capacity, old.shape[3])
                new[:, :, to : to + length] = old[:, :, self.first : self.end]
                tensors[layer] = new
        self.first, self.end = to, to + length
        self.capacity = self.capacity if capacity is None else capacity

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """One layer's new keys and values `[1, heads, n, D]`, behind the end; all in use with them, as views."""
        stop = self.end + keys.shape[2]
        found = []
        for tensors, new in ((self.keys, keys), (self.values, values)):
            tensor = tensors[layer]
            if tensor is None:
                tensor = tensors[layer] = new.new_empty(1, new.shape[1], self.capacity, new.shape[3])
            tensor[:, :, self.end : stop] = new
            found.append(tensor[:, :, self.first : stop])
        return found[0], found[1]

    def commit(self, tokens: int) -> None:
        """Keep what the last forward wrote."""
        self.end += tokens

    def drop(self, tokens: int) -> None:
        """Leave the first tokens in use behind."""
        self.first += tokens

    def read(self, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values `[1, heads, n, D]` of a layer, from the `start`-th to the `stop`-th in use; views."""
        keys, values = self.keys[layer], self.values[layer]
        assert keys is not None
        assert values is not None
        place = slice(self.first + start, self.first + stop)
        return keys[:, :, place], values[:, :, place]

    def copy(self, room: int) -> Slots:
        """What is in use, copied, with so much room behind it."""
        twin = Slots(len(self.keys))
        twin.end, twin.capacity = self.length, self.length + room
        for mine, theirs in ((self.keys, twin.keys), (self.values, twin.values)):
            for layer, tensor in enumerate(mine):
                if tensor is not None:
                    copied = tensor.new_empty(*tensor.shape[:2], twin.capacity, tensor.shape[3])
                    copied[:, :, : self.length] = tensor[:, :, self.first : self.end]
                    theirs[layer] = copied
        return twin

    def state(self) -> dict[str, Tensor]:
        """What is in use, `[layers, heads, n, D]`, for a file."""
        if not self.length:
            return {}
        pairs = [self.read(layer, 0, self.length) for layer in range(len(self.keys))]
        return {"keys": torch.cat([k for k, _ in pairs]).cpu(), "values": torch.cat([v for _, v in pairs]).cpu()}

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take what `state` gave; these slots must be empty."""
        if not tensors:
            return
        self.reserve(tensors["keys"].shape[2])
        for layer in range(len(self.keys)):
            self.write(
                layer, tensors["keys"][layer : layer + 1].to(device), tensors["values"][layer : layer + 1].to(device)
            )
        self.commit(tensors["keys"].shape[2])


class SlotLayer(CacheLayerMixin):
    """One layer of a `Cache` over `Slots`."""

    is_sliding = False

    def __init__(self, slots: Any, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots, self._layer = slots, layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the slots take their shape from the first keys written."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        written: tuple[Tensor, Tensor] = self._slots.write(self._layer, key_states, value_states)
        return written

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._slots.length + query_length, 0

    def get_seq_length(self) -> int:
        return int(self._slots.length)

    def get_max_length(self) -> int:
        return -1
