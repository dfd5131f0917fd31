"""What a component needs besides features, as values that an adapter can satisfy or refuse by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Requirement:
    """Base of all requirements. `field` is the `VideoTokens` field that carries what is required."""

    @property
    def field(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Attention(Requirement):
    """Attention of one vision-tower layer, summed to one value per token: `VideoTokens.attention [T, N]`.

    `row` names the query row that is read: the class token's ("cls"), the mean over all query rows ("column_mean"),
    or the pooling head's ("pool_head"). `layer` counts from the end when negative.
    """

    layer: int = -2
    row: Literal["cls", "column_mean", "pool_head"] = "cls"


@dataclass(frozen=True)
class Keys(Requirement):
    """Key vectors of one vision-tower layer, averaged over heads: `VideoTokens.keys [T, N, D]`."""

    layer: int = -2


@dataclass(frozen=True)
class Query(Requirement):
    """The user's question as vectors: `VideoTokens.query [Q, C]`.

    `kind` "text_embedding" is the language model's input embedding of the question's tokens.
    """

    kind: Literal["text_embedding"] = "text_embedding"


@dataclass(frozen=True)
class Grid(Requirement):
    """The (height, width) of a frame's token grid: `VideoTokens.grid`."""


@dataclass(frozen=True)
class FrameFeatures(Requirement):
    """One pooled vector per frame from the vision tower: `VideoTokens.frame_features [T, C]`."""

    @property
    def field(self) -> str:
        return "frame_features"


@dataclass(frozen=True)
class Timestamps(Requirement):
    """Seconds of each frame: `VideoTokens.timestamps [T]`."""


@dataclass(frozen=True)
class History(Requirement):
    """The state a stream carries from chunk to chunk: `VideoTokens.history` (None at a stream's start).

    `state` names what is carried, so that two parts that would carry different things are told apart.
    """

    state: str = ""
