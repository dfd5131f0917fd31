"""What a cacher sees of a vision tower: its layers in pieces, which an adapter fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LayerParts:
    """A pre-norm transformer layer, `y = h + mlp(norm2(h))`, `h = x + output(attend(q, k, v))` of `norm1(x)`.

    Every map takes `[..., C]` and works row by row; only `attend` lets places of a frame see each other, and frames
    never do.

    Attributes:
        norm1, norm2: the norms before attention and MLP.
        query, key, value: projections, `[..., C]` -> `[..., C]`; keys before any rotary embedding.
        qkv: all three at once.
        attend: (queries `[F, U, C]`, keys `[F, N, C]`, values `[F, N, C]`, places `[F, U]` of the queries or None
            where U = N) -> `[F, U, C]`, before the output projection. Rotary embedding is its business.
        output: the projection behind attention.
        mlp: the MLP.
    """

    norm1: Map
    norm2: Map
    query: Map
    key: Map
    value: Map
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    output: Map
    mlp: Map


@dataclass(frozen=True, eq=False)
class FrameGroup:
    """Frames of one size in a layer's call.

    Attributes:
        hidden: the layer's input, `[F, N, C]`.
        parts: the layer.
        shape: what must be equal for places of two frames to correspond, (N,) or a grid.
        rows: frames of each unit that the call itself tells apart (a packed tower's grid rows), with sum F.
    """

    hidden: Tensor
    parts: LayerParts
    shape: tuple[int, ...]
    rows: tuple[int, ...]


class LayerRunner(Protocol):
    """What takes over the calls of layers; a `CacheBinding` is one."""

    @property
    def active(self) -> bool:
        """Whether this thread's calls are taken over now; if not, layers run as they always do."""
        ...

    def run(self, layer: int, groups: Sequence[FrameGroup]) -> list[Tensor]:
        """One layer's call: the layer's output `[F, N, C]` of every group. Layers are called in order, from 0."""
        ...


class LayerStack(ABC):
    """The layers of one vision tower, as an adapter hands them over.

    Attributes:
        depth: how many.
    """

    depth: int

    @abstractmethod
    def install(self, runner: LayerRunner) -> None:
        """From now on ask the runner at every call of a layer."""

    @abstractmethod
    def remove(self) -> None:
        """Leave the layers as they were found."""
