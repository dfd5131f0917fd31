"""Greedy max-min and greedy DPP against their definitions, and the similarity rows they ask for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from compressors.functional import cosine_rows
from compressors.functional.cosine_rows import CosineRows
from compressors.functional.determinantal import greedy_dpp
from compressors.functional.max_min import max_min


def features(groups: int, size: int, channels: int, seed: int = 0) -> Tensor:
    return torch.randn(groups, size, channels, generator=torch.Generator().manual_seed(seed))


def similarity(group: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(group.double(), dim=-1)
    return unit @ unit.mT


def max_min_by_definition(group: Tensor, budget: int) -> set[int]:
    distance = 1 - similarity(group)
    nearest = distance.clone().fill_diagonal_(float("inf")).amin(1)
    chosen = [int(nearest.argmax())] if budget else []
    while len(chosen) < budget:
        left = [i for i in range(len(group)) if i not in chosen]
        chosen.append(max(left, key=lambda i: float(distance[i, chosen].min())))
    return set(chosen)


def dpp_by_definition(group: Tensor, quality: Tensor, budget: int) -> set[int]:
    kernel = quality.double()[:, None] * similarity(group) * quality.double()[None]
    chosen: list[int] = []
    while len(chosen) < budget:
        left = [i for i in range(len(group)) if i not in chosen]
        chosen.append(max(left, key=lambda i: float(torch.det(kernel[[*chosen, i]][:, [*chosen, i]]))))
    return set(chosen)


@pytest.fixture(params=[True, False], ids=["matrices", "rows on demand"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways of holding similarities; small blocks, so that block borders are crossed."""
    if not request.param:
        monkeypatch.setattr(cosine_rows, "_MATRIX_VALUES", 1)
    monkeypatch.setattr(cosine_rows, "_BLOCK_VALUES", 40)
    return request.param


def test_rows(held: bool) -> None:
    values = features(3, 11, 8)
    rows = CosineRows(values)
    assert (rows.matrix is not None) == held
    pick = torch.tensor([0, 7, 10])
    expected = similarity(values).float()
    torch.testing.assert_close(rows.row(pick), expected[torch.arange(3), pick])
    expected.diagonal(dim1=1, dim2=2).fill_(float("-inf"))
    torch.testing.assert_close(rows.nearest(), expected.amax(2))


def test_max_min_is_the_definition(held: bool) -> None:
    values = features(4, 13, 6)
    budgets = torch.tensor([0, 1, 5, 13])
    chosen = max_min(CosineRows(values), budgets, 13)
    for group, budget, row in zip(values, budgets.tolist(), chosen, strict=True):
        assert set(row.nonzero().flatten().tolist()) == max_min_by_definition(group, budget)


def test_dpp_is_the_definition(held: bool) -> None:
    values = features(4, 9, 12)
    quality = torch.rand(4, 9, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.1
    budgets = torch.tensor([0, 1, 4, 9])
    chosen = greedy_dpp(CosineRows(values), quality.log(), budgets, 9)
    for group, q, budget, row in zip(values, quality, budgets.tolist(), chosen, strict=True):
        assert set(row.nonzero().flatten().tolist()) == dpp_by_definition(group, q, budget)


def test_empty_places_are_never_chosen_and_change_nothing(held: bool) -> None:
    values = features(2, 10, 7)
    valid = torch.ones(2, 10, dtype=torch.bool)
    valid[0, ::3] = False
    valid[1, 1:] = False
    poisoned = torch.where(valid.unsqueeze(2), values, float("nan"))
    budgets = torch.tensor([4, 1])
    rows = CosineRows(poisoned, valid)
    compact = CosineRows(values[:1, valid[0]])
    places = valid[0].nonzero().flatten()
    ours = max_min(rows, budgets, 6)
    assert ours[0].nonzero().flatten().tolist() == places[max_min(compact, budgets[:1], 4)[0]].tolist()
    assert ours[1].nonzero().flatten().tolist() == [0]
    quality = torch.zeros(2, 10)
    ours = greedy_dpp(rows, quality, budgets, 6)
    assert (
        ours[0].nonzero().flatten().tolist() == places[greedy_dpp(compact, quality[:1, :6], budgets[:1], 4)[0]].tolist()
    )
    assert ours[1].nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize("budget", range(1, 8))
def test_repeated_tokens_are_chosen_once_and_in_order(budget: int) -> None:
    """DivPrune's release can pick one token twice; with all tokens equal, or fewer kinds than picks, it shows."""
    equal = CosineRows(torch.ones(1, 7, 3))
    budgets = torch.tensor([budget])
    assert max_min(equal, budgets, 7)[0].nonzero().flatten().tolist() == list(range(budget))
    assert greedy_dpp(equal, torch.zeros(1, 7), budgets, 7)[0].nonzero().flatten().tolist() == list(range(budget))
    zero = CosineRows(torch.zeros(1, 7, 3))
    assert max_min(zero, budgets, 7)[0].sum() == budget
    assert greedy_dpp(zero, torch.zeros(1, 7), budgets, 7)[0].sum() == budget
    kinds = CosineRows(torch.eye(3).repeat(3, 1)[None, :7])
    for chosen in (max_min(kinds, budgets, 7)[0], greedy_dpp(kinds, torch.zeros(1, 7), budgets, 7)[0]):
        picked = chosen.nonzero().flatten()
        assert len(picked) == budget
        assert len(set((picked % 3).tolist())) == min(3, budget)


def test_dpp_fills_up_by_quality_beyond_the_rank() -> None:
    values = torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(2))
    quality = torch.tensor([[0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5]])
    two = greedy_dpp(CosineRows(values), quality.log(), torch.tensor([2]), 8)[0]
    five = greedy_dpp(CosineRows(values), quality.log(), torch.tensor([5]), 8)[0]
    rest = [i for i in quality[0].argsort(descending=True).tolist() if not two[i]]
    assert set(five.nonzero().flatten().tolist()) == {*two.nonzero().flatten().tolist(), *rest[:3]}


def test_more_of_the_budget_only_adds() -> None:
    values = features(1, 20, 10)
    chosen = [max_min(CosineRows(values), torch.tensor([k]), k)[0] for k in range(1, 21)]
    assert all(bool((less <= more).all()) for less, more in itertools.pairwise(chosen))
