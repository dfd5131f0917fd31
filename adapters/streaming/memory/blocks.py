"""Blocks of keys and values that have left the window: in host memory, then on disk, then gone."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapters.streaming.errors import StreamError
from adapters.streaming.memory.units import Vector, minus


@dataclass(frozen=True, eq=False)
class Block:
    """Tokens that are retrieved together, the last one in a selection perhaps cut short.

    Attributes:
        number: how many blocks the stream had before it.
        start: the position its keys' embedding says it begins at.
        following: where the next block would begin.
        tokens: n, any number.
    """

    number: int
    start: Vector
    following: Vector
    tokens: int

    @property
    def extent(self) -> Vector:
        """How far it moves what comes after it, on each axis."""
        return minus(self.following, self.start)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One layer's first keys and values `[1, heads, tokens, D]`, wherever they are."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class HostBlock(Block):
    """Keys and values `[layers, heads, n, D]` in host memory."""

    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        return self.keys.numel() * self.keys.element_size() + self.values.numel() * self.values.element_size()

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        return self.keys[layer : layer + 1, :, :tokens], self.values[layer : layer + 1, :, :tokens]


@dataclass(frozen=True, eq=False)
class DiskBlock(Block):
    """A safetensors file; it is deleted when nobody refers to this block any more."""

    file: Path
    nbytes: int

    def __post_init__(self) -> None:
        weakref.finalize(self, self.file.unlink, missing_ok=True)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        try:
            with safe_open(self.file, "pt") as file:
                keys, values = (file.get_slice(name)[layer : layer + 1, :, :tokens] for name in ("keys", "values"))
                return keys, values
        except (OSError, SafetensorError) as error:
            raise StreamError(f"block {self.number} of the memory cannot be read from {self.file}: {error}") from error


class Archive:
    """Blocks in the order they left the window, under byte limits: the oldest go to disk, or for good.

    Beside each block stands its representative key, in host memory, in one tensor that is written behind the last row
    and made anew when it is full: readers keep what they have.

    Args:
        host_limit: bytes of keys and values in host memory.
        folder: where blocks go that exceed it; None lets them go for good.
        disk_limit: bytes on disk.
    """

    def __init__(self, host_limit: int, folder: str | None, disk_limit: int) -> None:
        self._host_limit, self._folder, self._disk_limit = host_limit, folder, disk_limit
        self._host: deque[HostBlock] = deque()
        self._disk: deque[DiskBlock] = deque()
        self._host_bytes = self._disk_bytes = self.tokens = 0
        self._rows: Tensor | None = None
        self._first = self._end = 0
        self._place: Path | None = None
        self._cleanup: weakref.finalize[[str, bool], Archive] | None = None

    def __iter__(self) -> Iterator[Block]:
        yield from self._disk
        yield from self._host

    def __len__(self) -> int:
        return len(self._disk) + len(self._host)

    @property
    def host_bytes(self) -> int:
        """Bytes in host memory, representative keys and the room for more of them included."""
        return self._host_bytes + (0 if self._rows is None else self._rows.numel() * self._rows.element_size())

    @property
    def disk_bytes(self) -> int:
        return self._disk_bytes

    @property
    def representatives(self) -> Tensor | None:
        """`[blocks, layers, heads·D]` float32, in the order of iteration; never written to again."""
        return None if self._rows is None else self._rows[self._first : self._end]

    def add(self, block: HostBlock, representative: Tensor) -> None:
        """Take a block that left the window; `trim` then keeps the limits."""
        self._host.append(block)
        self._host_bytes += block.nbytes
        self.tokens += block.tokens
        self._append(representative)

    def trim(self) -> None:
        """Let the oldest blocks go, to disk or for good, until host memory is within its limit.

        Raises:
            StreamError: the disk does not take them; they are still in host memory then.
        """
        while self._host_bytes > self._host_limit:
            self._spill()

    def _spill(self) -> None:
        """The oldest block in host memory goes to disk, or for good."""
        oldest = self._host[0]
        if self._folder is None or oldest.nbytes > self._disk_limit:
            self._forget_oldest_on_disk(all_of_it=True)
            self._forget(oldest)
        else:
            while self._disk_bytes + oldest.nbytes > self._disk_limit:
                self._forget_oldest_on_disk()
            self._disk.append(self._written(oldest))
            self._disk_bytes += oldest.nbytes
        self._host.popleft()
        self._host_bytes -= oldest.nbytes

    def _forget_oldest_on_disk(self, all_of_it: bool = False) -> None:
        while self._disk:
            oldest = self._disk.popleft()
            self._disk_bytes -= oldest.nbytes
            self._forget(oldest)
            if not all_of_it:
                return

    def _forget(self, block: Block) -> None:
        """The oldest block of all is gone, and its representative with it."""
        self.tokens -= block.tokens
        self._first += 1

    def _written(self, block: HostBlock) -> DiskBlock:
        folder = self._opened()
        file = folder / f"{block.number}.safetensors"
        try:
            save_file({"keys": block.keys.contiguous(), "values": block.values.contiguous()}, file)
        except (OSError, SafetensorError) as error:
            file.unlink(missing_ok=True)
            raise StreamError(f"the memory's disk tier cannot write {file}: {error}") from error
        return DiskBlock(block.number, block.start, block.following, block.tokens, file, block.nbytes)

    def _opened(self) -> Path:
        """A folder of our own inside the one given, gone with this archive."""
        if self._place is None:
            assert self._folder is not None
            try:
                Path(self._folder).mkdir(parents=True, exist_ok=True)
                self._place = Path(tempfile.mkdtemp(prefix="vidpress-", dir=self._folder))
            except OSError as error:
                raise StreamError(f"the memory's disk tier cannot use {self._folder}: {error}") from error
            self._cleanup = weakref.finalize(self, shutil.rmtree, str(self._place), True)
        return self._place

    def _append(self, row: Tensor) -> None:
        if self._rows is None:
            self._rows = row.new_empty(16, *row.shape)
        if self._end == self._rows.shape[0]:
            used = self._rows[self._first : self._end]
            self._rows = torch.cat([used, row.new_empty(max(16, len(used)), *row.shape)])
            self._first, self._end = 0, len(used)
        self._rows[self._end] = row
        self._end += 1

    def close(self) -> None:
        """Delete what is on disk."""
        self._disk.clear()
        if self._cleanup is not None:
            self._cleanup()
