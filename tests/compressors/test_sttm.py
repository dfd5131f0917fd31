"""STTM: parity with the release, and the budgeted form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors import BuildError, InputError, RequirementError, VideoTokens, build, compress
from compressors.functional.quadtree import _components, levels_of, tree_of
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
    tree = tree_of(VideoTokens(clip(1, (5, 6)), grid=(5, 6)), 0, False)
    for level, share in zip(tree.levels, tree.share, strict=True):
        assert tree.means(torch.ones(1, 30, 1), slice(0, 1))[0].eq(1).all()
        torch.testing.assert_close(
            torch.zeros(level.nodes).index_add_(0, level.node, share[0]), torch.ones(level.nodes)
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


@pytest.mark.parametrize("weighted", [False, True])
def test_empty_places_by_hand(weighted: bool) -> None:
    """Two frames of 4 × 4: a cell is the mean of the tokens it has, and a cell without tokens is no node."""
    features = torch.zeros(2, 16, 2)
    features[..., 0] = 1.0
    valid = torch.ones(2, 16, dtype=torch.bool)
    valid[0, [0, 1, 4, 5]] = False  # the first cell is empty in the first frame,
    valid[1, [0, 2, 3, 6]] = False  # and the first two lack tokens in the second
    features[1, 7] = torch.tensor([0.0, 1.0])  # the last token of the second cell is another
    features[~valid] = float("nan")
    params = {"threshold": 0.9, "temporal": None, "root_level": 0, "weighted": weighted, "grid": (4, 4)}
    result = compress(features, "sttm_released", valid=valid, incomplete="own", **params)
    assert result.keep.tolist() == [2, 8, 10, 16 + 1, 16 + 7, 16 + 8, 16 + 10]
    torch.testing.assert_close(result.features[3], torch.tensor([1.0, 0.0]))
    assert ((matrix(result) > 0).sum(1)).tolist() == [4, 4, 4, 3, 1, 4, 4]
    united = compress(features, "sttm_released", valid=valid, incomplete="own", **params | {"temporal": 0.9})
    # Nothing precedes the first cell's node, nor the lone token, which is unlike the cell before it.
    assert united.keep.tolist() == [2, 8, 10, 16 + 1, 16 + 7]
    assert not united.fates().dropped[valid].any()
    assert_sound(united)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("total", [1, 9, 40, 75])
def test_empty_places_end_at_the_budget(weighted: bool, total: int) -> None:
    features = clip(5, (5, 6))
    valid = torch.rand(5, 30, generator=torch.Generator().manual_seed(3)) > 0.3
    valid[2] = False
    features[~valid] = float("nan")
    result = compress(features, "sttm", grid=(5, 6), valid=valid, tokens=total, weighted=weighted)
    assert result.kept == total
    assert_sound(result)


def test_places_that_are_empty_everywhere_change_nothing_else() -> None:
    """A video in the left half of a grid: the roots there are those of the video alone."""
    features = clip(4, (4, 4))
    wide = torch.full((4, 4, 8, 16), float("nan"))
    wide[:, :, :4] = features.view(4, 4, 4, 16)
    valid = torch.isfinite(wide[..., 0]).flatten(1)
    alone = compress(features, "sttm", grid=(4, 4), root_level=0, tokens=20)
    beside = compress(wide.flatten(1, 2), "sttm", grid=(4, 8), root_level=0, tokens=20, valid=valid)
    t, y, x = alone.keep // 16, alone.keep // 4 % 4, alone.keep % 4
    assert beside.keep.equal(t * 32 + y * 8 + x)
    torch.testing.assert_close(beside.features, alone.features)


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
