"""The shared functions, each against a plain statement of what it computes."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from compressors import VideoTokens
from compressors.functional.blocks import cell_of_place
from compressors.functional.fit_to_budget import fit_to_budget
from compressors.functional.hashing import hash_tokens
from compressors.functional.ragged import count_per_frame, indices_of, slots, top_of_video, top_per_frame
from compressors.functional.statistics import low_variance_channels
from compressors.functional.water_filling import largest_remainder, water_filling
from tests.compressors.videos import HostReads, noise, ragged


def filled(weights: list[float], capacity: list[int], total: int, floor: int) -> list[float]:
    """`clamp(λ·weight, floor, capacity)` with sum `total`, by bisection in plain Python."""
    largest = max(weights) or 1.0
    weights = [max(w / largest, 1e-6) for w in weights]
    low, high = 0.0, 1e12
    for _ in range(300):
        level = (low + high) / 2
        spent = sum(min(max(level * w, min(floor, c)), c) for w, c in zip(weights, capacity, strict=True))
        low, high = (level, high) if spent < total else (low, level)
    return [min(max(high * w, min(floor, c)), c) for w, c in zip(weights, capacity, strict=True)]


@given(
    frames=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 30)), min_size=1, max_size=12),
    share=st.floats(0, 1),
    floor=st.integers(0, 3),
)
def test_water_filling(frames: list[tuple[float, int]], share: float, floor: int) -> None:
    weights, capacity = [w for w, _ in frames], [c for _, c in frames]
    total = round(share * sum(capacity))
    floor = min(floor, total // len(frames))
    got = water_filling(torch.tensor(weights), torch.tensor(capacity), total, floor).tolist()
    assert sum(got) == total
    for budget, real, most in zip(got, filled(weights, capacity, total, floor), capacity, strict=True):
        assert min(floor, most) <= budget <= most
        assert abs(budget - real) < 1 + 1e-6


def test_water_filling_ties_extremes_and_host_reads() -> None:
    same, capacity = torch.ones(4), torch.tensor([9, 9, 9, 9])
    assert water_filling(same, capacity, 10).tolist() == [3, 3, 2, 2]
    assert water_filling(torch.zeros(4), capacity, 10).tolist() == [3, 3, 2, 2]
    assert water_filling(torch.tensor([0.0, 1.0]), torch.tensor([9, 4]), 10).tolist() == [6, 4]
    assert water_filling(torch.tensor([1.0, 3.0]), torch.tensor([9, 9]), 8).tolist() == [2, 6]
    assert water_filling(torch.tensor([1.0, float("nan")]), torch.tensor([5, 5]), 8).tolist() == [5, 3]
    assert water_filling(torch.tensor([1.0, float("inf")]), torch.tensor([5, 5]), 6).tolist() == [1, 5]
    assert water_filling(torch.tensor([1e-9, 1.0, 1.0]), torch.tensor([9, 9, 9]), 9, floor=1).tolist() == [1, 4, 4]
    with HostReads() as reads:
        water_filling(same, capacity, 10)
    assert reads.count == 0


def test_largest_remainder() -> None:
    real = torch.tensor([0.5, 1.25, 2.5, 0.75], dtype=torch.float64)
    assert largest_remainder(real, 5).tolist() == [1, 1, 2, 1]


@given(st.data())
def test_ragged_top(data: st.DataObject) -> None:
    frames, places = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    counts = data.draw(st.lists(st.integers(0, places), min_size=frames, max_size=frames).filter(any))
    tokens = ragged(frames, places, 2, counts)
    assert tokens.valid is not None
    scores = torch.randint(-2, 2, (frames, places), generator=torch.Generator().manual_seed(len(counts))).float()
    scores = torch.where(tokens.valid, scores, 9.0)
    budgets = [data.draw(st.integers(0, count)) for count in counts]
    total = sum(budgets)
    ranked = {
        t: sorted((n for n in range(places) if tokens.valid[t, n]), key=lambda n: (-float(scores[t, n]), n))
        for t in range(frames)
    }
    want = sorted(t * places + n for t in range(frames) for n in ranked[t][: budgets[t]])
    got = top_per_frame(scores, torch.tensor(budgets), total, tokens)
    assert got.tolist() == want
    assert count_per_frame(got, tokens).tolist() == budgets
    flat = sorted((t * places + n for t in ranked for n in ranked[t]), key=lambda i: (-float(scores.flatten()[i]), i))
    assert top_of_video(scores, total, tokens).tolist() == sorted(flat[:total])
    frame, ordinal = slots(torch.tensor(budgets), total)
    assert list(zip(frame.tolist(), ordinal.tolist(), strict=True)) == [
        (t, j) for t in range(frames) for j in range(budgets[t])
    ]


def test_scores_of_minus_infinity_still_beat_empty_places() -> None:
    tokens = ragged(1, 4, 2, [2])
    scores = torch.full((1, 4), float("-inf"))
    keep = top_per_frame(scores, torch.tensor([2]), 2, tokens)
    assert tokens.valid is not None
    assert tokens.valid.flatten()[keep].all()


def test_indices_of() -> None:
    mask = torch.tensor([[False, True, True], [False, False, True]])
    assert indices_of(mask, 3).tolist() == [1, 2, 5]


@given(height=st.integers(1, 9), width=st.integers(1, 9), shares=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_cells(height: int, width: int, shares: list[float]) -> None:
    places = height * width
    budgets = [round(share * places) for share in shares]
    total = sum(budgets)
    tokens = VideoTokens(torch.zeros(len(shares), places, 1), grid=(height, width))
    cell = cell_of_place(torch.tensor(budgets), total, tokens)
    start = 0
    for t, b in enumerate(budgets):
        grid = cell[t].view(height, width)
        if b == 0:
            assert (grid == total).all()
            continue
        assert grid.unique().tolist() == list(range(start, start + b)), "exactly b cells"
        rows = min(max(round(math.sqrt(b * height / width)), -(-b // width)), height, b)
        first_column = grid[:, 0].unique()
        assert len(first_column) == rows
        heights, areas = [], []
        for j in range(start, start + b):
            where = (grid == j).nonzero()
            extent = where.amax(0) - where.amin(0) + 1
            assert int(extent.prod()) == len(where), "cells are rectangles"
            heights.append(int(extent[0]))
            areas.append(len(where))
        assert max(heights) - min(heights) <= 1
        columns = [len(grid[y].unique()) for y in range(height)]
        assert max(columns) - min(columns) <= 1
        start += b


def test_cells_of_a_quarter_are_two_by_two() -> None:
    tokens = VideoTokens(torch.zeros(1, 24, 1), grid=(4, 6))
    want = torch.arange(6).view(2, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(cell_of_place(torch.tensor([6]), 6, tokens).view(4, 6), want)


def test_cells_of_a_frame_with_gaps_are_strips() -> None:
    valid = torch.tensor([[True, False, True, True, True, False, True, True]])
    tokens = VideoTokens(torch.zeros(1, 8, 1), grid=(2, 4), valid=valid, counts=(6,))
    assert cell_of_place(torch.tensor([4]), 4, tokens).tolist() == [[0, 4, 1, 1, 2, 4, 3, 3]]


def test_hash_is_fixed_and_spread() -> None:
    got = hash_tokens(0, 0, 4, torch.device("cpu"))
    assert got.tolist() == [3157432646, 756487649, 880865761, 1858102165]
    many = hash_tokens(3, 1, 100_000, torch.device("cpu"))
    assert int(many.min()) >= 0
    assert int(many.max()) < 2**32
    assert many.unique().numel() > 99_990
    assert abs(float((many.double() / 2**32).mean()) - 0.5) < 0.005
    assert abs(float(torch.corrcoef(torch.stack([many[:-1], many[1:]]).double())[0, 1])) < 0.02
    for other in (hash_tokens(4, 1, 100_000, many.device), hash_tokens(3, 2, 100_000, many.device)):
        assert float((other == many).float().mean()) < 0.001
        assert abs(float(torch.corrcoef(torch.stack([many, other]).double())[0, 1])) < 0.02


def test_low_variance_ties_go_to_the_lower_channel() -> None:
    x = noise(2, 4, 1).round().expand(2, 4, 7)  # sums of small integers are exact
    assert low_variance_channels(VideoTokens(x)).tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert low_variance_channels(VideoTokens(x * torch.tensor([2, 2, 1, 2, 2, 2, 1]))).tolist() == [1, 0, 1, 0, 0, 0, 1]


class TestFitToBudget:
    """Six tokens in one frame; rows at 0 (holds 0, 1, 2), 3 (holds 3, 4) and 5 (itself)."""

    tokens = VideoTokens(noise(1, 6, 3))
    is_row = torch.tensor([True, False, False, True, False, True])
    source, target = torch.arange(6), torch.tensor([0, 0, 0, 3, 3, 5])
    weight = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5, 1.0])
    scores = torch.tensor([0.0, 5.0, 1.0, 2.0, 3.0, 9.0])

    def matrix(self, total: int, **extra: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        keep, merge = fit_to_budget(
            self.tokens, self.is_row, self.source, self.target, self.weight, self.scores, total, **extra
        )
        dense = torch.zeros(total, 6).index_put_((merge.target, merge.source), merge.weight, accumulate=True)
        assert torch.allclose(merge.row_sums(), torch.ones(total))
        assert torch.allclose(merge.apply(self.tokens.features[0]), dense @ self.tokens.features[0], atol=1e-6)
        return keep.tolist(), dense

    def test_as_many_as_asked(self) -> None:
        keep, dense = self.matrix(3)
        assert keep == [0, 3, 5]
        third = 1 / 3
        want = [[third, third, third, 0, 0, 0], [0, 0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 0, 1]]
        torch.testing.assert_close(dense, torch.tensor(want))

    def test_too_many_rows_the_lightest_go(self) -> None:
        assert self.matrix(2)[0] == [0, 3]
        assert self.matrix(1)[0] == [0]

    def test_equally_light_rows_go_by_score(self) -> None:
        assert self.matrix(1, mass=torch.ones(6))[0] == [5]

    def test_too_few_rows_the_best_tokens_return(self) -> None:
        keep, dense = self.matrix(5)
        assert keep == [0, 1, 3, 4, 5]
        want = [[0.5, 0, 0.5, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
        torch.testing.assert_close(dense, torch.tensor(want))
        assert torch.equal(self.matrix(6)[1], torch.eye(6))

    def test_a_row_whose_tokens_all_return_becomes_its_own_token(self) -> None:
        source, target = torch.tensor([1, 3]), torch.tensor([0, 3])
        is_row = torch.tensor([True, False, False, True, False, False])
        keep, merge = fit_to_budget(self.tokens, is_row, source, target, torch.ones(2), self.scores, 4)
        assert keep.tolist() == [0, 1, 3, 5]
        assert torch.equal(merge.apply(self.tokens.features[0]), self.tokens.features[0, keep])

    def test_empty_places_never_return(self) -> None:
        tokens = ragged(1, 6, 3, [4])
        assert tokens.valid is not None
        nothing = torch.zeros(0, dtype=torch.int64)
        keep, merge = fit_to_budget(
            tokens, torch.zeros(6, dtype=torch.bool), nothing, nothing, torch.zeros(0), self.scores, 4
        )
        assert keep.tolist() == tokens.valid.flatten().nonzero().squeeze(1).tolist()
        assert torch.isfinite(merge.apply(tokens.features[0])).all()

    @given(st.data())
    def test_any_merge(self, data: st.DataObject) -> None:
        places, edges = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 20))
        draw = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
        is_row = torch.rand(places, generator=draw) < 0.4
        source = torch.randint(places, (edges,), generator=draw)
        target = torch.randint(places, (edges,), generator=draw)
        own = is_row.nonzero().squeeze(1)
        source, target = torch.cat([own, source]), torch.cat([own, target])
        weight = is_row[target].float()
        weight /= torch.zeros(places).index_add_(0, target, weight).clamp_min(1)[target]
        total = data.draw(st.integers(1, places))
        tokens = VideoTokens(noise(1, places, 2))
        scores = torch.rand(places, generator=draw)
        with HostReads() as reads:
            keep, merge = fit_to_budget(tokens, is_row, source, target, weight, scores, total)
        assert reads.count == 0
        assert keep.shape == (total,)
        assert (keep.diff() > 0).all()
        assert merge.rows == total
        torch.testing.assert_close(merge.row_sums(), torch.ones(total))
        used = merge.weight != 0
        returned = [k for k in keep.tolist() if not is_row[k]]
        for token in returned:
            rows = merge.target[used & (merge.source == token)]
            assert keep[rows].tolist() == [token], "a returned token is in no other row"
