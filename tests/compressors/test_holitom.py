"""HoliTom: parity with the release, exact budgets, windows by dynamic programming."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from compressors import VideoTokens, build, compress
from compressors.functional.segmentation import still_runs, windows_by_gain
from compressors.holitom import HoliTom
from tests.compressors.merging import assert_sound, matrix, video
from tests.golden import cases


def slow_video(frames: int, places: int, channels: int = 8, seed: int = 0) -> Tensor:
    """Most places hardly change, and one in three does in every frame."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, places, channels, generator=generator).repeat(frames, 1, 1)
    features = features + 0.05 * torch.randn(features.shape, generator=generator)
    features[:, ::3] = torch.randn(features[:, ::3].shape, generator=generator)
    return features


def attention(features: Tensor) -> Tensor:
    return torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("name", cases.names("holitom"))
def test_released_form_equals_the_release(name: str) -> None:
    case = cases.load(name)
    params, features = case.params, case.inputs["features"]
    # Without scores the release ranks by norm.
    given = case.inputs.get("scores", features.norm(dim=-1))
    compressor = build(
        "holitom_released",
        threshold=params["tau"],
        longest=params["max_window"],
        centre_weight=params["beta"],
        neighbours=params["K"],
        context_share=params["D"],
    )
    result = compress(features, compressor, retention=params["ratio"], attention=given)
    # The release lists the static rows first.
    place = torch.from_numpy(case.arrays["positions"]).long().argsort().argsort()
    case.assert_equal("positions", result.keep[place])
    case.assert_equal("features", result.features[place])
    assert isinstance(compressor, HoliTom)
    windows = compressor.windows(VideoTokens(features))[1]
    case.assert_equal("windows", torch.tensor([[w.first, w.last] for w in windows]))
    case.assert_equal("reduced", torch.tensor([sum(w.static * (w.last - w.first) for w in windows)]))
    assert_sound(result)


def test_the_release_misses_the_budget_and_the_default_does_not() -> None:
    case = cases.load("holitom_f16_n196_r025")
    given = {"retention": 0.25, "attention": case.inputs["scores"]}
    assert compress(case.inputs["features"], "holitom_released", **given).kept == 795
    assert compress(case.inputs["features"], "holitom", **given).kept == 784


def test_one_video_leaves_nothing_for_the_next() -> None:
    """The release's adjusted ratio leaks into the next video."""
    compressor = build("holitom_released")
    still, moving = slow_video(8, 12), video(8, 12)
    alone = compress(moving, compressor, retention=0.3, attention=attention(moving))
    compress(still, compressor, retention=0.3, attention=attention(still))
    after = compress(moving, compressor, retention=0.3, attention=attention(moving))
    assert after.keep.equal(alone.keep)


def test_static_places_are_averaged_over_their_window() -> None:
    features = slow_video(4, 9)
    result = compress(features, HoliTom(), tokens=18, attention=attention(features))
    weights = matrix(result).view(-1, 4, 9)
    for row, place in zip(weights, result.keep.tolist(), strict=True):
        if place % 9 % 3:
            assert place < 9, "a static row sits in the window's first frame"
            assert (row == row[0]).all(), "every frame of the window weighs the same"
        else:
            assert row.flatten()[place] == 1


def best_by_trying(still: Tensor, longest: int) -> int:
    """Most tokens saved by any cutting into windows."""
    frames = still.shape[0]
    best = 0
    for cuts in product([False, True], repeat=frames - 1):
        edges = [0, *(t + 1 for t, cut in enumerate(cuts) if cut), frames]
        spans = [b - a - 1 for a, b in pairwise(edges)]
        if max(spans) < longest:
            gains = [int((still[b - 1] >= d).sum()) * d for b, d in zip(edges[1:], spans, strict=True)]
            best = max(best, sum(gains))
    return best


@pytest.mark.parametrize("longest", [1, 3, 100])
@pytest.mark.parametrize("seed", range(4))
def test_no_cutting_saves_more(longest: int, seed: int) -> None:
    same = torch.rand(8, 6, generator=torch.Generator().manual_seed(seed)) < 0.6
    same[0] = False
    still = still_runs(same)
    for t, n in product(range(8), range(6)):
        run = 0
        while run < t and same[t - run, n]:
            run += 1
        assert still[t, n] == run
    first, static = windows_by_gain(still, longest)
    last, saved = 7, 0
    while last >= 0:
        span = last - int(first[last])
        assert span < longest
        assert int(static[last]) == (int((still[last] >= span).sum()) if span else 0)
        saved += int(static[last]) * span
        last = int(first[last]) - 1
    assert saved == best_by_trying(still, longest)
