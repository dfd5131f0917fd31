"""Sizes that are promised before features exist are the sizes that come out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressors import BudgetError, Grid, compress
from compressors.methods import rows
from compressors.plan_budget import plan_budget

WITHOUT_INPUTS = [row.name for row in rows() if row.exact and all(isinstance(need, Grid) for need in row.needs)]


@pytest.mark.parametrize("name", WITHOUT_INPUTS)
@pytest.mark.parametrize("retention", [0.1, 0.37, 1.0])
def test_plan_equals_result(name: str, retention: float) -> None:
    features = torch.randn(5, 12, 8, generator=torch.Generator().manual_seed(0))
    plan = plan_budget(5, 12, name, retention=retention)
    result = compress(features, name, retention=retention, grid=(3, 4))
    assert plan.total == result.kept
    if plan.per_frame is not None:
        assert list(plan.per_frame) == result.budgets.tolist()


def test_only_uniform_budgets_are_known_per_frame() -> None:
    assert plan_budget(4, 10, "one_per_block", tokens=10).per_frame == (3, 2, 3, 2)
    assert plan_budget(4, 10, "vidcom2", tokens=10).per_frame is None


def test_inexact_methods_and_empty_videos_are_refused() -> None:
    with pytest.raises(BudgetError, match="vidcom2_released does not keep an exact"):
        plan_budget(4, 10, "vidcom2_released")
    with pytest.raises(BudgetError, match="frames=0"):
        plan_budget(0, 10)


def test_a_plan_says_what_it_is_of() -> None:
    plan = plan_budget(8, 100, retention=0.1, frames_per_group=2)
    assert (plan.total, plan.groups, plan.frames, plan.retention) == (80, 8, 16, 0.1)


@pytest.mark.parametrize(
    ("tokens", "available", "wanted"),  # wanted: groups, frames, retention at 100 tokens a group of two frames
    [
        (800, None, (32, 64, 0.25)),
        (800, 900, (32, 64, 0.25)),
        (824, 900, (32, 64, 0.2575)),  # not quite 33 groups
        (825, 900, (33, 66, 0.25)),
        (800, 40, (20, 40, 0.4)),  # no more frames: more of each
        (800, 41, (20, 40, 0.4)),  # whole groups
        (800, 10, (5, 10, 1.0)),
        (800, 1, (1, 1, 1.0)),
        (10, 900, (1, 2, 0.1)),  # never less than a group
    ],
)
def test_frames_for_a_budget(tokens: int, available: int | None, wanted: tuple[int, int, float]) -> None:
    plan = plan_budget("auto", 100, tokens=tokens, available=available, frames_per_group=2)
    assert (plan.groups, plan.frames, plan.retention) == pytest.approx(wanted)
    assert plan.total == min(tokens, plan.groups * 100)


@given(
    st.integers(1, 5000), st.integers(1, 800), st.floats(0.01, 1), st.none() | st.integers(1, 3000), st.integers(1, 4)
)
def test_as_many_frames_as_the_budget_allows(
    tokens: int, places: int, least: float, available: int | None, per_group: int
) -> None:
    plan = plan_budget(
        "auto", places, tokens=tokens, available=available, auto_retention=least, frames_per_group=per_group
    )
    assert plan.total == min(tokens, plan.groups * places)
    assert 0 < plan.retention <= 1
    assert available is None or plan.frames <= available
    assert plan.groups == 1 or tokens / (plan.groups * places) >= least - 1e-9
    one_more = tokens / ((plan.groups + 1) * places) >= least * (1 + 1e-6)
    assert not one_more or (available is not None and (plan.groups + 1) * per_group > available)


def test_compression_buys_frames() -> None:
    whole = plan_budget("auto", 196, tokens=1568, auto_retention=1)
    quarter = plan_budget("auto", 196, tokens=1568, auto_retention=0.25)
    tenth = plan_budget("auto", 196, tokens=1568, auto_retention=0.1)
    assert [plan.frames for plan in (whole, quarter, tenth)] == [8, 32, 80]
    assert {plan.total for plan in (whole, quarter, tenth)} == {1568}
    assert plan_budget("auto", 10, "one_per_block", tokens=10).per_frame == (3, 2, 3, 2)
    assert plan_budget("auto", 3, tokens=3, auto_retention=0.1).groups == 10, "0.1 is not exact in binary"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "tokens=2048"),
        ({"retention": 0.25}, "tokens=2048"),
        ({"tokens": 8, "auto_retention": 0.0}, r"outside \(0, 1\]"),
        ({"tokens": 8, "auto_retention": 1.5}, r"outside \(0, 1\]"),
        ({"tokens": 8, "available": 0}, "at least 1 frame"),
        ({"tokens": 8, "frames_per_group": 0}, "frames_per_group=0"),
        ({"tokens": 8, "method": "none"}, "does not keep an exact"),
    ],
)
def test_auto_needs_a_number_of_tokens(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        plan_budget("auto", 16, **arguments)
    with pytest.raises(BudgetError, match="frames=all"):
        plan_budget("all", 16, tokens=8)  # type: ignore[arg-type]
