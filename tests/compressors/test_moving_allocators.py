"""Allocators that can move more of the budget than Frame Compression Adjustment: their formulae, bounds and edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import BuildError, VideoTokens, build, compress, make
from tests.compressors.videos import noise, ragged, scene_cut

MASSES = ["mass", "novelty", "segment_coverage"]


def budgets(allocator: Any, tokens: VideoTokens, total: int) -> list[int]:
    return make("allocator", allocator)(tokens, None, total).tolist()  # type: ignore[operator, no-any-return]


def masses(frame_scorer: Any, tokens: VideoTokens) -> Tensor:
    return make("frame_scorer", frame_scorer)(tokens)  # type: ignore[operator, no-any-return]


def moved(spent: list[int]) -> float:
    """Share of the budget that left the uniform split."""
    even = sum(spent) / len(spent)
    return sum(max(0.0, b - even) for b in spent) / sum(spent)


def even(spent: list[int], tokens: VideoTokens, total: int) -> bool:
    """The uniform split, whichever frames get what does not divide."""
    return sorted(spent) == sorted(budgets("uniform", tokens, total))


def one_of_its_own(frames: int, which: int, places: int = 64, channels: int = 24) -> VideoTokens:
    """A still video in which one frame shows something else."""
    x = noise(1, places, channels).expand(frames, -1, -1).clone()
    x[which] = noise(1, places, channels, seed=1)
    return VideoTokens(x + 1e-3 * noise(frames, places, channels, seed=2))


def scenes(*lengths: int, places: int = 16, channels: int = 32) -> VideoTokens:
    """Still scenes of so many frames, unlike each other."""
    parts = [noise(1, places, channels, seed=i).expand(n, -1, -1) for i, n in enumerate(lengths)]
    return VideoTokens(torch.cat(parts) + noise(1, 1, channels, seed=99) * 0.1)


def test_fca_attains_its_bound_and_the_others_pass_it() -> None:
    frames, total = 8, 128
    tokens = VideoTokens(scene_cut(frames, places=64, cut=7))
    bound = (1 / frames) * (1 - 1 / frames)
    assert moved(budgets("fca", tokens, total)) == pytest.approx(bound)
    assert moved(budgets({"name": "fca", "strength": 3.0}, tokens, total)) == pytest.approx(3 * bound)
    for other in ("mass", "novelty", "segment_coverage"):
        assert moved(budgets(other, tokens, total)) > 1.2 * bound, other


def test_strength_is_monotone_and_one_is_the_method() -> None:
    tokens = one_of_its_own(8, 2)
    by = {s: budgets({"name": "fca", "strength": s}, tokens, 64) for s in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)}
    beyond = budgets({"name": "fca", "strength": 20.0}, tokens, 64)
    assert by[1.0] == budgets("fca", tokens, 64)
    assert by[0.0] == budgets("uniform", tokens, 64)
    shares = [moved(spent) for spent in by.values()]
    assert shares == sorted(set(shares))
    assert by[8.0] == [1, 1, 57, 1, 1, 1, 1, 1], "at T all of it goes to the frame that has all of p"
    assert beyond == by[8.0], "no frame's share falls below 0"


def test_strength_is_the_formula() -> None:
    tokens = VideoTokens(scene_cut())
    p = torch.softmax(masses("frame_uniqueness", tokens) / 0.02, 0)
    fca = make("allocator", {"name": "fca", "temperature": 0.02, "strength": 5.0})
    want = (1 + 5 * (p - p.mean())).clamp_min(0)
    torch.testing.assert_close(fca.adjustment(tokens), want)  # type: ignore[attr-defined]
    assert float(want.min()) > 0, "else the next line would test less"
    assert abs(torch.tensor(budgets(fca, tokens, 72)) - 9 * want).max() < 1


@pytest.mark.parametrize("name", MASSES)
def test_budgets_are_the_power_of_the_mass(name: str) -> None:
    tokens = VideoTokens(scene_cut(places=200))
    for power in (0.5, 1.0, 2.0):
        allocator = make("allocator", {"name": name, "power": power, "min_tokens": 0})
        mass = masses(allocator.frame_scorer, tokens).double() ** power  # type: ignore[attr-defined]
        assert (mass > 0).all()
        assert (torch.tensor(budgets(allocator, tokens, 90)) - 90 * mass / mass.sum()).abs().max() < 1


@pytest.mark.parametrize("name", MASSES)
def test_more_power_moves_more(name: str) -> None:
    tokens = VideoTokens(scene_cut(places=200))
    shares = [moved(budgets({"name": name, "power": power}, tokens, 400)) for power in (0.0, 0.2, 0.4, 0.8)]
    assert shares == sorted(set(shares))
    assert even(budgets({"name": name, "power": 0.0}, tokens, 101), tokens, 101)


@pytest.mark.parametrize("name", MASSES)
@pytest.mark.parametrize("power", [1.0, 400.0])
def test_equal_masses_and_none_at_all_are_the_uniform_split(name: str, power: float) -> None:
    allocator = {"name": name, "power": power}
    still = noise(1, 12, 8).expand(5, -1, -1)
    brighter = still * torch.linspace(1, 3, 5).view(5, 1, 1)  # the same directions, rounded differently
    for x in (still, brighter, torch.zeros(5, 12, 8), torch.ones(5, 12, 8), still.bfloat16()):
        tokens = VideoTokens(x)
        assert even(budgets(allocator, tokens, 23), tokens, 23)


@pytest.mark.parametrize("name", [*MASSES, "fca"])
def test_edges(name: str) -> None:
    lone = VideoTokens(noise(1, 12, 8))
    assert budgets(name, lone, 7) == [7]
    tokens = one_of_its_own(8, 3, places=10)
    for total in (1, 3, 8, 11, 40, 79, 80):
        spent = budgets(name, tokens, total)
        assert sum(spent) == total
        assert max(spent) <= 10
        assert min(spent) >= (total >= 8), "one each as soon as there is enough; fewer frames than that get none"
    free = budgets({"name": name, "min_tokens": 0}, tokens, 8)
    assert sum(free) == 8
    gaps = ragged(5, 6, 8, [6, 0, 1, 0, 4])
    for total in (1, 2, 5, 11):
        spent = budgets(name, gaps, total)
        assert sum(spent) == total
        assert all(b <= c for b, c in zip(spent, [6, 0, 1, 0, 4], strict=True))


def test_uniqueness_mass_is_the_distance_that_vidcom2_scores() -> None:
    tokens = VideoTokens(scene_cut())
    for settings, most in (({}, 5.0), ({"kernel": "cosine", "channels": "all"}, 1.0), ({"bandwidths": (0.5,)}, 1.0)):
        video, _ = make("frame_scorer", {"name": "frame_uniqueness", **settings}).similarity(tokens)  # type: ignore[attr-defined]
        mass = masses({"name": "uniqueness_mass", **settings}, tokens)
        torch.testing.assert_close(mass, (most - video).mean(1))
        assert (mass >= 0).all()


def test_statistics_are_shared_with_the_token_scorer() -> None:
    tokens, scorer = VideoTokens(scene_cut()), make("scorer", "vidcom2")
    scorer(tokens)  # type: ignore[operator]
    before = set(tokens._memo)
    masses("uniqueness_mass", tokens)
    assert set(tokens._memo) <= before | {"capacity"}


def test_novelty_is_the_mean_change_of_a_place() -> None:
    x = noise(4, 6, 8)
    change = (1 - torch.cosine_similarity(x[1:], x[:-1], dim=-1)).clamp(0, 1).mean(1)
    torch.testing.assert_close(masses("novelty", VideoTokens(x)), torch.cat([change.max().view(1), change]))
    by_mean = masses({"name": "novelty", "first": "mean"}, VideoTokens(x))
    torch.testing.assert_close(by_mean, torch.cat([change.mean().view(1), change]))


def test_novelty_spends_on_the_first_frame_of_every_scene() -> None:
    assert budgets({"name": "novelty", "min_tokens": 0}, scenes(3, 1, 4), 12) == pytest.approx(
        [4, 0, 0, 4, 4, 0, 0, 0], abs=1
    )


def test_novelty_passes_over_frames_without_tokens() -> None:
    x = scenes(3, 2).features
    x[1] = float("nan")
    valid = torch.ones(5, 16, dtype=torch.bool)
    valid[1] = False
    tokens = VideoTokens(x, valid=valid, counts=(16, 0, 16, 16, 16))
    mass = masses("novelty", tokens)
    assert mass[1] == 0
    assert mass[0] == mass[3] > 0.5
    assert mass[[2, 4]].max() < 1e-5


def test_a_place_that_was_empty_before_is_new() -> None:
    x, valid = noise(1, 4, 8).expand(2, -1, -1).clone(), torch.ones(2, 4, dtype=torch.bool)
    x[0, 0], valid[0, 0] = float("nan"), False
    tokens = VideoTokens(x, valid=valid, counts=(3, 4))
    assert float(masses("novelty", tokens)[1]) == pytest.approx(0.25, abs=1e-5)


def test_segments_share_alike() -> None:
    tokens = scenes(5, 1, 2)
    assert budgets("segment_coverage", tokens, 30) == [2, 2, 2, 2, 2, 10, 5, 5]
    lengths = torch.tensor([5.0, 1.0, 2.0]).sqrt()
    rooted = budgets({"name": "segment_coverage", "power": 0.5}, tokens, 60)
    share = torch.tensor([sum(rooted[:5]), rooted[5], sum(rooted[6:])])
    assert (share - 60 * lengths / lengths.sum()).abs().max() <= 2
    torch.testing.assert_close(masses("segment_coverage", tokens).mean(), torch.tensor(1.0))


def test_segments_as_asked_for() -> None:
    tokens = scenes(5, 1, 2)
    whole = {"name": "segment_coverage", "frame_scorer": {"name": "segment_coverage", "threshold": -1.0}}
    assert even(budgets(whole, tokens, 30), tokens, 30)
    many = {"name": "segment_coverage", "segments": 99, "threshold": -1.0}
    torch.testing.assert_close(masses(many, tokens), torch.ones(8))


def test_an_empty_frame_is_no_segment() -> None:
    x = scenes(2, 3).features
    x[1] = float("nan")
    valid = torch.ones(5, 16, dtype=torch.bool)
    valid[1] = False
    tokens = VideoTokens(x, valid=valid, counts=(16, 0, 16, 16, 16))
    assert budgets("segment_coverage", tokens, 24) == [12, 0, 4, 4, 4]


@pytest.mark.parametrize("name", MASSES)
def test_without_a_power_frames_share_by_the_tokens_they_hold(name: str) -> None:
    assert budgets({"name": name, "power": 0.0}, ragged(4, 12, 8, [12, 4, 0, 8]), 6) == [3, 1, 0, 2]


@pytest.mark.parametrize("name", MASSES)
def test_the_floor_of_a_frame(name: str) -> None:
    tokens = one_of_its_own(8, 4)
    assert min(budgets({"name": name, "min_tokens": 5, "power": 9.0}, tokens, 60)) >= 5
    assert min(budgets({"name": name, "min_tokens": 50, "power": 9.0}, tokens, 60)) == 60 // 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MASSES)
def test_masses_are_float32(name: str, dtype: torch.dtype) -> None:
    scorer = make("allocator", name).frame_scorer  # type: ignore[attr-defined]
    assert masses(scorer, VideoTokens(scene_cut().to(dtype))).dtype == torch.float32


def test_any_frame_scorer_can_be_a_mass() -> None:
    result = compress(scene_cut(), "random", allocator={"name": "mass", "frame_scorer": "novelty"}, retention=0.25)
    assert (
        result.budgets.tolist() == compress(scene_cut(), "random", allocator="novelty", retention=0.25).budgets.tolist()
    )


@pytest.mark.parametrize(
    "allocator",
    [
        {"name": "mass", "power": -1.0},
        {"name": "novelty", "power": float("nan")},
        {"name": "novelty", "min_tokens": -1},
        {"name": "fca", "strength": -0.5},
        {"name": "fca", "strength": float("inf")},
        {"name": "segment_coverage", "frame_scorer": {"name": "segment_coverage", "threshold": 3.0}},
        {"name": "segment_coverage", "frame_scorer": {"name": "segment_coverage", "segments": 0}},
        {"name": "novelty", "frame_scorer": {"name": "novelty", "first": "least"}},
    ],
)
def test_settings_out_of_range(allocator: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match=r"must be|is no cosine|unknown"):
        build("vidcom2", allocator=allocator)
