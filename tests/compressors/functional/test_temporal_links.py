"""Chains through time by hand."""

from __future__ import annotations

import pytest
import torch

from compressors.functional import temporal_links as module
from compressors.functional.temporal_links import Chains, best_in_frame_before, strongest

# Frame 2's places 0 and 1 hang on frame 1's place 1, which hangs on frame 0's place 0; all else hangs on nothing.
CHAINS = Chains(torch.tensor([[False, False], [False, True], [True, True]]), torch.tensor([[0, 0], [0, 0], [1, 1]]))


def test_roots_and_sizes() -> None:
    assert CHAINS.roots().tolist() == [[0, 1], [2, 0], [0, 0]]
    assert CHAINS.size().tolist() == [[4, 1], [1, 3], [1, 1]]
    assert CHAINS.size(whole=False).tolist() == [[2, 1], [1, 3], [1, 1]]


@pytest.mark.parametrize("values_at_once", [1, 8, 1 << 24])
def test_averages(values_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_VALUES", values_at_once)
    features = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    found = torch.empty(3, 2, 4)
    for frames, values in CHAINS.averages(features, torch.ones(3, 2, dtype=torch.bool), CHAINS.size()):
        found[frames] = values
    torch.testing.assert_close(found[0, 0], (features[0, 0] + features[1, 1] + features[2].sum(0)) / 4)
    torch.testing.assert_close(found[0, 1], features[0, 1])
    torch.testing.assert_close(found[1, 0], features[1, 0])


@pytest.mark.parametrize("values_at_once", [1, 1 << 24])
def test_best_in_frame_before(values_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_VALUES", values_at_once)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 7, 4, generator=generator)
    members = torch.rand(5, 7, generator=generator) < 0.6
    members[2] = False
    features[~members] = float("nan")
    linked = torch.tensor([False, True, True, True, True])
    linked[4] = False
    similarity, parent = best_in_frame_before(features, members, linked)
    for t in range(5):
        for n in range(7):
            others = [p for p in range(7) if t and members[t - 1, p]]
            if not (linked[t] and members[t, n] and others):
                assert similarity[t, n] == float("-inf")
                continue
            cosine = torch.stack([torch.cosine_similarity(features[t, n], features[t - 1, p], 0) for p in others])
            torch.testing.assert_close(similarity[t, n], cosine.max())
            assert parent[t, n] == others[int(cosine.argmax())]


def test_strongest_of_each_group() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 3.0], [5.0, 4.0]])
    group, allowed = torch.tensor([0, 0, 1]), torch.tensor([3, 3, 1])
    assert strongest(values, group, allowed).tolist() == [[True, False], [True, True], [True, False]]
    assert strongest(values, group, torch.tensor([1, 1, 0])).tolist() == [[True, False], [False, False], [False, False]]
