"""What the vision-feature attachment hands to the decoder entry: references and geometry, nothing computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compressors.base import Compression

CAPTURE = "_vidpress_capture"  # attribute of the encoder's output object that carries its Capture


@dataclass(frozen=True, eq=False)
class Video:
    """One video as its placeholders see it.

    Attributes:
        features: `[T, N, C]`.
        grid: (h, w) of a frame's tokens.
        trailing: structural placeholders after the visual ones (a closing newline); never dropped.
        valid: `[T, N]` bool, the places that have a token in the prompt; None: all.
        counts: valid places per frame; given with `valid`.
        tapped: what was read inside the vision tower, by field of `VideoTokens`.
    """

    features: Tensor
    grid: tuple[int, int]
    trailing: int = 0
    valid: Tensor | None = None
    counts: tuple[int, ...] | None = None
    tapped: Mapping[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> int:
        """Placeholders of this video in the prompt."""
        tokens = self.features.shape[0] * self.features.shape[1] if self.counts is None else sum(self.counts)
        return tokens + self.trailing


@dataclass(eq=False)
class Capture:
    """The videos of one call of the vision tower, not looked at yet.

    Attributes:
        pieces: per video, its visual features `[T·N, C]` (views, no copies).
        geometry: `[V, 3]` integers (T, h, w) in tokens; on the device when the model has it only there, so that it is
            read together with everything else the decoder entry needs.
        trailing: structural placeholders after each video.
        plan: the compressions, once they were made; kept so that a prompt that is run again (no cache) is not
            compressed again.
        planner: whose plan that is.
        sharers: rows of the prompt that ask about the same video and share its compression.
        tapped: geometry -> each video's `Video.tapped`; None when nothing was tapped or all of it has been used.
    """

    pieces: Sequence[Tensor]
    geometry: Tensor
    trailing: int = 0
    plan: list[Compression] | None = field(default=None)
    tapped: Callable[[Sequence[Sequence[int]]], Sequence[Mapping[str, Any]]] | None = None
    planner: object = None
    sharers: int = 1

    def repeated(self, times: int) -> Capture:
        """The same videos several times over, each to be compressed on its own."""
        tapped = self.tapped
        return Capture(
            [*self.pieces] * times,
            self.geometry.repeat(times, 1),
            self.trailing,
            tapped=None if tapped is None else lambda geometry: [*tapped(geometry[: len(self.pieces)])] * times,
        )

    def videos(self, geometry: Sequence[Sequence[int]]) -> list[Video]:
        """The captured videos, given the geometry's values on the host."""
        tapped = self.tapped(geometry) if self.tapped is not None else [{}] * len(geometry)
        return [
            Video(piece.view(t, h * w, piece.shape[-1]), (h, w), self.trailing, tapped=fields)
            for piece, (t, h, w), fields in zip(self.pieces, geometry, tapped, strict=True)
        ]


def host_geometry(rows: Sequence[tuple[int, int, int]]) -> Tensor:
    """Geometry that is known on the host already."""
    return torch.tensor(rows, dtype=torch.int64)
