"""STTM: parity with the release, and the budgeted form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors import BuildError, InputError, RequirementError, VideoTokens, build, compress
from compressors.functional.quadtree import _components, levels_of
from tests.compressors.merging import assert_sound, count_reads, matrix
from tests.golden import cases
from tests.golden.inputs import structured_features


def clip(frames: int, grid: tuple[int, int], seed: int = 0, channels: int = 16) -> Tensor:
    return torch.from_numpy(structured_features(seed, frames, grid[0] * grid[1], channels))


@pytest.mark.parametrize("name", cases.names("sttm"))
def test_released_form_equals_the_release(name: str) -> None:
    case = cases.load(name)
    given = case.params
    height, width = given["h"], given["w"]
    result = compress(
        case.inputs["features"],
        "sttm_released",
        grid=(height, width),
        threshold=given["threshold"],
        temporal=None if given["temporal"] < 0 else given["temporal"],
        root_level=given["root_level"],
        weighted=given["weighted"],
        head_dim=given["head_dim"],
    )
    nodes = torch.from_numpy(case.arrays["nodes"]).long()
    assert result.keep.equal(nodes[:, 0] * height * width + nodes[:, 1] * width + nodes[:, 2])
    case.assert_equal("patches", (matrix(result) > 0).sum(1))
    case.assert_equal("features", result.features)
    assert_sound(result)


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (2, 2), (3, 4), (5, 7), (8, 6), (13, 2)])
@pytest.mark.parametrize("retention", [0.02, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("frames", [1, 5])
def test_every_grid_ends_at_the_budget(grid: tuple[int, int], retention: float, frames: int) -> None:
    result = compress(clip(frames, grid), "sttm", grid=grid, retention=retention)
    assert result.kept == max(1, round(retention * frames * grid[0] * grid[1]))
    assert_sound(result)


def test_levels_start_with_the_odd_row_and_column() -> None:
    levels = levels_of((5, 6), 0, False, torch.device("cpu"))
    assert [level.nodes for level in levels] == [30, 9, 4]
    assert levels[1].node.view(5, 6).tolist() == [[0, 0, 1, 1, 2, 2]] + 2 * [[3, 3, 4, 4, 5, 5]] + 2 * [
        [6, 6, 7, 7, 8, 8]
    ]
    for level in levels:
        torch.testing.assert_close(
            torch.zeros(level.nodes).index_add_(0, level.node, level.share), torch.ones(level.nodes)
        )


def test_what_the_threshold_means() -> None:
    features = clip(3, (8, 8), seed=4)
    alone = compress(features, "sttm_released", grid=(8, 8), threshold=1.01, temporal=None)
    assert alone.kept == 192
    torch.testing.assert_close(alone.features, features.flatten(0, 1))
    whole = compress(features, "sttm_released", grid=(8, 8), threshold=-1.01, temporal=None, root_level=0)
    assert whole.kept == 12
    torch.testing.assert_close(whole.features[0], features[0].view(8, 8, 16)[:4, :4].mean((0, 1)))
    united = compress(features, "sttm_released", grid=(8, 8), threshold=-1.01, temporal=-1.01, root_level=0)
    assert united.keep.tolist() == [0, 4, 32, 36]
    assert not united.fates().dropped.any()


def test_the_search_is_as_fine_as_the_budget_allows() -> None:
    """The draft has at most K groups, and fit_to_budget has little left to do."""
    features = clip(6, (8, 8), seed=7)
    for total in (60, 150, 300):
        result = compress(features, "sttm", grid=(8, 8), tokens=total)
        assert result.kept == total
        assert not result.fates().dropped.any()
        doubled = (matrix(result) > 0).sum(0) > 1
        assert doubled.sum() <= 0.1 * total


def test_a_still_video_and_constant_tokens() -> None:
    features = clip(1, (6, 6)).repeat(4, 1, 1)
    result = compress(features, "sttm", grid=(6, 6), tokens=36)
    assert result.budgets.tolist() == [36, 0, 0, 0]
    torch.testing.assert_close(result.features, features[0])
    assert_sound(compress(torch.ones(3, 36, 4), "sttm", grid=(6, 6)))


def test_components_of_any_graph() -> None:
    generator = torch.Generator().manual_seed(0)
    for count, edges in ((1, 1), (40, 20), (300, 280), (500, 499)):
        a = torch.randint(count, (edges,), generator=generator)
        b = torch.randint(count, (edges,), generator=generator)
        if edges == count - 1:
            order = torch.randperm(count, generator=generator)
            a, b = order[:-1], order[1:]
        expected = list(range(count))
        for _ in range(count):
            before = list(expected)
            for i, j in zip(a.tolist(), b.tolist(), strict=True):
                expected[i] = expected[j] = min(expected[i], expected[j])
            if expected == before:
                break
        assert _components(a, b, count).tolist() == expected


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = clip(5, (6, 5))
    whole = compress(features, "sttm", grid=(6, 5))
    monkeypatch.setattr("compressors.functional.quadtree._BLOCK_VALUES", 1)
    blocked = compress(features, "sttm", grid=(6, 5))
    assert whole.keep.equal(blocked.keep)
    torch.testing.assert_close(whole.features, blocked.features)


def test_errors() -> None:
    features = clip(2, (4, 4))
    with pytest.raises(RequirementError, match=r"sttm needs Grid\(\)"):
        compress(features, "sttm")
    with pytest.raises(InputError, match="takes no empty places"):
        compress(features, "sttm", grid=(4, 4), valid=torch.arange(32).view(2, 16) > 0)
    with pytest.raises(InputError, match="head_dim=5 does not divide"):
        compress(features, "sttm", grid=(4, 4), head_dim=5)
    with pytest.raises(BuildError, match="temporal='other'"):
        build("sttm", temporal="other")
    with pytest.raises(BuildError, match="root_level=-1"):
        build("sttm", root_level=-1)
    assert build("sttm_released").title == "sttm_released"


@pytest.mark.parametrize("method", ["sttm", "sttm_released"])
def test_host_reads(method: str) -> None:
    compressor = build(method)
    tokens = VideoTokens(clip(4, (6, 6)), grid=(6, 6))
    compressor(tokens)
    tokens = VideoTokens(clip(4, (6, 6)), grid=(6, 6))
    with count_reads() as reads:
        _ = compressor(tokens).features
    assert len(reads) == compressor.host_reads
