"""The contract of a memory: `Memory` says how a stream's keys and values are kept, a `Store` keeps one stream's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from adapters.streaming.memory.queries import Queries
from adapters.streaming.memory.units import Unit, Vector
from adapters.streaming.rotation import Rotation

# From where the stream ends to where text after it begins.
After = Callable[[Vector], Vector]


class Memory(ABC):
    """A memory's settings: a frozen dataclass, to be shared by any number of sessions.

    Attributes:
        name: what users type (`memory=<name>`).
    """

    name: ClassVar[str]

    @abstractmethod
    def open(self, layers: int, rotation: Callable[[], Rotation], axes: int) -> Store:
        """An empty store for one stream.

        Args:
            layers: of the language model.
            rotation: moves its keys; called only by memories that need it.
            axes: of positions, 1 or 3.
        """


class Store(ABC):
    """The keys and values of one stream.

    Tokens come in units, each with the keys that a forward over `cache()` wrote; `commit` takes them in. Until then
    nothing has changed. `fork()` gives a store of its own to run a question on, and leaves this one as it is.

    Attributes:
        tail: the position where the next unit begins.
        begun: whether the prompt's opening is in.
    """

    tail: Vector
    begun: bool = False

    @property
    @abstractmethod
    def held(self) -> int:
        """Tokens that a question can reach."""

    @property
    @abstractmethod
    def nbytes(self) -> Mapping[str, int]:
        """Bytes by tier: device, host, disk."""

    def check(self, units: Sequence[Unit]) -> None:  # noqa: B027 (most memories take whatever comes)
        """Refuse, before anything runs, tokens that cannot be taken in.

        Raises:
            StreamError: what to change is in the message.
        """

    @abstractmethod
    def cache(self, tokens: int) -> Cache:
        """The cache for a forward that adds `tokens` tokens."""

    @abstractmethod
    def begin(self, opening: Unit) -> None:
        """Take in the prompt's opening, which the last forward wrote."""

    @abstractmethod
    def commit(self, units: Sequence[Unit], tail: Vector) -> None:
        """Take in the units that the last forward wrote, and let go of what is beyond the bounds.

        Args:
            units: in order; none, if nothing of a chunk was kept.
            tail: where the next unit begins; beyond the last one's end if nothing of what follows it was kept.
        """

    @abstractmethod
    def fork(self, room: int) -> Store:
        """A copy with room for so many more tokens; this store may change and the copy does not notice."""

    @abstractmethod
    def question(self, after: After, queries: Queries | None, tokens: int) -> Asked:
        """The cache for a question's forward. To be called on a fork, once, after everything else.

        Args:
            after: from the stream's end to where the question begins, positions counted without gaps.
            queries: the question's mean query per layer, while the forward runs; None unless `needs_queries`.
            tokens: of the question and its answer together.
        """

    @property
    def needs_queries(self) -> bool:
        """Whether `question` looks at the question's queries."""
        return False

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything, as tensors and plain values for a file."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], device: torch.device) -> None:
        """Take what `state` gave; this store must be empty."""

    def close(self) -> None:  # noqa: B027 (most stores hold nothing outside memory)
        """Give back what is held outside memory."""


class Asked(ABC):
    """A view of a memory that a question runs on.

    Attributes:
        start: the position where the question begins.
    """

    start: Vector

    @property
    @abstractmethod
    def slots(self) -> int:
        """Keys that the question's first forward sees beside its own."""

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...] | None:
        """Which blocks each layer looked at, by their number in the stream; None where nothing is chosen."""
        return None

    @abstractmethod
    def cache(self, tokens: int) -> Cache:
        """The cache for a forward that adds `tokens` tokens."""

    @abstractmethod
    def commit(self, tokens: int) -> None:
        """Keep what the last forward wrote."""
