"""Segments: thresholds with a least number."""

from __future__ import annotations

import pytest
import torch

from compressors.functional.segmentation import neighbour_similarity, segments_of, threshold_cuts

SIMILARITY = torch.tensor([0.95, 0.5, 0.92, 0.92, 0.99, 0.7])


@pytest.mark.parametrize(
    ("least", "segments"),
    [
        (1, [(0, 2), (2, 6), (6, 7)]),  # the threshold alone
        (3, [(0, 2), (2, 6), (6, 7)]),
        (4, [(0, 2), (2, 3), (3, 6), (6, 7)]),  # of two equal similarities the earlier is cut
        (7, [(t, t + 1) for t in range(7)]),
        (100, [(t, t + 1) for t in range(7)]),  # no more segments than frames
    ],
)
def test_threshold_and_least_number(least: int, segments: list[tuple[int, int]]) -> None:
    assert segments_of(threshold_cuts(SIMILARITY, 0.9, least).tolist()) == segments


def test_one_frame_is_one_segment() -> None:
    similarity = neighbour_similarity(torch.randn(1, 4))
    assert similarity.shape == (0,)
    assert segments_of(threshold_cuts(similarity, 0.9, 8).tolist()) == [(0, 1)]


def test_zero_vectors_are_unlike_everything() -> None:
    assert neighbour_similarity(torch.tensor([[0.0, 0], [1, 0], [2, 0]])).tolist() == [0, 1]
