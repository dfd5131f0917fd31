"""`Call`: one call of a tower while a cacher is in use, from its first layer to its last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from compressors.cachers.layers import FrameGroup
from compressors.cachers.reuse import Recipe
from compressors.cachers.schedule import Frame, Progress, Rule
from compressors.cachers.state import ReferenceState
from compressors.errors import InputError
from compressors.functional.change import changed_share, row_norms
from compressors.functional.on_device import integers

# (layer, frames of the group, places updated `[F, U]`, similarity `[F, N]` or None)
Watcher = Callable[[int, Sequence[int], Tensor, "Tensor | None"], None]


@dataclass(eq=False)
class Job:
    """Frames of a group that are computed alike: as many places each, from references that lie in one place.

    Attributes:
        frames: their numbers in the group.
        update: U.
        sources: where each one's reference is: a state and a slot in it, or None and a number among the full frames.
        index: the frames on the device; None where that is all of the group.
        places: `[F, U]`, chosen in the first layer, where all layers share them.
    """

    frames: list[int]
    update: int
    sources: list[tuple[ReferenceState | None, int]]
    index: Tensor | None = None
    places: Tensor | None = None


@dataclass(eq=False)
class Write:
    """What a stream remembers of this call: full frames, behind the first `kept` references it has."""

    state: ReferenceState
    kept: int
    full: list[int]


@dataclass(eq=False)
class GroupPlan:
    """One group's frames: which are computed in full, which in which job, and what is remembered."""

    full: list[int] = field(default_factory=list)
    index: Tensor | None = None
    jobs: list[Job] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)


@dataclass(eq=False)
class After:
    """What a stream is when the call is through.

    Attributes:
        state: the stream's.
        progress, shape, stored: as in the state.
        reused, total: places to add to its counts.
        inputs: new reference frames as they entered the tower, where those are looked at; they go behind `kept`.
        kept: references that stay.
    """

    state: ReferenceState
    progress: Progress
    shape: tuple[int, ...]
    stored: int
    reused: int
    total: int
    inputs: Tensor | None
    kept: int


class Call:
    """A call in progress; made at the first layer, closed after the last.

    Raises:
        InputError: the frames do not divide among the streams as stated.
    """

    def __init__(
        self,
        rule: Rule,
        recipe: Recipe,
        alike: float,
        states: Sequence[ReferenceState],
        frames: Sequence[int] | None,
        groups: Sequence[FrameGroup],
        watch: Watcher | None,
    ) -> None:
        self._rule, self._recipe, self._alike, self._watch = rule, recipe, alike, watch
        self._remember = rule.interval != 1
        self._after: list[After] = []
        self._segments = _segments(states, _counts(states, frames, groups), groups)
        changes = self._changes(groups)
        self._plans = [GroupPlan() for _ in groups]
        self.layer = 0
        for segment, change in zip(self._segments, changes, strict=True):
            self._plan(segment, groups[segment.group], change)
        for plan, group in zip(self._plans, groups, strict=True):
            _place(plan, group.hidden)

    def run(self, groups: Sequence[FrameGroup]) -> list[Tensor]:
        """The next layer, for every group."""
        outputs = [self._group(plan, group) for plan, group in zip(self._plans, groups, strict=True)]
        self.layer += 1
        return outputs

    def finish(self) -> None:
        """The tower is through: streams move on."""
        for after in self._after:
            state = after.state
            state.reused += after.reused
            state.total += after.total
            if not state.keep:
                continue  # nothing was written, so whatever came next would start anew
            state.progress, state.shape, state.stored = after.progress, after.shape, after.stored
            if after.inputs is not None:
                state.write_inputs(after.inputs, after.kept)

    def abandon(self) -> None:
        """The call failed: streams whose references were being replaced start again with a frame in full."""
        for state in {id(w.state): w.state for plan in self._plans for w in plan.writes}.values():
            state.forget()

    # Planning

    def _plan(self, segment: Segment, group: FrameGroup, change: Callable[[int, int], float] | None) -> None:
        state, places = segment.state, group.hidden.shape[1]
        fates, held, progress = self._rule.plan(
            segment.progress(self._after), segment.stored, segment.frames, places, change
        )
        plan = self._plans[segment.group]
        position: dict[int, int] = {}  # frame of the segment -> its number among the group's full ones
        for number, fate in enumerate(fates):
            if fate.reference is None:
                position[number] = len(plan.full)
                plan.full.append(segment.start + number)
        for number, fate in enumerate(fates):
            if fate.reference is not None:
                self._add(plan, segment, segment.start + number, fate, position)
        new = [candidate - segment.stored for candidate in held if candidate >= segment.stored]
        kept, inputs = len(held) - len(new), None
        if new and self._remember and state.keep:
            plan.writes.append(Write(state, kept, [position[number] for number in new]))
            if self._rule.looks:
                inputs = _unit(group.hidden[segment.start : segment.start + segment.frames][new])
        reused = sum(places - fate.update for fate in fates)
        stored = len(held) if self._remember else 0
        total = places * segment.frames
        self._after.append(After(state, progress, group.shape, stored, reused, total, inputs, kept))

    def _add(self, plan: GroupPlan, segment: Segment, frame: int, fate: Frame, position: Mapping[int, int]) -> None:
        reference = fate.reference
        assert reference is not None
        held = reference < segment.stored
        source = (segment.state, reference) if held else (None, position[reference - segment.stored])
        for job in plan.jobs:
            if job.update == fate.update and (job.sources[0][0] is None) == (source[0] is None):
                job.frames.append(frame)
                job.sources.append(source)
                return
        plan.jobs.append(Job([frame], fate.update, [source]))

    def _changes(self, groups: Sequence[FrameGroup]) -> list[Callable[[int, int], float] | None]:
        """How much frames differ from those they might reuse: one read on the host for all of them."""
        if not self._rule.looks:
            return [None] * len(self._segments)
        shares, keys = [], []
        for number, segment in enumerate(self._segments):
            own = _unit(groups[segment.group].hidden[segment.start : segment.start + segment.frames])
            held = segment.state.inputs
            pool = own if held is None or not segment.stored else torch.cat([held.to(own), own])
            for frame in range(segment.frames):
                end = segment.stored + frame
                begin = 0 if self._rule.reach is None else max(0, end - self._rule.reach)
                # What is remembered may be older than any frame of this call that is within reach.
                chosen = sorted({*range(segment.stored), *range(begin, end)})
                if chosen:
                    shares.append(changed_share(own[frame], pool[chosen], self._alike))
                    keys += [(number, frame, candidate) for candidate in chosen]
        values = torch.cat(shares).tolist() if shares else []
        table = dict(zip(keys, values, strict=True))
        return [partial(_looked_up, table, number) for number in range(len(self._segments))]

    # Computing

    def _group(self, plan: GroupPlan, group: FrameGroup) -> Tensor:
        hidden, parts, recipe = group.hidden, group.parts, self._recipe
        made: dict[str, Tensor] = {}
        out: Tensor | None = None
        if plan.full:
            whole, made = recipe.full(parts, _take(hidden, plan.index), remember=self._remember)
            out = _put(out, hidden, plan.index, whole)
        for job in plan.jobs:
            out = _put(out, hidden, job.index, self._job(job, group, made))
        for write in plan.writes:
            chosen = {name: _frames(values, write.full) for name, values in made.items()}
            write.state.write(self.layer, chosen, write.kept)
        return hidden if out is None else out

    def _job(self, job: Job, group: FrameGroup, made: Mapping[str, Tensor]) -> Tensor:
        hidden, parts, recipe = _take(group.hidden, job.index), group.parts, self._recipe
        reference = self._references(job, made, hidden.device)
        if job.update == 0:
            return recipe.untouched(parts, hidden, reference)
        if job.update == hidden.shape[1] and self._watch is None:
            return recipe.full(parts, hidden, remember=False)[0]
        chosen = None if job.places is None else job.places.to(hidden.device)
        out, places, similarity = recipe.selective(parts, hidden, reference, job.update, chosen)
        if recipe.shared:
            job.places = places
        if self._watch is not None:
            self._watch(self.layer, job.frames, places, similarity)
        return out

    def _references(self, job: Job, made: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
        """`[F, N, …]` of each frame's reference, or `[1, N, …]` where all frames have the same."""
        slots = [slot for _, slot in job.sources]
        if job.sources[0][0] is None:
            return {name: _frames(values, slots) for name, values in made.items()}
        states = [state for state, _ in job.sources if state is not None]
        each = [state.references(self.layer) for state in states]
        if len({(id(state), slot) for state, slot in zip(states, slots, strict=True)}) == 1:
            return {name: values[slots[0]].unsqueeze(0).to(device) for name, values in each[0].items()}
        return {
            name: torch.stack([held[name][slot] for held, slot in zip(each, slots, strict=True)]).to(device)
            for name in self._recipe.remembered
        }


@dataclass(frozen=True, eq=False)
class Segment:
    """A run of one stream's frames in one group.

    Attributes:
        state: the stream's.
        group: which group.
        start: its first frame in it.
        frames: how many.
        stored: references it can use from before the call.
    """

    state: ReferenceState
    group: int
    start: int
    frames: int
    stored: int

    def progress(self, after: Sequence[After]) -> Progress:
        """Where the stream stands when the segment begins: at a new size of frame, at the beginning."""
        if not self.stored or any(item.state is self.state for item in after):
            return Progress()
        return self.state.progress


def _counts(states: Sequence[ReferenceState], frames: Sequence[int] | None, groups: Sequence[FrameGroup]) -> list[int]:
    """Frames of each stream in the call."""
    rows = [count for group in groups for count in group.rows]
    total = sum(rows)
    if frames is not None:
        if len(frames) != len(states) or sum(frames) != total or min(frames, default=0) < 0:
            raise InputError(f"frames={list(frames)} for {len(states)} streams, but the call has {total} frames.")
        return list(frames)
    if len(states) == 1:
        return [total]
    if len(rows) == len(states):
        return rows
    if total % len(states) or len(rows) > 1:
        raise InputError(
            f"the call has {total} frames of {len(states)} streams: say how many each has, using(states, frames=[…])."
        )
    return [total // len(states)] * len(states)


def _segments(states: Sequence[ReferenceState], counts: Sequence[int], groups: Sequence[FrameGroup]) -> list[Segment]:
    """Streams cut where a group ends."""
    cut: list[Segment] = []
    sizes = [group.hidden.shape[0] for group in groups]
    at, begin = 0, 0
    for state, count in zip(states, counts, strict=True):
        first = True
        while count:
            while begin == sizes[at]:
                at, begin = at + 1, 0
            taken = min(count, sizes[at] - begin)
            usable = first and state.shape == groups[at].shape
            cut.append(Segment(state, at, begin, taken, state.stored if usable else 0))
            count, begin, first = count - taken, begin + taken, False
    return cut


def _place(plan: GroupPlan, hidden: Tensor) -> None:
    """The frames' numbers on the device, unless they are all of the group."""

    def index(frames: list[int]) -> Tensor | None:
        whole = len(frames) == hidden.shape[0]
        return None if whole else integers(frames, hidden.device)

    plan.index = index(plan.full)
    for job in plan.jobs:
        job.index = index(job.frames)


def _looked_up(table: Mapping[tuple[int, int, int], float], number: int, frame: int, candidate: int) -> float:
    return table[number, frame, candidate]


def _take(hidden: Tensor, index: Tensor | None) -> Tensor:
    # A tower may be spread over devices, layer by layer.
    return hidden if index is None else hidden.index_select(0, index.to(hidden.device))


def _put(out: Tensor | None, hidden: Tensor, index: Tensor | None, values: Tensor) -> Tensor:
    """The group's output with some frames' values in it."""
    if index is None:
        return values
    out = values.new_empty(hidden.shape) if out is None else out
    return out.index_copy_(0, index.to(out.device), values)


def _frames(values: Tensor, numbers: Sequence[int]) -> Tensor:
    """Some frames of `[F, …]`, `[1, …]` where they are all the same; views where they are evenly spaced."""
    if len(set(numbers)) == 1:
        return values[numbers[0] : numbers[0] + 1]
    steps = {after - before for before, after in pairwise(numbers)}
    if len(steps) == 1 and (step := steps.pop()) > 0:
        return values[numbers[0] : numbers[-1] + 1 : step]
    return values.index_select(0, integers(numbers, values.device))


def _unit(features: Tensor) -> Tensor:
    """Rows of unit length, in the features' dtype."""
    return (features / row_norms(features).clamp_min(1e-12).unsqueeze(-1)).to(features.dtype)
