"""Settings of a session, and times of its frames, checked before anything runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from adapters.family import family_of
from adapters.press import check_supplies
from compressors import BuildError, Compressor, InputError, RequirementError, build
from compressors.requirements import Attention, FrameFeatures, Keys, Query, Requirement


def compressor_of(
    model: PreTrainedModel,
    pruner: str | Compressor | None,
    cacher: Any,
    params: Mapping[str, Any],
    budget: list[Any],
) -> Compressor:
    """What compresses chunks (perhaps nothing), with the cacher in front of it."""
    if pruner in (None, "none") and any(value is not None for value in budget):
        raise BuildError("a budget is given, but there is no pruner to keep to it: set pruner=.")
    compressor = build(pruner or "none", cacher=cacher, **params)
    if any(isinstance(need, Query) for need in compressor.requirements):
        raise RequirementError(
            f"{compressor.title} looks at the question, which nobody has asked yet when frames arrive: choose a pruner "
            f'that does not, as "stc_pruner".'
        )
    check_supplies(model, family_of(model), compressor)
    return compressor


def tower_needs(compressor: Compressor | None) -> frozenset[Requirement]:
    needs = compressor.requirements if compressor is not None else frozenset()
    return frozenset(need for need in needs if isinstance(need, Attention | Keys | FrameFeatures))


def checked_fps(fps: float) -> float:
    if not math.isfinite(fps) or fps <= 0:
        raise BuildError(f"fps={fps} must be a number above 0.")
    return float(fps)


def check_choices(form: str, text_position: str, positions: str, axes: int, label: str) -> None:
    for name, value, choices in (
        ("form", form, ("video", "turns")),
        ("text_position", text_position, ("library", "largest")),
        ("positions", positions, ("original", "contiguous")),
    ):
        if value not in choices:
            raise BuildError(f"{name}={value!r}: write {' or '.join(choices)}.")
    if positions == "contiguous" and axes > 1:
        raise BuildError("positions=contiguous is for models with 1-D positions; with M-RoPE they stay original.")
    try:
        label.format(start=0.0, end=1.0)
    except (KeyError, IndexError, ValueError) as error:
        raise BuildError(f"label={label!r}: only {{start}} and {{end}} can stand in it.") from error


def checked_chunk(chunk: int | None, group: int) -> int | None:
    """Frames of a chunk, if that is a multiple of a temporal group's."""
    if chunk is not None and (chunk < 1 or chunk % group):
        raise BuildError(f"chunk={chunk} must be a multiple of {group}, the frames of a temporal group, or None.")
    return chunk


def checked_times(frames: int, given: Sequence[float] | None, last: float | None, fps: float) -> tuple[float, ...]:
    """Seconds of so many frames after one at `last` (None: the first ever), as given or 1/fps apart.

    Raises:
        InputError: not one for each, not finite, or falling.
    """
    if given is None:
        first = 0.0 if last is None else last + 1 / fps
        return tuple(first + i / fps for i in range(frames))
    times = tuple(float(moment) for moment in given)
    if len(times) != frames:
        raise InputError(f"{frames} frames came with {len(times)} timestamps: give one for each.")
    line = times if last is None else (last, *times)
    if not all(map(math.isfinite, times)) or any(b < a for a, b in itertools.pairwise(line)):
        raise InputError(f"timestamps must be finite and never fall; got {list(line)[:8]}.")
    return times
