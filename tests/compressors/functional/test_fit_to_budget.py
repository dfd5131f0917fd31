"""Drafts of any size end at the budget, and what goes or comes is what was promised."""

from __future__ import annotations

import pytest
import torch

from compressors import VideoTokens
from compressors.functional.fit_to_budget import Edges, fit_draft

SCORES = torch.tensor([[0.9, 0.1, 0.8, 0.3, 0.2], [0.5, 0.7, 0.6, 0.4, 0.0]])
# Rows at places 2 (of tokens 2, 3, 4) and 6 (of 6 and 7); tokens 0 and 5 are kept as they are; 1, 8 and 9 are dropped.
PLAIN = torch.tensor([[1, 0, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
EDGES = Edges(
    torch.tensor([2, 3, 4, 6, 7, 1]),
    torch.tensor([2, 2, 2, 6, 6, 2]),
    torch.tensor([0.5, 0.25, 0.25, 0.5, 0.5, 0.0]),
)


@pytest.mark.parametrize(
    ("total", "kept"),
    [
        (1, [0]),  # plain rows by score
        (2, [0, 5]),
        (3, [0, 2, 5]),  # the lightest merged row went first
        (4, [0, 2, 5, 6]),  # the draft as it is
        (5, [0, 2, 5, 6, 7]),  # the best dropped token returns, and leaves the row it had flowed into
        (6, [0, 2, 5, 6, 7, 8]),
        (8, [0, 2, 3, 4, 5, 6, 7, 8]),
        (10, list(range(10))),
    ],
)
def test_what_goes_and_what_returns(total: int, kept: list[int]) -> None:
    tokens = VideoTokens(torch.randn(2, 5, 3))
    keep, merge = fit_draft(tokens, PLAIN, EDGES, SCORES, total)
    assert keep.tolist() == kept
    torch.testing.assert_close(merge.row_sums(), torch.ones(total))
    rows = merge.apply(tokens.features.flatten(0, 1))
    for row, place in enumerate(kept):
        x = tokens.features.flatten(0, 1)
        expected = {2: x[2] / 2 + x[3] / 4 + x[4] / 4, 6: (x[6] + x[7]) / 2}.get(place, x[place])
        if place + 1 in kept:
            expected = x[place]
        torch.testing.assert_close(rows[row], expected)


def test_no_merged_rows_at_all_and_empty_places() -> None:
    valid = torch.tensor([[True, False, True, True, False], [False, True, True, False, True]])
    features = torch.randn(2, 5, 3)
    features[~valid] = float("nan")
    tokens = VideoTokens(features, valid=valid, counts=(3, 3))
    nothing = Edges.join([], tokens.device)
    scores = SCORES.masked_fill(~valid, float("nan"))
    keep, merge = fit_draft(tokens, torch.zeros_like(valid), nothing, scores, 4)
    assert keep.tolist() == [0, 2, 6, 7]
    assert torch.isfinite(merge.apply(features.flatten(0, 1))).all()


def test_equal_scores_keep_the_lower_index() -> None:
    tokens = VideoTokens(torch.randn(2, 5, 3))
    keep, _ = fit_draft(tokens, PLAIN, EDGES, torch.zeros(2, 5), 5)
    assert keep.tolist() == [0, 1, 2, 5, 6]
