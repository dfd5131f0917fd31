"""Which frames are computed in full, and what the others reuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.cachers.schedule import Change, Progress, Rule

Fate = tuple[int | None, int]


def planned(rule: Rule, cuts: list[int], change: Change | None = None, places: int = 8) -> list[Fate]:
    """(frame reused, or None; places updated) of a stream fed in calls of so many frames; frames counted from 0."""
    progress, held, start = Progress(), list[int](), 0
    found: list[Fate] = []
    for count in cuts:
        known = [*held, *range(start, start + count)]

        def here(frame: int, candidate: int, start: int = start, known: list[int] = known) -> float:
            assert change is not None
            return change(start + frame, known[candidate])

        fates, kept, progress = rule.plan(progress, len(held), count, places, here if change else None)
        found += [(None if fate.reference is None else known[fate.reference], fate.update) for fate in fates]
        held, start = [known[candidate] for candidate in kept], start + count
    return found


def references(rule: Rule, cuts: list[int], change: Change | None = None) -> list[int | None]:
    return [reference for reference, _ in planned(rule, cuts, change)]


def test_the_released_schedule() -> None:
    assert references(Rule(interval=2), [6]) == [None, 0, None, 2, None, 4]
    assert references(Rule(interval=3, chunk=2), [8]) == [None, None, 1, 1, 1, 1, None, None]
    assert references(Rule(interval=None), [4]) == [None, 0, 0, 0]
    assert references(Rule(interval=1), [3]) == [None, None, None]


def test_a_call_can_be_a_chunk() -> None:
    assert references(Rule(interval=2, chunk=None), [3, 2, 0, 1, 1]) == [None, None, None, 2, 2, None, 5]


@given(
    cuts=st.lists(st.integers(0, 4), max_size=6),
    interval=st.sampled_from([None, 1, 2, 3]),
    chunk=st.integers(1, 3),
    reference=st.sampled_from(["last", "first", "nearest"]),
    refresh=st.sampled_from([None, 0.5]),
)
def test_how_a_stream_is_cut_into_calls_changes_nothing(
    cuts: list[int], interval: int | None, chunk: int, reference: str, refresh: float | None
) -> None:
    rule = Rule(interval, chunk, 0.25, 0.75, refresh, reference)  # type: ignore[arg-type]

    def change(frame: int, other: int) -> float:
        return ((frame * 7 + other * 3) % 10) / 10

    assert planned(rule, cuts, change) == planned(rule, [sum(cuts)], change)


def test_the_reference_frame() -> None:
    first = Rule(interval=2, chunk=3, reference="first")
    assert references(first, [6]) == [None, None, None, 0, 0, 0]
    nearest = replace(first, reference="nearest")
    like = {(3, 1): 0.1, (4, 0): 0.2, (5, 1): 0.4, (5, 2): 0.4}  # ties go to the latest
    change: Change = lambda frame, other: like.get((frame, other), 0.9)  # noqa: E731
    assert references(nearest, [6], change) == [None, None, None, 1, 0, 2]
    assert references(nearest, [1, 1, 2, 2], change) == [None, None, None, 1, 0, 2]


def test_a_change_of_scene_starts_anew() -> None:
    rule = Rule(interval=4, refresh_above=0.5)
    change: Change = lambda frame, other: 1.0 if (frame >= 2) != (other >= 2) else 0.0  # noqa: E731
    assert references(rule, [8], change) == [None, 0, None, 2, 2, 2, None, 6]
    assert references(replace(rule, chunk=2), [8], change) == [None, None, None, None, 3, 3, 3, 3]


def test_the_update_ratio_follows_the_change_within_its_bounds() -> None:
    rule = Rule(interval=None, update_ratio=0.25, max_update_ratio=0.75)
    shares = {1: 0.0, 2: 0.5, 3: 0.51, 4: 1.0}
    change: Change = lambda frame, other: shares[frame]  # noqa: E731
    updates = [update for _, update in planned(rule, [5], change, places=16)]
    assert updates == [16, 4, 8, 9, 12]


@pytest.mark.parametrize(
    ("ratio", "places", "updates"), [(0.25, 729, 182), (0.1, 64, 6), (0.0, 9, 0), (0.01, 9, 1), (1, 9, 9)]
)
def test_how_many_places_are_updated(ratio: float, places: int, updates: int) -> None:
    assert Rule(update_ratio=ratio).updates(places) == updates
