"""`Form`: how a stream is written into the prompt, and the positions that gives every token.

*video* (ReKV): the whole stream is one video inside one user turn. *turns* (LiveCC): every chunk is a video of its own
in a user turn of its own. Either way positions are those that one prefill of the same prompt would have, in any
chunking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from adapters.streaming.memory.units import Unit, Vector
from adapters.streaming.wording import Question, Wording

Kind = Literal["video", "turns"]
TextPosition = Literal["library", "largest"]


@dataclass(frozen=True, eq=False)
class Kept:
    """What is left of a chunk after compression.

    Attributes:
        features: `[K, C]`.
        places: `[K]`, the place of each in its group, row by row.
        counts: how many of them each group has.
        planes: further `[K, C]` tensors that follow the tokens (DeepStack).
        grid: (h, w) of a group's places.
        times: per group, seconds of its first frame, its last, and the nominal time of the next group.
    """

    features: Tensor
    places: Tensor
    counts: tuple[int, ...]
    planes: tuple[Tensor, ...]
    grid: tuple[int, int]
    times: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Told:
    """What must be known of the stream so far to go on with it.

    Attributes:
        grid: (h, w) of every group; None before the first.
        began: seconds of the first frame.
        offset: where the last group sits on the time axis, counted from the first; None before the first.
    """

    grid: tuple[int, int] | None = None
    began: float = 0.0
    offset: int | None = None


NEWLINE: Literal["newline"] = "newline"  # a structural embedding of the model, not a token id
Part = Tensor | slice | Literal["newline"]


@dataclass(frozen=True, eq=False)
class Piece:
    """A unit on its way into the language model.

    Attributes:
        unit: its tokens and positions.
        parts: what its embeddings are made of: ids `[n]`, a slice of the kept features' rows, or a newline.
    """

    unit: Unit
    parts: tuple[Part, ...]


class _Line:
    """Tokens written one after the other, with their positions `[axes, n]`."""

    def __init__(self, at: Vector, device: torch.device) -> None:
        self.start, self.at, self._device = at, at, device
        self._parts: list[Part] = []
        self._positions: list[Tensor] = [torch.zeros(len(at), 0, dtype=torch.int64, device=device)]

    def text(self, ids: Tensor) -> None:
        self._write(ids, ids.shape[0])

    def newline(self) -> None:
        self._write(NEWLINE, 1)

    def rows(self, which: slice, positions: Tensor, following: Vector) -> None:
        self._parts.append(which)
        self._positions.append(positions)
        self.at = following

    def _write(self, part: Part, count: int) -> None:
        if not count:
            return
        steps = torch.arange(count, device=self._device)
        self._parts.append(part)
        self._positions.append(torch.stack([steps + axis for axis in self.at]))
        self.at = tuple(axis + count for axis in self.at)

    def piece(self) -> Piece:
        return Piece(Unit(self.start, self.at, torch.cat(self._positions, dim=1)), tuple(self._parts))


@dataclass(frozen=True, eq=False)
class Form:
    """A way of writing a stream for one model.

    Attributes:
        kind: one video, or a turn per chunk.
        wording: the text.
        axes: of positions, 1 or 3.
        framed: text stands between the groups of a video, each with marks of its own (Qwen3-VL).
        newline: a newline embedding closes every video (LLaVA-OneVision).
        per_second: steps of the time axis per second (Qwen2.5-VL); None is one per group.
        seconds: nominal seconds of a group.
        text_position: where text after a video begins with M-RoPE: "library" is what transformers computes, the
            video's start plus its larger side, however long it is; "largest" is behind the video's last group too.
        contiguous: 1-D positions without the gaps that dropped tokens leave.
        label: what a turn says before its frames, with {start} and {end} in seconds.
    """

    kind: Kind
    wording: Wording
    axes: int
    framed: bool
    newline: bool
    per_second: float | None
    seconds: float
    text_position: TextPosition
    contiguous: bool
    label: str

    @property
    def turns(self) -> bool:
        return self.kind == "turns"

    def opening(self, device: torch.device) -> Piece:
        """What comes before the first frame; it may have no tokens."""
        line = _Line((0,) * self.axes, device)
        line.text(self.wording.opening(turns=self.turns).to(device))
        return line.piece()

    def chunk(self, kept: Kept, told: Told, tail: Vector) -> tuple[list[Piece], Told, Vector]:
        """A chunk as pieces.

        Args:
            kept: the chunk's tokens.
            told: the stream before it.
            tail: where it begins.

        Returns:
            Pieces, the stream with this chunk, and where what comes next begins.
        """
        told = replace(told, grid=kept.grid, began=kept.times[0][0] if told.offset is None else told.began)
        if self.turns:
            piece = self._turn(kept, tail)
            return [piece], replace(told, offset=0), piece.unit.following
        pieces, row = [], 0
        for group, count in enumerate(kept.counts):
            line = _Line(tail, kept.features.device)
            mine = slice(row, row + count)
            row += count
            if self.framed:
                self._framed(line, kept, mine, group)
            else:
                late, told = self._late(kept.times[group][0], told)
                line = _Line((tail[0] + late, *tail[1:]), kept.features.device)
                self._group(line, kept, mine, line.at)
            tail = line.at
            if count or self.framed:
                pieces.append(line.piece())
        return pieces, replace(told, offset=told.offset or 0), tail

    def question(self, text: str, device: torch.device) -> tuple[list[Part], Tensor]:
        """The question's parts, and bool `[n]`: which of its tokens are the user's words."""
        asked: Question = self.wording.question(text, turns=self.turns)
        parts: list[Part] = [asked.ids.to(device)]
        words = asked.asked
        if self.newline and not self.turns:
            parts.insert(0, NEWLINE)
            words = torch.cat([words.new_zeros(1), words])
        return parts, words

    def said(self, question: str, answer: Sequence[int], tail: Vector, device: torch.device) -> Piece:
        """A question and its answer, as turns between those that show frames."""
        line = _Line(tail, device)
        line.text(self.wording.question(question, turns=True).ids.to(device))
        line.text(torch.tensor(list(answer), dtype=torch.int64, device=device))
        line.text(self.wording.closing().to(device))
        return line.piece()

    def after(self, end: Vector, grid: tuple[int, int]) -> Vector:
        """Where text begins when the stream ends there."""
        return end if self.turns else self._after_video(end, grid)

    def _turn(self, kept: Kept, tail: Vector) -> Piece:
        label = self.label.format(start=kept.times[0][0], end=kept.times[-1][2]) if self.label else ""
        before, after = self.wording.turn(label)
        line = _Line(tail, kept.features.device)
        line.text(before.to(kept.features.device))
        origin, row = line.at, 0
        for group, count in enumerate(kept.counts):
            mine = slice(row, row + count)
            row += count
            if self.framed:
                self._framed(line, kept, mine, group)
            elif self.axes == 1:
                self._group(line, kept, mine, line.at)
            else:
                step = self._offset(kept.times[group][0] - kept.times[0][0], group)
                self._group(line, kept, mine, (origin[0] + step, *origin[1:]))
        line.at = self._after_video(line.at, kept.grid)
        if self.newline:
            line.newline()
        line.text(after.to(kept.features.device))
        return line.piece()

    def _after_video(self, end: Vector, grid: tuple[int, int]) -> Vector:
        if self.axes == 1 or self.framed:
            return end
        # A group moves the time axis only: the other axes still say where the video began.
        behind = end[1] + max(grid)
        return (behind if self.text_position == "library" else max(behind, end[0]),) * self.axes

    def _framed(self, line: _Line, kept: Kept, mine: slice, group: int) -> None:
        """A group with its time and its marks around it."""
        before, after = (ids.to(kept.features.device) for ids in self.wording.frame(*kept.times[group]))
        line.text(before)
        start = line.at
        self._group(line, kept, mine, start)
        line.at = tuple(axis + max(kept.grid) for axis in start)
        line.text(after)

    def _group(self, line: _Line, kept: Kept, mine: slice, at: Vector) -> None:
        """A group's kept tokens from position `at`."""
        places, (height, width) = kept.places[mine], kept.grid
        if self.axes == 3:
            columns = [torch.full_like(places, at[0]), at[1] + places // width, at[2] + places % width]
            step = self._step if not self.framed else 0
            line.rows(mine, torch.stack(columns), (at[0] + step, *at[1:]))
            return
        if self.contiguous:
            places = torch.arange(places.shape[0], device=places.device)
        size = places.shape[0] if self.contiguous else height * width
        line.rows(mine, (at[0] + places).unsqueeze(0), (at[0] + size,))

    @property
    def _step(self) -> int:
        """How far one group moves the time axis, nominally."""
        return self._offset(self.seconds, 1)

    def _offset(self, seconds: float, groups: int) -> int:
        """Where on the time axis a group sits that is so many seconds, and groups, after the first."""
        # Seconds come from divisions; what falls short of a whole step by rounding is that step.
        return groups if self.per_second is None else int(self.per_second * seconds + 1e-3)

    def _late(self, start: float, told: Told) -> tuple[int, Told]:
        """How much later on the time axis than one nominal step after the last group the next one begins."""
        if self.axes == 1 or told.offset is None:
            return 0, replace(told, offset=0)
        expected = told.offset + self._step
        late = 0 if self.per_second is None else max(0, self._offset(start - told.began, 1) - expected)
        return late, replace(told, offset=expected + late)


def text_positions(start: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Positions `[axes, n]` of text from a position on."""
    steps = torch.arange(count, device=device)
    return torch.stack([steps + axis for axis in start])
