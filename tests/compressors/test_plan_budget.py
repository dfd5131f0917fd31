"""Sizes that are promised before features exist are the sizes that come out."""

from __future__ import annotations

import pytest
import torch

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
