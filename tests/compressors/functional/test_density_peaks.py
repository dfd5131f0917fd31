"""Density peaks against the definition written out, and its corner cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors.functional import density_peaks as module
from compressors.functional.density_peaks import density_peaks


def by_hand(points: Tensor, neighbours: int) -> Tensor:
    """One set, point by point, in float64."""
    points = points.double()
    size, channels = points.shape
    distance = [[float((a - b).norm()) / channels**0.5 for b in points] for a in points]
    k = min(neighbours, size)
    density = [float(torch.tensor([-sum(d * d for d in sorted(row)[:k]) / k]).double().exp()) for row in distance]
    greatest = max(max(row) for row in distance)
    scores = []
    for i in range(size):
        denser = [distance[i][j] for j in range(size) if (density[j], -j) > (density[i], -i)]
        scores.append(density[i] * min(denser, default=greatest))
    return torch.tensor(scores)


@pytest.mark.parametrize("size", [1, 2, 3, 9, 30])
def test_equals_the_definition(size: int) -> None:
    points = torch.randn(size, 5, generator=torch.Generator().manual_seed(size))
    found = density_peaks(points.unsqueeze(0), torch.ones(1, size, dtype=torch.bool), 4)
    torch.testing.assert_close(found[0], by_hand(points, 4), atol=1e-5, rtol=1e-4)


def test_sets_do_not_see_each_other_nor_what_is_no_member(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(6, 12, 5, generator=generator)
    members = torch.rand(6, 12, generator=generator) < 0.6
    members[3] = False
    points[~members] = float("nan")
    found = density_peaks(points, members, 7)
    assert (found[~members] == -1).all()
    for b in range(6):
        if members[b].any():
            torch.testing.assert_close(found[b][members[b]], by_hand(points[b][members[b]], 7), atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(module, "_CHUNK_VALUES", 300)
    torch.testing.assert_close(density_peaks(points, members, 7), found)


def test_equal_points_are_ranked_by_index_and_distance_survives_an_offset() -> None:
    same = density_peaks(torch.full((1, 5, 3), 7.0), torch.ones(1, 5, dtype=torch.bool), 4)
    assert same.tolist() == [[0.0] * 5]
    points = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(1))
    everyone = torch.ones(1, 20, dtype=torch.bool)
    far = density_peaks(points + 100, everyone, 4)
    torch.testing.assert_close(far, density_peaks(points, everyone, 4), atol=1e-4, rtol=1e-3)
