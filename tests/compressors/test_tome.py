"""ToMe: within frames and between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors import Budget, BuildError, FrameBudgets, RequirementError, Selector, VideoTokens, build, compress, make
from tests.compressors.merging import assert_sound, count_reads, matrix, video


def merged_by_hand(frame: Tensor, budget: int) -> dict[int, list[int]]:
    """One frame's groups, representative -> members, one pair at a time."""
    groups = {n: [n] for n in range(frame.shape[0])}
    while len(groups) > max(1, budget):
        places = sorted(groups)
        means = {n: frame[groups[n]].double().mean(0) for n in places}
        pairs = []
        for a in places[::2]:
            cosines = [torch.cosine_similarity(means[a], means[b], dim=0).item() for b in places[1::2]]
            best = max(range(len(cosines)), key=cosines.__getitem__)
            pairs.append((-cosines[best], a, places[1::2][best]))
        for _, a, b in sorted(pairs)[: min(len(places) - budget, len(places) // 2)]:
            groups[b] = groups[b] + groups.pop(a)
    return groups if budget else {}


@pytest.mark.parametrize("places", [1, 2, 7, 12, 33])
def test_pass_by_pass_as_the_definition_says(places: int) -> None:
    features = video(4, places, seed=places)
    budgets = torch.tensor([places, max(1, places // 2), 1, 0])
    result = _tome().select(VideoTokens(features), None, _budgets(budgets))
    expected = torch.zeros(4 * places, 4 * places)
    for t, budget in enumerate(budgets.tolist()):
        for place, members in merged_by_hand(features[t], budget).items():
            expected[t * places + place, torch.tensor(members) + t * places] = 1 / len(members)
    found = torch.zeros_like(expected)
    assert result.merge is not None
    found.index_put_((result.keep[result.merge.target], result.merge.source), result.merge.weight, accumulate=True)
    torch.testing.assert_close(found, expected)


def _budgets(per_frame: Tensor, slack: int = 0) -> FrameBudgets:
    return FrameBudgets(int(per_frame.sum()), per_frame, int(per_frame.max()) + slack)


def test_the_host_bound_decides_nothing() -> None:
    """A loose bound costs time, and nothing else."""
    features, budgets = video(3, 20), torch.tensor([5, 3, 4])
    tight, loose = (_tome().select(VideoTokens(features), None, _budgets(budgets, slack)) for slack in (0, 15))
    assert tight.keep.equal(loose.keep)
    assert tight.merge is not None
    assert loose.merge is not None
    assert tight.merge.target.equal(loose.merge.target)


def _tome() -> Selector:
    selector = make("selector", "tome")
    assert isinstance(selector, Selector)
    return selector


@pytest.mark.parametrize("method", ["tome", "tome_temporal"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 1), (3, 5), (5, 12), (7, 4)])
@pytest.mark.parametrize("retention", [0.01, 0.2, 0.49, 0.95, 1.0])
def test_every_size_ends_at_the_budget_and_loses_nothing(method: str, shape: tuple[int, int], retention: float) -> None:
    result = compress(video(*shape), method, retention=retention)
    assert result.kept == max(1, round(retention * shape[0] * shape[1]))
    assert_sound(result)
    if result.merge is not None and (method == "tome_temporal" or result.kept >= shape[0]):
        sources = (matrix(result) > 0).sum(0)
        assert (sources == 1).all(), "every token is in exactly one row"


def test_between_frames_the_strongest_pairs_of_the_video_merge() -> None:
    features = video(4, 6, seed=5)
    result = compress(features, "tome_temporal", tokens=20)
    cosine = torch.nn.functional.normalize(features.double(), dim=2)
    best = (cosine[1::2] @ cosine[::2].mT).max(2)
    strongest = best.values.flatten().argsort(descending=True)[:4]
    gone = sorted((1 + 2 * (i // 6)) * 6 + i % 6 for i in strongest.tolist())
    assert sorted(set(range(24)) - set(result.keep.tolist())) == gone
    for i in strongest.tolist():
        pair = i // 6
        row = result.keep.tolist().index(2 * pair * 6 + best.indices[pair, i % 6].item())
        assert matrix(result)[row, (1 + 2 * pair) * 6 + i % 6] > 0


def test_a_still_video_shrinks_to_its_first_frame() -> None:
    features = torch.nn.functional.normalize(torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(1)), dim=2)
    features = features.repeat(5, 1, 1)
    result = compress(features, "tome_temporal", tokens=9)
    assert result.keep.tolist() == list(range(9))
    torch.testing.assert_close(result.features, features[0])
    assert compress(features, "tome_temporal", tokens=1).kept == 1


@pytest.mark.parametrize("method", ["tome", "tome_temporal"])
@pytest.mark.parametrize("retention", [0.05, 0.3, 0.8])
def test_empty_places_neither_give_nor_take(method: str, retention: float) -> None:
    features = video(6, 7)
    valid = torch.rand(6, 7, generator=torch.Generator().manual_seed(2)) > 0.4
    valid[0] = False
    valid[3] = False
    features[~valid] = float("nan")
    result = compress(features, method, retention=retention, valid=valid)
    assert result.kept == max(1, round(retention * int(valid.sum())))
    assert_sound(result)


def test_constant_tokens_are_merged_in_order() -> None:
    features = torch.ones(2, 8, 4)
    once, again = (compress(features, "tome", retention=0.5) for _ in range(2))
    assert once.keep.tolist() == again.keep.tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    torch.testing.assert_close(once.features, torch.ones(8, 4))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = video(7, 10)
    whole = [compress(features, method).merge for method in ("tome", "tome_temporal")]
    monkeypatch.setattr("compressors.functional.bipartite._BLOCK_VALUES", 1)
    blocked = [compress(features, method).merge for method in ("tome", "tome_temporal")]
    for a, b in zip(whole, blocked, strict=True):
        assert a is not None
        assert b is not None
        assert a.target.equal(b.target)


def test_combinations() -> None:
    features = video(6, 16)
    fca = compress(features, "tome", allocator="fca")
    assert fca.kept == 24
    assert_sound(fca)
    assert compress(features, "tome", allocator="fca", scorer="vidcom2").scores is not None
    by_keys = compress(features, "tome", metric="keys", keys=video(6, 16, 4, seed=9))
    assert_sound(by_keys)
    assert not by_keys.merge.target.equal(compress(features, "tome").merge.target)  # type: ignore[union-attr]
    with pytest.raises(RequirementError, match=r"selector tome needs Keys\(layer=-1\)"):
        compress(features, "tome", metric="keys", layer=-1)
    with pytest.raises(BuildError, match="tome works frame by frame"):
        build("tome", allocator="none")
    with pytest.raises(BuildError, match=r"tome_temporal spends the budget over the whole video"):
        build("tome_temporal", allocator="fca")
    with pytest.raises(BuildError, match=r"tome merges while it selects"):
        build("tome", merger="nearest_kept")


@pytest.mark.parametrize("method", ["tome", "tome_temporal"])
def test_host_reads(method: str) -> None:
    compressor = build(method)
    for retention in (0.05, 0.4):
        tokens = VideoTokens(video(5, 16))
        with count_reads() as reads:
            _ = compressor(tokens, Budget(retention)).features
        assert len(reads) == compressor.host_reads == 0
