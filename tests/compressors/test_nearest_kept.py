"""Prune with any method, then merge the rest into what was kept."""

from __future__ import annotations

import pytest
import torch

from compressors import BuildError, VideoTokens, build, compress
from tests.compressors.merging import assert_sound, count_reads, matrix, video


@pytest.mark.parametrize("method", ["vidcom2", "random", "stride", "one_per_block", "frame_subsample"])
@pytest.mark.parametrize("window", [1, 2, 3, None])
def test_over_any_selector(method: str, window: int | None) -> None:
    features = video(5, 12)
    plain = compress(features, method, grid=(3, 4))
    merged = compress(features, method, grid=(3, 4), merger={"name": "nearest_kept", "window": window})
    assert merged.keep.equal(plain.keep)
    assert merged.budgets.equal(plain.budgets)
    assert_sound(merged)


@pytest.mark.parametrize("window", [1, 2, 4, None])
def test_every_token_goes_where_the_definition_says(window: int | None) -> None:
    features = video(5, 12, seed=3)
    result = compress(features, "vidcom2", tokens=13, merger={"name": "nearest_kept", "window": window})
    unit = torch.nn.functional.normalize(features.flatten(0, 1).double(), dim=1)
    cosine = unit @ unit[result.keep].T
    group = torch.arange(60) // 12 // (window or 5)
    cosine[group.unsqueeze(1) != group[result.keep]] = float("-inf")
    best = cosine.argmax(1)
    best[result.keep] = torch.arange(result.kept)
    expected = torch.zeros(result.kept, 60, dtype=torch.float64)
    expected[best, torch.arange(60)] = 1
    expected[:, cosine.amax(1) == float("-inf")] = 0
    torch.testing.assert_close(matrix(result), expected / expected.sum(1, keepdim=True))


def test_frames_without_a_kept_token_are_dropped_or_merged_across() -> None:
    features = video(6, 4)
    own = compress(features, "frame_subsample", tokens=4, merger="nearest_kept")
    assert (matrix(own).sum(0) > 0).sum() == 4
    everywhere = compress(features, "frame_subsample", tokens=4, merger={"name": "nearest_kept", "window": None})
    assert (matrix(everywhere).sum(0) > 0).all()


def test_half_precision_planes_and_identity() -> None:
    features = video(3, 8).bfloat16()
    planes = {"deepstack0": torch.randn(3, 8, 5), "norm": torch.randn(3, 8)}
    tokens = VideoTokens(features, planes=planes)
    result = compress(tokens, "vidcom2", merger="nearest_kept")
    assert result.features.dtype == torch.bfloat16
    weights = matrix(result)
    torch.testing.assert_close(
        result.planes["deepstack0"], (weights @ planes["deepstack0"].flatten(0, 1).double()).float()
    )
    assert result.planes["norm"].shape == (result.kept,)
    assert compress(tokens, "vidcom2", retention=1.0, merger="nearest_kept").identity


def test_empty_places_neither_give_nor_take() -> None:
    features = video(4, 6)
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[0, 3:] = False
    valid[2] = False
    features[~valid] = float("inf")
    for window in (1, 3, None):
        result = compress(features, "random", valid=valid, merger={"name": "nearest_kept", "window": window})
        assert_sound(result)


def test_large_windows_are_done_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = video(7, 10)
    results = []
    for values in (1 << 23, 64):
        monkeypatch.setattr("compressors.functional.similarity._BLOCK_VALUES", values)
        results += [
            compress(features, "stride", merger={"name": "nearest_kept", "window": window}) for window in (1, 3, None)
        ]
    for whole, blocked in zip(results[:3], results[3:], strict=True):
        torch.testing.assert_close(matrix(whole), matrix(blocked))


def test_sum_needs_no_company() -> None:
    merger = {"name": "nearest_kept", "combine": "sum"}
    result = compress(video(3, 5), "random", tokens=14, merger=merger)
    sums = matrix(result).sum(1)
    assert sums.sum() == 15
    assert sums.max() == 2


def test_build_errors_and_host_reads() -> None:
    with pytest.raises(BuildError, match="window=0"):
        build("vidcom2", merger={"name": "nearest_kept", "window": 0})
    compressor = build("vidcom2", merger="nearest_kept")
    with count_reads() as reads:
        _ = compressor(VideoTokens(video(4, 6))).features
    assert len(reads) == compressor.host_reads == 0
