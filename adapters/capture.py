"""What the vision-feature attachment hands to the decoder entry: references and geometry, nothing computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from compressors.base import Compression

Structure = Literal["none", "video_end", "frame_end", "row_end", "frame_start"]
"""Where structural placeholders stand: nowhere, a newline at the end of each video, frame or row of a grid, or a class
token at the start of each frame."""

CAPTURE = "_vidpress_capture"  # attribute of the encoder's output object that carries its Capture


@dataclass(frozen=True, eq=False)
class Video:
    """One video as its placeholders see it.

    Attributes:
        features: `[T, N, C]`.
        grid: (h, w) of a frame's tokens.
        structure: where its structural placeholders stand; they are never dropped.
        valid: `[T, N]` bool, the places that have a token in the prompt; None: all. Only without structure.
        counts: valid places per frame; given with `valid`.
        tapped: what was read inside the vision tower, by field of `VideoTokens`.
    """

    features: Tensor
    grid: tuple[int, int]
    structure: Structure = "none"
    valid: Tensor | None = None
    counts: tuple[int, ...] | None = None
    tapped: Mapping[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> int:
        """Placeholders of this video in the prompt."""
        tokens = self.features.shape[0] * self.features.shape[1] if self.counts is None else sum(self.counts)
        return tokens + self.structural

    @property
    def structural(self) -> int:
        """Structural placeholders among them."""
        return 0 if self.structure == "none" else self._runs

    @property
    def _runs(self) -> int:
        """Runs of visual tokens, each with a structural placeholder at one end if there are any."""
        if self.structure in ("none", "video_end"):
            return 1
        return self.features.shape[0] * (self.grid[0] if self.structure == "row_end" else 1)

    def spread(self, values: Tensor, structural: float) -> Tensor:
        """`[places]`: values per visual token `[T·N]` where these stand, and one value for every structural place."""
        if self.structure == "none":
            return values.flatten()
        ends = (1, 0) if self.structure == "frame_start" else (0, 1)
        return pad(values.reshape(self._runs, -1), ends, value=structural).flatten()

    def newlines_last(self) -> Tensor:
        """`[places]`: the order of its placeholders in which the newlines of a frame follow all of its tokens."""
        height, width = self.grid
        places = torch.arange(self.places)
        if self.structure != "row_end":
            return places
        frames = places.view(-1, height, width + 1)
        return torch.cat([frames[..., :width].flatten(1), frames[..., width]], dim=1).flatten()


@dataclass(eq=False)
class Capture:
    """The videos of one call of the vision tower, not looked at yet.

    Attributes:
        pieces: per video, its visual features `[T·N, C]` or `[T, h, w, C]` (views, no copies).
        geometry: `[V, 3]` integers (T, h, w) in tokens; on the device when the model has it only there, so that it is
            read together with everything else the decoder entry needs.
        structure: where the structural placeholders of each video stand.
        plan: the compressions, once they were made; kept so that a prompt that is run again (no cache) is not
            compressed again.
        planner: whose plan that is.
        numbers: what the prompt said about the videos when it was made (`Family.further`).
        sharers: rows of the prompt that ask about the same video and share its compression.
        tapped: geometry -> each video's `Video.tapped`; None when nothing was tapped or all of it has been used.
        passing: encoded by the `generate` that uses it, and for it alone.
    """

    pieces: Sequence[Tensor]
    geometry: Tensor
    structure: Structure = "none"
    plan: list[Compression] | None = field(default=None)
    tapped: Callable[[Sequence[Sequence[int]]], Sequence[Mapping[str, Any]]] | None = None
    planner: object = None
    numbers: Sequence[int] = ()
    sharers: int = 1
    passing: bool = False

    def __deepcopy__(self, memo: Any) -> Capture:
        """Itself: assisted decoding copies what the tower gave for its assistant, and this is for the press alone."""
        return self

    def repeated(self, times: int) -> Capture:
        """The same videos several times over, each to be compressed on its own."""
        tapped = self.tapped
        return Capture(
            [*self.pieces] * times,
            self.geometry.repeat(times, 1),
            self.structure,
            tapped=None if tapped is None else lambda geometry: [*tapped(geometry[: len(geometry) // times])] * times,
        )

    def videos(self, geometry: Sequence[Sequence[int]]) -> list[Video]:
        """The captured videos, given the geometry's values on the host."""
        tapped = self.tapped(geometry) if self.tapped is not None else [{}] * len(geometry)
        return [
            Video(piece.reshape(t, h * w, piece.shape[-1]), (h, w), self.structure, tapped=fields)
            for piece, (t, h, w), fields in zip(self.pieces, geometry, tapped, strict=True)
        ]


_INSIDE = ("last_hidden_state", "hidden_states", "attentions")  # of the tower; base models read none of it


def release(output: Any, *, inside_alone: bool = False) -> None:
    """Let go of what an encoder's output holds, whoever holds the output.

    Args:
        output: what the family's `encoder` method returned.
        inside_alone: only of what comes from inside the tower; the features stay.
    """
    if not inside_alone:
        delattr(output, CAPTURE)
    for name in output:
        if not inside_alone or name in _INSIDE:
            output[name] = None


def host_geometry(rows: Sequence[tuple[int, int, int]]) -> Tensor:
    """Geometry that is known on the host already."""
    return torch.tensor(rows, dtype=torch.int64)
