"""PruneVid's first stage: scenes, static places, exact budgets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors import Compression, VideoTokens, build, compress
from compressors.functional.segmentation import contiguous_segments
from compressors.prunevid import PruneVid
from tests.compressors.merging import assert_sound, count_reads, matrix, video


def scenes(lengths: list[int], places: int, channels: int = 8, seed: int = 0) -> Tensor:
    """Scenes whose frames are alike but for every third place, which changes in every frame."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for length in lengths:
        still = 3 * torch.randn(1, places, channels, generator=generator) + 5 * torch.randn(
            channels, generator=generator
        )
        part = still + 0.05 * torch.randn(length, places, channels, generator=generator)
        part[:, ::3] = 2 * torch.randn(part[:, ::3].shape, generator=generator)
        parts.append(part)
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("labels", "segments"),
    [
        ([5], [(0, 1)]),
        ([1, 1, 2, 2], [(0, 2), (2, 4)]),
        ([1, 1, 2, 1, 1, 1], [(0, 3), (3, 6)]),  # the first run of 1 has the only run of 2 beside it
        ([1, 1, 1, 2, 1, 2, 2], [(0, 5), (5, 7)]),
        ([1, 2, 3], [(0, 1), (1, 2), (2, 3)]),
        ([1, 2, 1, 2, 1], [(0, 1), (1, 5)]),
    ],
)
def test_scattered_clusters_become_contiguous(labels: list[int], segments: list[tuple[int, int]]) -> None:
    assert contiguous_segments(labels) == segments


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 9), (3, 5), (11, 12)])
@pytest.mark.parametrize("retention", [0.01, 0.3, 0.9, 1.0])
def test_every_size_ends_at_the_budget(shape: tuple[int, int], retention: float) -> None:
    result = compress(scenes([shape[0]], shape[1]), "prunevid", retention=retention)
    assert result.kept == max(1, round(retention * shape[0] * shape[1]))
    assert_sound(result)


def test_empty_places_and_repeated_tokens() -> None:
    features = torch.ones(6, 9, 3)
    valid = torch.ones(6, 9, dtype=torch.bool)
    valid[1, ::2] = False
    valid[4] = False
    features[~valid] = float("nan")
    for retention in (0.1, 0.4, 0.9):
        result = compress(features, "prunevid", retention=retention, valid=valid)
        assert result.kept == round(retention * int(valid.sum()))
        assert valid.flatten()[result.keep].all()
        assert_sound(result)
        torch.testing.assert_close(result.features, torch.ones(result.kept, 3))


def test_one_read_and_twice_the_same() -> None:
    features = scenes([5, 7], 16)
    planes = {"deep": torch.randn(12, 16, 3)}
    before = features.clone()

    def run() -> Compression:
        return compress(features, "prunevid", retention=0.3, validate=False, planes=planes)

    with count_reads() as reads:
        first = run()
    assert reads == ["tolist"] * build("prunevid").host_reads
    second = run()
    assert first.keep.equal(second.keep)
    assert first.features.equal(second.features)
    assert features.equal(before)
    assert_sound(first)


def test_scenes_are_found_and_static_places_averaged_over_them() -> None:
    spans = [(0, 9), (9, 17), (17, 24)]
    features = scenes([9, 8, 7], 6)
    compressor = PruneVid(segment_share=0.125)
    assert compressor.segments(VideoTokens(features)) == spans
    # 4 static places of 3 scenes and 2 others of 24 frames: with one row for each of them nothing merges in space.
    result = compress(features, compressor, tokens=3 * 4 + 24 * 2)
    weights = matrix(result).view(-1, 24, 6)
    for row, place in zip(weights, result.keep.tolist(), strict=True):
        frame, n = divmod(place, 6)
        expected = torch.zeros(24, 6, dtype=torch.float64)
        if n % 3:
            first, end = next((a, b) for a, b in spans if a <= frame < b)
            assert frame == first
            expected[first:end, n] = 1 / (end - first)
        else:
            expected[frame, n] = 1
        torch.testing.assert_close(row, expected)


def test_every_token_flows_into_one_row() -> None:
    result = compress(scenes([5, 4, 3], 12), "prunevid", tokens=36)
    weights = matrix(result)
    assert ((weights > 0).sum(0) == 1).all()
    for row in weights:
        assert row[row > 0].unique().numel() == 1
    assert_sound(result)


def test_noise_alone_has_no_static_places() -> None:
    result = compress(video(6, 10) - 1, "prunevid", tokens=30)
    assert result.budgets.tolist() == [5] * 6
