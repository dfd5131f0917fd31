"""`retrieval` (ReKV, arXiv 2503.00540): the past in blocks outside the window, the best of them for each question."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from adapters.streaming.memory.base import After, Asked, Memory
from adapters.streaming.memory.blocks import Archive, Block, HostBlock
from adapters.streaming.memory.queries import Queries
from adapters.streaming.memory.slots import Slots
from adapters.streaming.memory.units import Unit, Vector, minus, plus
from adapters.streaming.memory.window import Numbering, WindowStore, check_settings
from adapters.streaming.rotation import Rotation
from compressors.errors import BuildError

Similarity = Literal["dot", "cosine"]


@dataclass(frozen=True)
class RetrievalMemory(Memory):
    """A window as `window` has it; what leaves it goes to host memory in blocks, and a question gets the best blocks.

    A block's representative key in a layer is the mean of its keys there without their rotary embedding, all heads
    side by side. When a question's forward reaches a layer, the mean query of the question's own tokens, grouped by
    key head, ranks all blocks, the window's included, and the best are taken until `budget` tokens are full: as many
    in every layer, the last one cut short. They stand in order of time, behind the sink and before the question,
    each re-rotated to where it would be if nothing had been between them.

    Bytes on the device: as `window`'s, and while a question is answered a copy of the window and
    `2·layers·kv_heads·head_dim·bytes·(opening + budget + question + answer)`. In host memory: `host_limit` for keys
    and values, and at most `8·layers·kv_heads·head_dim` for each block (representatives, with room for as many more).
    On disk: `disk_limit`.

    Attributes:
        sink: as `window`'s.
        window: tokens on the device that chunks attend to, at most.
        budget: tokens a question gets in every layer, beside the sink.
        recent: of these, so many that are the newest whatever the question: whole blocks until they are full.
        block: units (temporal groups, or turns) of a block.
        similarity: "dot" (the release) or "cosine" (the paper).
        positions: "consecutive", or "original": every block where it was, gaps included.
        host_limit: bytes of keys and values in host memory; beyond it the oldest go to disk, or for good.
        disk: folder for them; None is no disk tier.
        disk_limit: bytes there; beyond it the oldest go for good.
    """

    name = "retrieval"
    sink: int = 1
    window: int = 4096
    budget: int = 4096
    recent: int = 0
    block: int = 1
    similarity: Similarity = "dot"
    positions: Numbering = "consecutive"
    host_limit: int = 4 * 1024**3
    disk: str | None = None
    disk_limit: int = 64 * 1024**3

    def __post_init__(self) -> None:
        check_settings(
            self.name,
            self.sink,
            self.positions,
            window=self.window,
            budget=self.budget,
            block=self.block,
            host_limit=self.host_limit,
            disk_limit=self.disk_limit,
        )
        if not 0 <= self.recent <= self.budget:
            raise BuildError(f"memory retrieval: recent={self.recent} must be between 0 and budget={self.budget}.")
        if self.similarity not in ("dot", "cosine"):
            raise BuildError(f"memory retrieval: similarity={self.similarity!r}: write dot or cosine.")

    def open(self, layers: int, rotation: Callable[[], Rotation], axes: int) -> RetrievalStore:
        return RetrievalStore(self, rotation(), layers, axes)


@dataclass(eq=False)
class _Mark:
    """Beside a block of the window: its number, its units, and the sum of its keys `[layers, heads·D]`."""

    number: int
    units: int
    total: Tensor


class RetrievalStore(WindowStore):
    """A window of blocks, and the archive of those that left it."""

    setting = "window"

    def __init__(self, memory: RetrievalMemory, rotation: Rotation, layers: int, axes: int) -> None:
        super().__init__(
            memory.sink, memory.window, rotation if memory.positions == "consecutive" else None, layers, axes
        )
        self._memory, self._turn = memory, rotation
        self._marks: deque[_Mark] = deque()
        self._archive = Archive(memory.host_limit, memory.disk, memory.disk_limit)
        self._past: list[Block] = []  # of a fork: the blocks that were in the archive, and their representatives
        self._past_rows: Tensor | None = None
        self._next = 0

    @property
    def held(self) -> int:
        return self._slots.length + self._archive.tokens

    @property
    def nbytes(self) -> Mapping[str, int]:
        host = self._archive.host_bytes + sum(mark.total.numel() * 4 for mark in self._marks)
        return {**super().nbytes, "host": host, "disk": self._archive.disk_bytes}

    @property
    def needs_queries(self) -> bool:
        return True

    def commit(self, units: Sequence[Unit], tail: Vector) -> None:
        super().commit(units, tail)
        self._archive.trim()

    def _add(self, unit: Unit, place: int) -> None:
        total = self._sum(unit, place)
        if self._marks and self._marks[-1].units < self._memory.block:
            last, mark = self._units.pop(), self._marks[-1]
            positions = torch.cat([last.positions, unit.positions], dim=1)
            self._units.append(Unit(last.start, unit.following, positions))
            self._marks[-1] = _Mark(mark.number, mark.units + 1, mark.total + total)
            return
        self._units.append(unit)
        self._marks.append(_Mark(self._next, 1, total))
        self._next += 1

    def _sum(self, unit: Unit, place: int) -> Tensor:
        """The unit's keys without their rotary embedding, summed: `[layers, heads·D]` float32 in host memory."""
        sums = []
        for layer in range(len(self._slots.keys)):
            keys, _ = self._slots.read(layer, place, place + unit.tokens)
            sums.append(self._turn.undo(keys[0], unit.positions).sum(1).flatten())
        return torch.stack(sums).cpu()

    def _let_go(self, unit: Unit) -> None:
        mark = self._marks[0]
        place = self._sink_tokens, self._sink_tokens + unit.tokens
        pairs = [self._slots.read(layer, *place) for layer in range(len(self._slots.keys))]
        keys, values = (torch.cat(tensors).cpu() for tensors in zip(*pairs, strict=True))
        block = HostBlock(mark.number, unit.start, unit.following, unit.tokens, keys, values)
        self._archive.add(block, mark.total / unit.tokens)
        self._marks.popleft()

    def fork(self, room: int) -> RetrievalStore:
        twin = super().fork(room)
        assert isinstance(twin, RetrievalStore)
        twin._marks, twin._next = deque(self._marks), self._next
        twin._past, twin._past_rows = list(self._archive), self._archive.representatives
        return twin

    def _blank(self) -> RetrievalStore:
        return RetrievalStore(self._memory, self._turn, len(self._slots.keys), len(self.tail))

    def question(self, after: After, queries: Queries | None, tokens: int) -> Asked:
        assert queries is not None
        place, blocks, rows = self._sink_tokens, list(self._past), []
        for unit, mark in zip(self._units, self._marks, strict=True):
            blocks.append(WindowBlock(mark.number, unit.start, unit.following, unit.tokens, self._slots, place))
            rows.append(mark.total / unit.tokens)
            place += unit.tokens
        recent = torch.stack(rows) if rows else None
        parts = [part for part in (self._past_rows, recent) if part is not None]
        sink = self._sink
        if sink is None:
            pairs = [self._slots.read(layer, 0, self._sink_tokens) for layer in range(len(self._slots.keys))]
            sink = torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs])
        return Retrieved(
            self._memory, self._turn, sink, self._sink_end, self.tail, blocks, parts, after, queries, tokens
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().state()
        if self._marks:
            tensors["totals"] = torch.stack([mark.total for mark in self._marks])
        blocks = list(self._archive)
        for block in blocks:
            pairs = [block.read(layer, block.tokens) for layer in range(len(self._slots.keys))]
            tensors[f"block{block.number}.keys"] = torch.cat([k for k, _ in pairs])
            tensors[f"block{block.number}.values"] = torch.cat([v for _, v in pairs])
        if self._archive.representatives is not None:
            tensors["representatives"] = self._archive.representatives.clone()
        places = [[b.number, list(b.start), list(b.following), b.tokens] for b in blocks]
        marks = [[mark.number, mark.units] for mark in self._marks]
        return tensors, {**values, "blocks": places, "marks": marks, "next": self._next}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], device: torch.device) -> None:
        super().restore(tensors, values, device)
        for row, (number, start, following, size) in enumerate(values["blocks"]):
            keys, stored = tensors[f"block{number}.keys"], tensors[f"block{number}.values"]
            block = HostBlock(number, tuple(start), tuple(following), size, keys, stored)
            self._archive.add(block, tensors["representatives"][row])
        self._archive.trim()
        for row, (number, units) in enumerate(values["marks"]):
            self._marks.append(_Mark(number, units, tensors["totals"][row]))
        self._next = values["next"]

    def close(self) -> None:
        self._archive.close()


@dataclass(frozen=True, eq=False)
class WindowBlock(Block):
    """A block that is still in the window, of a fork."""

    slots: Slots
    place: int

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        return self.slots.read(layer, self.place, self.place + tokens)


class Retrieved(Asked):
    """The sink and, chosen by each layer when the question reaches it, the best blocks.

    The question's position is one for all layers, and how far the chosen blocks reach differs: so each layer is laid
    out from the sink on and then moved as a whole to where the question is.
    """

    def __init__(
        self,
        memory: RetrievalMemory,
        rotation: Rotation,
        sink: tuple[Tensor, Tensor],
        sink_end: Vector,
        tail: Vector,
        blocks: Sequence[Block],
        representatives: Sequence[Tensor],
        after: After,
        queries: Queries,
        tokens: int,
    ) -> None:
        self._memory, self._rotation, self._sink, self._sink_end = memory, rotation, sink, sink_end
        self._blocks, self._rows, self._after, self._queries = blocks, representatives, after, queries
        self._budget = min(memory.budget, sum(block.tokens for block in blocks))
        self._sink_tokens = sink[0].shape[2]
        self._chosen: dict[int, tuple[int, ...]] = {}
        self._original = memory.positions == "original"
        if self._original:
            self.start = after(tail)
        else:
            # Any place would do; this is where it is if the newest blocks are chosen.
            self.start = after(self._reach(self._cut(range(len(blocks) - 1, -1, -1))))
        self._slots = _Gathering(sink[0].shape[0], self.slots, tokens, self._fill)

    @property
    def slots(self) -> int:
        return self._sink_tokens + self._budget

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self._chosen[layer] for layer in sorted(self._chosen))

    def cache(self, tokens: int) -> Cache:
        return self._slots.cache(tokens)

    def commit(self, tokens: int) -> None:
        self._slots.commit(tokens)

    def _cut(self, order: Sequence[int]) -> list[tuple[Block, int]]:
        """Blocks in that order until the budget is full, the last one cut short; then in order of time."""
        left, taken = self._budget, []
        for index in order:
            if left <= 0:
                break
            count = min(left, self._blocks[index].tokens)
            taken.append((index, count))
            left -= count
        return [(self._blocks[index], count) for index, count in sorted(taken)]

    def _reach(self, chosen: Sequence[tuple[Block, int]]) -> Vector:
        """Where the chosen blocks end, laid out from the sink on."""
        end = self._sink_end
        for block, _ in chosen:
            end = plus(end, block.extent)
        return end

    def _choose(self, layer: int, heads: int) -> list[tuple[Block, int]]:
        """The blocks of a layer and how many tokens of each, in order of time."""
        mean = self._queries.mean[layer]
        query = mean.view(heads, -1, mean.shape[1]).sum(1).flatten().cpu()
        rows = [part[:, layer] for part in self._rows]
        scores = torch.cat([part @ query for part in rows]) if rows else torch.zeros(0)
        if self._memory.similarity == "cosine":
            scores = scores / torch.cat([part.norm(dim=1) for part in rows]).clamp_min(torch.finfo(torch.float32).tiny)
        newest, missing = len(self._blocks), self._memory.recent
        while missing > 0 and newest > 0:
            newest -= 1
            missing -= self._blocks[newest].tokens
        ranked = torch.sort(scores[:newest], descending=True, stable=True).indices.tolist()
        chosen = self._cut([*range(len(self._blocks) - 1, newest - 1, -1), *ranked])
        self._chosen[layer] = tuple(block.number for block, _ in chosen)
        return chosen

    def _fill(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write what the layer sees before the question into `[1, heads, slots, D]` tensors."""
        chosen = self._choose(layer, keys.shape[1])
        shift = (0,) * len(self.start)
        if not self._original:
            shift = minus(self.start, self._after(self._reach(chosen)))
        sink_keys, sink_values = (tensor[layer : layer + 1] for tensor in self._sink)
        keys[:, :, : self._sink_tokens] = self._rotation.move(sink_keys, shift)
        values[:, :, : self._sink_tokens] = sink_values
        place, at = self._sink_tokens, plus(self._sink_end, shift)
        for block, count in chosen:
            block_keys, block_values = block.read(layer, count)
            moved = (0,) * len(at) if self._original else minus(at, block.start)
            keys[:, :, place : place + count] = self._rotation.move(block_keys.to(keys.device), moved)
            values[:, :, place : place + count] = block_values.to(values.device)
            place, at = place + count, plus(at, block.extent)


class _Gathering(Slots):
    """Slots whose first part is filled in when a layer writes for the first time."""

    def __init__(self, layers: int, past: int, tokens: int, fill: Callable[[int, Tensor, Tensor], None]) -> None:
        super().__init__(layers)
        self.end, self.capacity, self._past, self._fill = past, past + tokens, past, fill

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys[layer] is None:
            shape = (1, keys.shape[1], self.capacity, keys.shape[3])
            into = keys.new_empty(shape), values.new_empty(shape)
            self._fill(layer, into[0][:, :, : self._past], into[1][:, :, : self._past])
            self.keys[layer], self.values[layer] = into
        return super().write(layer, keys, values)
