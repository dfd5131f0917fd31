"""Budgets per frame."""

from __future__ import annotations

import pytest
import torch

from compressors import VideoTokens, compress, make
from compressors.allocators import FrameCompressionAdjustment, FrameSubsample, Uniform
from tests.compressors.videos import noise, ragged, scene_cut


def budgets(allocator: object, tokens: VideoTokens, total: int) -> list[int]:
    return make("allocator", allocator)(tokens, None, total).tolist()  # type: ignore[operator, no-any-return, arg-type]


def test_uniform() -> None:
    tokens = VideoTokens(noise(4, 10, 2))
    assert budgets(Uniform(), tokens, 8) == [2, 2, 2, 2]
    assert budgets(Uniform(), tokens, 10) == [3, 2, 3, 2]
    assert budgets(Uniform(), tokens, 3) == [1, 1, 0, 1]
    assert budgets(Uniform(), tokens, 1) == [0, 1, 0, 0]
    assert budgets(Uniform(), ragged(4, 10, 2, [1, 10, 0, 10]), 12) == [1, 6, 0, 5]
    assert budgets(Uniform(), ragged(3, 10, 2, [10, 0, 10]), 20) == [10, 0, 10]


@pytest.mark.parametrize("frames", [1, 7, 16])
def test_uniform_spreads_what_does_not_divide(frames: int) -> None:
    """Any stretch of frames gets its share of the remainder to within a token, a short budget included."""
    for total in range(1, frames * 3):
        got = budgets(Uniform(), VideoTokens(noise(frames, 3, 2)), total)
        assert sum(got) == total
        assert max(got) - min(got) <= 1
        for end in range(1, frames + 1):
            assert abs(sum(got[:end]) - end * total / frames) <= 0.5


def test_frame_subsample() -> None:
    tokens = VideoTokens(noise(8, 10, 2))
    assert budgets(FrameSubsample(), tokens, 20) == [10, 0, 0, 0, 10, 0, 0, 0]
    assert budgets(FrameSubsample(), tokens, 25) == [10, 0, 10, 0, 0, 5, 0, 0]
    assert budgets(FrameSubsample(), tokens, 4) == [4, 0, 0, 0, 0, 0, 0, 0]
    assert budgets(FrameSubsample(), tokens, 79) == [10] * 7 + [9]
    assert budgets(FrameSubsample(), ragged(4, 10, 2, [0, 2, 9, 10]), 9) == [0, 2, 7, 0]


def test_fca_weights_are_the_formula() -> None:
    tokens = VideoTokens(scene_cut())
    fca = FrameCompressionAdjustment(temperature=0.02)
    score = make("frame_scorer", "frame_uniqueness")(tokens)  # type: ignore[operator]
    p = torch.softmax(score / 0.02, 0)
    torch.testing.assert_close(fca.adjustment(tokens), 1 + p - p.mean())
    real = 0.25 * (1 + p - p.mean()) * tokens.places
    got = fca(tokens, None, 72)
    assert (got - real).abs().max() < 1


def test_fca_caps_and_floors() -> None:
    x = noise(1, 1, 16).expand(8, 10, 16).clone()
    x[5] = noise(1, 10, 16, seed=7)
    tokens = VideoTokens(x + 1e-3 * noise(8, 10, 16, seed=1))
    at = {total: budgets("fca", tokens, total) for total in (3, 8, 20, 60, 79)}
    assert all(sum(spent) == total for total, spent in at.items())
    assert min(at[8]) == 1, "K = T leaves one each"
    assert min(at[3]) == 0, "the budget wins over the floor"
    assert at[60][5] == 10, "capacity binds and the rest flows on"
    free = budgets({"name": "fca", "min_tokens": 0}, tokens, 8)
    assert sum(free) == 8


def test_fca_ignores_frames_without_tokens() -> None:
    tokens = ragged(4, 6, 8, [6, 0, 6, 3])
    got = FrameCompressionAdjustment().adjustment(tokens)
    present = torch.tensor([True, False, True, True])
    assert float(got[present].mean()) == pytest.approx(1.0)
    assert budgets("fca", tokens, 7)[1] == 0


def test_fca_adjusts_a_share_of_the_tokens_a_frame_holds() -> None:
    equal = {"name": "fca", "frame_scorer": {"name": "frame_uniqueness", "statistic": "equal"}}
    assert budgets(equal, ragged(4, 12, 8, [12, 4, 0, 8]), 6) == [3, 1, 0, 2]


def test_roundings() -> None:
    tokens = VideoTokens(scene_cut())
    r = 0.25 * FrameCompressionAdjustment().adjustment(tokens)
    nearest = FrameCompressionAdjustment(rounding="nearest").at_retention(tokens, None, 0.25)
    assert nearest.tolist() == [max(1, round(min(1.0, float(v)) * 36)) for v in r]
    ceil = FrameCompressionAdjustment(rounding="ceil").at_retention(tokens, None, 0.25)
    assert ceil.tolist() == torch.ceil(r * 36).long().tolist()


def test_released_budget_sum_misses_the_target_and_exact_does_not() -> None:
    """Known defect of the release."""
    sums = {name: [] for name in ("vidcom2", "vidcom2_released")}
    for retention in (0.13, 0.21, 0.33, 0.47):
        for name in sums:
            sums[name].append(int(compress(scene_cut(), name, retention=retention).budgets.sum()))
    want = [round(r * 288) for r in (0.13, 0.21, 0.33, 0.47)]
    assert sums["vidcom2"] == want
    assert sums["vidcom2_released"] != want
