"""`window`: an attention sink and the most recent tokens."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from adapters.streaming.errors import StreamError
from adapters.streaming.memory.base import After, Asked, Memory, Store
from adapters.streaming.memory.full import AskedSlots
from adapters.streaming.memory.queries import Queries
from adapters.streaming.memory.slots import Slots
from adapters.streaming.memory.units import Unit, Vector, minus, plus
from adapters.streaming.rotation import Rotation
from compressors.errors import BuildError

# Angles are float32 in every model: beyond this position they lose too much, so the window moves back.
FARTHEST = 65536

Numbering = Literal["consecutive", "original"]


@dataclass(frozen=True)
class WindowMemory(Memory):
    """An attention sink (the prompt's opening) and the most recent units (StreamingLLM, arXiv 2309.17453).

    A chunk attends to the sink, to what the window holds when it comes, and to itself; then the oldest units go until
    at most `recent` tokens are left. With consecutive numbering the sink moves up behind which the window begins, so
    distances are those of a sequence without what was let go; nothing else is rotated, but the window once in 32 768
    positions or more, when it goes back to low ones.

    Bytes: `2·layers·kv_heads·head_dim·bytes` per slot; at most `2·(opening + sink + recent + largest chunk)` slots on
    the device, a copy of what is in use while a question is answered, and the sink once more.

    Attributes:
        sink: the sink's least size: while the opening is shorter, the stream's first units join it whole.
        recent: tokens of the window, at most.
        positions: "consecutive", or "original": every token where it was when it came, gaps included.
    """

    name = "window"
    sink: int = 1
    recent: int = 4096
    positions: Numbering = "consecutive"

    def __post_init__(self) -> None:
        check_settings(self.name, self.sink, self.positions, recent=self.recent)

    def open(self, layers: int, rotation: Callable[[], Rotation], axes: int) -> WindowStore:
        moves = rotation() if self.positions == "consecutive" else None
        return WindowStore(self.sink, self.recent, moves, layers, axes)


def check_settings(name: str, sink: int, positions: str, **least_one: int) -> None:
    """Refuse settings that make no sense.

    Raises:
        BuildError: naming the setting.
    """
    if sink < 0:
        raise BuildError(f"memory {name}: sink={sink} must be 0 or more.")
    for setting, value in least_one.items():
        if value < 1:
            raise BuildError(f"memory {name}: {setting}={value} must be at least 1.")
    if positions not in ("consecutive", "original"):
        raise BuildError(f"memory {name}: positions={positions!r}: write consecutive or original.")


class WindowStore(Store):
    """In the slots: the sink, and right behind it the window, oldest unit first.

    Attributes:
        gap: how far the window's positions are beyond consecutive ones.
    """

    setting = "recent"

    def __init__(self, sink: int, recent: int, rotation: Rotation | None, layers: int, axes: int) -> None:
        self._least_sink, self._recent, self._rotation = sink, recent, rotation
        self._slots = Slots(layers)
        self._units: deque[Unit] = deque()
        self._sink_tokens = 0
        self._sink: tuple[Tensor, Tensor] | None = None  # [layers, heads, s, D], as in the slots before anything left
        self._sink_end: Vector = (0,) * axes
        self.gap: Vector = (0,) * axes
        self.tail = (0,) * axes

    @property
    def held(self) -> int:
        return self._slots.length

    @property
    def nbytes(self) -> Mapping[str, int]:
        sink = sum(t.numel() * t.element_size() for t in self._sink or ())
        return {"device": self._slots.nbytes + sink}

    @property
    def in_window(self) -> int:
        """Tokens of the window."""
        return self._slots.length - self._sink_tokens

    def check(self, units: Sequence[Unit]) -> None:
        largest = max((unit.tokens for unit in units), default=0)
        if largest > self._recent:
            raise StreamError(
                f"{largest} tokens came that stay or go together, and the window keeps {self.setting}={self._recent}: "
                f"raise memory.{self.setting}, make chunks smaller, or keep fewer tokens (pruner=)."
            )

    def cache(self, tokens: int) -> Cache:
        return self._slots.cache(tokens)

    def begin(self, opening: Unit) -> None:
        self.begun = True
        self._slots.commit(opening.tokens)
        self._sink_tokens = opening.tokens
        self._sink_end = self.tail = opening.following

    def commit(self, units: Sequence[Unit], tail: Vector) -> None:
        before = self._slots.length
        self._slots.commit(sum(unit.tokens for unit in units))
        for unit in units:
            if not self._units and self._sink is None and self._sink_tokens < self._least_sink:
                self._sink_tokens += unit.tokens
                self._sink_end = unit.following
            else:
                self._add(unit, before)
            before += unit.tokens
        self.tail = tail
        self._evict()

    def _add(self, unit: Unit, place: int) -> None:
        """Take a unit into the window; its tokens begin at that place of the slots in use."""
        self._units.append(unit)

    def _let_go(self, unit: Unit) -> None:
        """The oldest unit is about to leave; its tokens come right behind the sink."""

    def _evict(self) -> None:
        before, length = self.gap, self._slots.length
        try:
            while self.in_window > self._recent:
                if self._sink is None:
                    pairs = [self._slots.read(i, 0, self._sink_tokens) for i in range(len(self._slots.keys))]
                    self._sink = torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs])
                self._let_go(self._units[0])
                self._slots.drop(self._units.popleft().tokens)
        finally:
            first = self._units[0].start if self._units else self.tail
            if self._rotation is not None:
                self.gap = minus(first, self._sink_end)
                if max(self.tail) > FARTHEST and max(self.gap) > FARTHEST // 2:
                    self._move_back()
            if self._slots.length != length or self.gap != before:
                self._place_sink()

    def _place_sink(self) -> None:
        """Write the sink right before the window, at positions right before the window's."""
        if self._sink is None:
            return
        keys, values = self._sink
        if self._rotation is not None:
            keys = self._rotation.move(keys, self.gap)
        for layer in range(keys.shape[0]):
            there = self._slots.read(layer, 0, self._sink_tokens)
            there[0].copy_(keys[layer : layer + 1])
            there[1].copy_(values[layer : layer + 1])

    def _move_back(self) -> None:
        """Bring the window to consecutive positions."""
        assert self._rotation is not None
        back = minus((0,) * len(self.gap), self.gap)
        for layer in range(len(self._slots.keys)):
            keys, _ = self._slots.read(layer, self._sink_tokens, self._slots.length)
            keys.copy_(self._rotation.move(keys, back))
        self._units = deque(unit.moved(back) for unit in self._units)
        self.tail, self.gap = plus(self.tail, back), (0,) * len(self.gap)

    def fork(self, room: int) -> WindowStore:
        twin = self._blank()
        twin._recent = sys.maxsize  # nothing leaves it: it is there for one question
        twin._slots = self._slots.copy(room)
        twin._units, twin._sink_tokens, twin._sink = self._units.copy(), self._sink_tokens, self._sink
        twin._sink_end, twin.gap, twin.tail, twin.begun = self._sink_end, self.gap, self.tail, self.begun
        return twin

    def _blank(self) -> WindowStore:
        return WindowStore(self._least_sink, self._recent, self._rotation, len(self._slots.keys), len(self.tail))

    def question(self, after: After, queries: Queries | None, tokens: int) -> Asked:
        return AskedSlots(self._slots, plus(after(minus(self.tail, self.gap)), self.gap))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self._slots.state()
        if self._sink is not None:
            tensors |= {"sink_keys": self._sink[0].cpu(), "sink_values": self._sink[1].cpu()}
        if self._units:
            tensors["positions"] = torch.cat([unit.positions.cpu() for unit in self._units], dim=1)
        units = [[unit.tokens, list(unit.start), list(unit.following)] for unit in self._units]
        return tensors, {
            "units": units,
            "sink_tokens": self._sink_tokens,
            "sink_end": list(self._sink_end),
            "gap": list(self.gap),
            "tail": list(self.tail),
            "begun": self.begun,
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], device: torch.device) -> None:
        self._slots.restore({name: tensors[name] for name in ("keys", "values") if name in tensors}, device)
        if "sink_keys" in tensors:
            self._sink = tensors["sink_keys"].to(device), tensors["sink_values"].to(device)
        sizes = [size for size, _, _ in values["units"]]
        positions = torch.split(tensors["positions"], sizes, dim=1) if sizes else ()
        for (_, start, following), places in zip(values["units"], positions, strict=True):
            self._units.append(Unit(tuple(start), tuple(following), places.to(device)))
        self._sink_tokens, self._sink_end = values["sink_tokens"], tuple(values["sink_end"])
        self.gap, self.tail = tuple(values["gap"]), tuple(values["tail"])
        self.begun = values["begun"]
