"""The pure pruning methods: every size, every combination, and the defects of the releases."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import (
    BuildError,
    Composition,
    Compression,
    Compressor,
    InputError,
    RequirementError,
    VideoTokens,
    build,
    compress,
)
from compressors.functional import cosine_rows
from tests.compressors.videos import HostReads

EXACT = ["vcast", "dycoke", "divprune", "cdpruner", "evs", "timechat_dtd", "stc_pruner", "stc_pruner_released"]
EXACT += ["stc_pruner_paper"]
INEXACT = ["vcast_released", "dycoke_released", "evs_released", "timechat_dtd_released"]
SCORERS = ["vcast", "dycoke", "cdpruner", "evs", "timechat_dtd", "stc_pruner"]
ALLOCATORS = ["vcast", "dycoke", "evs", "timechat_dtd", "fca", "uniform"]
SIZES = [(1, 1, 1), (1, 9, 4), (2, 6, 3), (3, 16, 5), (4, 1, 8), (5, 7, 2), (9, 6, 17)]


def video(frames: int, places: int, channels: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, places, channels, generator=torch.Generator().manual_seed(seed))


def question(channels: int) -> Tensor:
    return video(1, 3, channels, seed=9)[0]


def run(features: Tensor, method: str | Compressor, **settings: Any) -> Compression:
    return compress(features, method, query=question(features.shape[2]), **settings)


def check(result: Compression, total: int | None = None) -> None:
    keep = result.keep
    assert total is None or result.kept == total
    assert (keep.diff() > 0).all()
    assert result.merge is None
    assert torch.equal(result.mask.sum(1), result.budgets)
    if result.tokens.valid is not None:
        assert result.tokens.valid.flatten()[keep].all()


@pytest.mark.parametrize("name", EXACT + INEXACT)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size(name: str, size: tuple[int, int, int]) -> None:
    frames, places, channels = size
    for kept in {1, frames * places // 3 + 1, frames * places - 1} - {0}:
        result = run(video(frames, places, channels), name, tokens=kept)
        check(result, kept if name in EXACT else None)
        if result.scores is not None:
            assert torch.isfinite(result.scores).all()
            assert result.scores.dtype == torch.float32


@pytest.mark.parametrize("name", EXACT + INEXACT)
@pytest.mark.parametrize("kind", ["equal", "zero", "repeated frames", "repeated tokens"])
def test_degenerate_features(name: str, kind: str) -> None:
    features = {
        "equal": torch.ones(6, 10, 4),
        "zero": torch.zeros(6, 10, 4),
        "repeated frames": video(1, 10, 4).expand(6, 10, 4).contiguous(),
        "repeated tokens": video(6, 1, 4).expand(6, 10, 4).contiguous(),
    }[kind]
    first = run(features, name, retention=0.3)
    check(first, 18 if name in EXACT else None)
    assert torch.equal(first.keep, run(features.clone(), name, retention=0.3).keep)


@pytest.mark.parametrize("name", EXACT + INEXACT)
def test_empty_places(name: str) -> None:
    features = video(6, 10, 5)
    valid = torch.rand(6, 10, generator=torch.Generator().manual_seed(5)) > 0.4
    valid[2], valid[5] = False, True
    results = []
    for filler in (0.0, float("nan"), 1e6):
        filled = torch.where(valid.unsqueeze(2), features, filler)
        results.append(run(filled, name, retention=0.4, valid=valid))
        check(results[-1], round(0.4 * int(valid.sum())) if name in EXACT else None)
        assert torch.equal(results[0].keep, results[-1].keep)


@pytest.mark.parametrize("name", EXACT + INEXACT)
def test_a_video_whose_places_are_all_there_is_the_same_as_one_without_a_mask(name: str) -> None:
    features = video(6, 10, 5)
    valid = torch.ones(6, 10, dtype=torch.bool)
    masked = run(features, name, retention=0.4, valid=valid)
    assert torch.equal(run(features, name, retention=0.4).keep, masked.keep)


@pytest.mark.parametrize("name", EXACT + INEXACT)
def test_half_precision_scores_in_float32(name: str) -> None:
    features = video(5, 12, 16).bfloat16()
    half = compress(features, name, retention=0.3, query=question(16).bfloat16())
    full = compress(features.float(), name, retention=0.3, query=question(16).bfloat16().float())
    assert torch.equal(half.keep, full.keep)
    assert half.features.dtype == torch.bfloat16


@pytest.mark.parametrize("name", EXACT + INEXACT)
@pytest.mark.parametrize("ragged", [False, True])
def test_host_reads_are_as_declared(name: str, ragged: bool) -> None:
    compressor = build(name)
    valid = torch.ones(6, 10, dtype=torch.bool)
    valid[1, 3:] = False
    mask = {"valid": valid, "counts": tuple(valid.sum(1).tolist())} if ragged else {}
    history = compressor(VideoTokens(video(6, 10, 5, seed=8), query=question(5))).history
    tokens = VideoTokens(video(6, 10, 5), query=question(5), history=history, **mask)
    with HostReads() as reads:
        result = compressor(tokens)
        result.features  # noqa: B018 (gathering must not read either)
    assert reads.count == compressor.host_reads, reads.found
    assert compressor.host_reads == (name in INEXACT)


# --- Combinations -------------------------------------------------------------------------------------------------


PAIRS = list(itertools.product(SCORERS, ALLOCATORS))


@pytest.mark.parametrize(("scorer", "allocator"), PAIRS)
def test_every_scorer_under_every_allocator(scorer: str, allocator: str) -> None:
    compressor = build("vidcom2", scorer=scorer, allocator=allocator, selector="token_saliency")
    result = run(video(7, 11, 6), compressor, retention=0.3)
    check(result, round(0.3 * 77))
    assert result.scores is not None
    for frame, kept in zip(result.scores, result.mask, strict=True):
        if kept.any() and not kept.all():
            assert frame[kept].min() >= frame[~kept].max()


@pytest.mark.parametrize(("selector", "allocator"), itertools.product(["divprune", "dpp"], ALLOCATORS))
@pytest.mark.parametrize("scorer", ["none", *SCORERS])
def test_greedy_selectors_under_every_allocator_and_scorer(selector: str, allocator: str, scorer: str) -> None:
    if scorer == "none" and allocator == "evs":
        with pytest.raises(BuildError, match="evs ranks tokens by score"):
            build("divprune", selector=selector, allocator=allocator)
        return
    compressor = build("divprune", selector=selector, allocator=allocator, scorer=scorer)
    assert isinstance(compressor, Composition)
    result = run(video(7, 11, 6), compressor, retention=0.3)
    check(result, round(0.3 * 77))
    saliency = build("vidcom2", scorer="evs" if scorer == "none" else scorer, allocator=allocator)
    assert torch.equal(result.budgets, run(video(7, 11, 6), saliency, retention=0.3).budgets)


def test_curvature_budgets_with_diverse_tokens() -> None:
    """V-CAST's allocator with DivPrune's selector: more tokens where the path turns, diverse ones in each frame."""
    straight = torch.linspace(0, 1, 9)[:, None, None] * video(1, 1, 8, seed=1) + video(1, 20, 8, seed=2)
    there_and_back = torch.cat([straight[:5], straight[:4].flip(0)])
    turning = compress(there_and_back, "divprune", allocator="vcast", retention=0.5)
    check(turning, 90)
    assert turning.budgets[1:-1].argmax() == 3
    assert turning.budgets[4] > turning.budgets[2] + 3
    alone = compress(there_and_back[4:5], "divprune", tokens=int(turning.budgets[4]))
    assert torch.equal(turning.mask[4], alone.mask[0])


@pytest.mark.parametrize("selector", ["divprune", "dpp"])
@pytest.mark.parametrize("held", [True, False], ids=["matrices", "rows on demand"])
def test_greedy_selectors_over_segments_and_the_video(
    selector: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = video(7, 6, 9)
    if not held:
        monkeypatch.setattr(cosine_rows, "_MATRIX_VALUES", 1)
    frame = compress(features, "divprune", selector=selector, tokens=14)
    by_frame = compress(features, "divprune", selector=selector, allocator="none", segment=1, tokens=14)
    assert torch.equal(frame.keep, by_frame.keep)
    whole = compress(features, "divprune", selector=selector, allocator="none", tokens=14)
    check(whole, 14)
    flat = compress(features.view(1, 42, 9), "divprune", selector=selector, tokens=14)
    assert torch.equal(whole.keep, flat.keep)
    pairs = compress(features, "divprune", selector=selector, allocator="none", segment=2, tokens=14)
    check(pairs, 14)
    assert pairs.budgets.view(-1)[:6].view(3, 2).sum(1).tolist() == [4, 4, 4]
    first = compress(features[:2].reshape(1, 12, 9), "divprune", selector=selector, tokens=4)
    assert torch.equal(pairs.keep[:4], first.keep)


def test_all_frames_at_once_or_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features = video(7, 6, 9)
    budgets = {"allocator": "fca", "tokens": 20}
    expected = [compress(features, "divprune", selector=name, **budgets).keep for name in ("divprune", "dpp")]
    monkeypatch.setattr(cosine_rows, "_MATRIX_VALUES", 2 * 6 * 6)
    found = [compress(features, "divprune", selector=name, **budgets).keep for name in ("divprune", "dpp")]
    assert all(torch.equal(left, right) for left, right in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selector": {"name": "divprune", "segment": 0}}, "segment=0 must be at least 1"),
        ({"selector": {"name": "dpp", "theta": 1.0}}, "theta=1.0 is outside"),
        ({"scorer": {"name": "timechat_dtd", "mode": "pixel"}}, "compressors see token features alone"),
        ({"allocator": {"name": "timechat_dtd", "threshold": 2.0}}, "it lies in"),
        ({"selector": "token_saliency"}, "no scorer is set"),
    ],
)
def test_what_cannot_work_fails_when_built(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build("divprune", **settings)


# --- V-CAST, DyCoke -----------------------------------------------------------------------------------------------


def test_vcast_ignores_frames_without_tokens() -> None:
    features = video(6, 8, 5)
    valid = torch.ones(6, 8, dtype=torch.bool)
    valid[3] = False
    with_gap = compress(features, "vcast", tokens=20, valid=valid)
    without = compress(features[[0, 1, 2, 4, 5]], "vcast", tokens=20)
    assert torch.equal(with_gap.budgets[[0, 1, 2, 4, 5]], without.budgets)
    assert with_gap.budgets[3] == 0


def test_vcast_spends_the_budget_when_frames_are_full() -> None:
    """The release loses what a full frame cannot take."""
    features = torch.cat([video(1, 4, 6).expand(6, 4, 6), -video(1, 4, 6)]).contiguous()
    for kept in range(1, 29):
        assert compress(features, "vcast", tokens=kept, temperature=0.01).kept == kept


@pytest.mark.parametrize(
    ("frames", "total", "budgets"),
    [
        (1, 3, [3]),
        (4, 10, [8, 1, 1, 0]),
        (5, 12, [6, 0, 0, 0, 6]),
        (6, 18, [8, 1, 1, 0, 8, 0]),
        (7, 24, [8, 2, 2, 2, 8, 1, 1]),
    ],
)
def test_dycoke_pattern(frames: int, total: int, budgets: list[int]) -> None:
    assert compress(video(frames, 8, 4), "dycoke", tokens=total).budgets.tolist() == budgets


def test_dycoke_keeps_what_changed() -> None:
    features = video(1, 8, 6).expand(4, 8, 6).clone()
    features[1, 5] *= -1
    features[2, [3, 4]] *= -1
    features[3, 2] *= -1
    kept = compress(features, "dycoke", tokens=11).mask
    assert kept[0].all()
    assert kept[1].nonzero().flatten().tolist() == [5]
    assert kept[2].nonzero().flatten().tolist() == [3]
    # The fourth frame is compared with the third, not with the first.
    assert kept[3].nonzero().flatten().tolist()[0] in (2, 3, 4)


# --- CDPruner -----------------------------------------------------------------------------------------------------


def test_cdpruner_needs_the_question() -> None:
    with pytest.raises(RequirementError, match="scorer cdpruner needs Query"):
        compress(video(2, 4, 3), "cdpruner")


def test_cdpruner_relevance() -> None:
    features, text = video(2, 5, 4), question(4)
    expected = torch.cosine_similarity(features[:, :, None], text[None, None], dim=3).mean(2)
    for sign, factor in (("negative", -1), ("positive", 1)):
        compressor = build("cdpruner", allocator="none", selector="token_saliency", sign=sign)
        result = compress(features, compressor, query=text, tokens=1)
        torch.testing.assert_close(result.scores, factor * expected)
        assert result.keep.item() == (factor * expected).argmax()


def test_cdpruner_weighs_relevance_by_theta() -> None:
    features, text = video(3, 30, 16), question(16)
    kept = {}
    for theta in (0.0, 0.9999):
        result = compress(features, "cdpruner", query=text, theta=theta, tokens_per_frame=5)
        kept[theta] = result.scores[result.mask].mean()
    relevant = build("cdpruner", selector="token_saliency")
    best = compress(features, relevant, query=text, tokens_per_frame=5)
    assert kept[0.0] < kept[0.9999]
    torch.testing.assert_close(kept[0.9999], best.scores[best.mask].mean())
    plain = compress(features, "cdpruner", scorer="none", tokens_per_frame=5)
    assert torch.equal(plain.keep, compress(features, "cdpruner", query=text, theta=0.0, tokens_per_frame=5).keep)


# --- EVS, TimeChat-Online -----------------------------------------------------------------------------------------


def test_evs_is_a_ranking_of_the_video_after_the_first_frame() -> None:
    features = video(5, 6, 8)
    result = compress(features, "evs", tokens=13)
    change = 1 - torch.cosine_similarity(features[1:], features[:-1], dim=2)
    best = change.flatten().argsort(descending=True)[:7].sort().values + 6
    assert result.keep.tolist() == [*range(6), *best.tolist()]
    by_budget = compress(features, "evs", allocator="evs", tokens=13)
    assert torch.equal(result.keep, by_budget.keep)


def test_evs_below_one_frame() -> None:
    features = video(5, 6, 8)
    result = compress(features, "evs", tokens=4)
    assert result.keep.max() < 6
    apart = 1 - torch.cosine_similarity(features[0], features[0].mean(0, keepdim=True), dim=1)
    assert set(result.keep.tolist()) == set(apart.argsort(descending=True)[:4].tolist())
    assert compress(features, "evs_released", tokens=4).keep.tolist() == list(range(6))


@pytest.mark.parametrize("retention", [0.1, 0.25, 0.5, 0.77])
def test_evs_released_count(retention: float) -> None:
    result = compress(video(5, 6, 8), "evs_released", retention=retention)
    assert result.kept == max(6, int(30 * retention))


@pytest.mark.parametrize("threshold", [-0.2, 0.0, 0.25, 0.5])
def test_dtd_by_threshold(threshold: float) -> None:
    features = video(6, 30, 4)
    result = compress(features, "timechat_dtd_released", threshold=threshold)
    similar = torch.cosine_similarity(features[1:], features[:-1], dim=2)
    assert result.mask[0].all()
    assert torch.equal(result.mask[1:], similar <= threshold)


def test_dtd_by_budget_is_the_threshold_that_fits() -> None:
    features = video(6, 30, 4)
    released = compress(features, "timechat_dtd_released", threshold=0.3)
    assert torch.equal(compress(features, "timechat_dtd", tokens=released.kept).keep, released.keep)
    ranked = compress(features, "timechat_dtd", allocator="none", tokens=released.kept)
    assert torch.equal(ranked.keep, released.keep)


@pytest.mark.parametrize("chunks", [[1] * 6, [2, 4], [3, 1, 2]])
def test_dtd_over_a_stream_is_dtd_over_the_video(chunks: list[int]) -> None:
    features = video(6, 30, 4)
    whole = compress(features, "timechat_dtd_released")
    history, masks = None, []
    for part in features.split(chunks):
        result = compress(part, "timechat_dtd_released", history=history)
        history = result.history
        masks.append(result.mask)
        assert history.features.shape == (30, 4)
    assert torch.equal(torch.cat(masks), whole.mask)


# --- STC-Pruner ---------------------------------------------------------------------------------------------------


def stream(chunks: list[Tensor], method: str, **settings: Any) -> list[Compression]:
    results: list[Compression] = []
    for chunk in chunks:
        history = results[-1].history if results else None
        results.append(compress(chunk, method, history=history, **settings))
    return results


@pytest.mark.parametrize("name", ["stc_pruner", "stc_pruner_released", "stc_pruner_paper"])
def test_stc_history_is_bounded_and_never_changed(name: str) -> None:
    """The release's history grows with the stream and is never reset."""
    chunks = list(video(20, 9, 8).split(1))
    results = stream(chunks, name)
    sizes = {result.history.mean.shape for result in results}
    assert len(sizes) == 1
    assert [result.history.chunks for result in results] == list(range(1, 21))
    before = results[4].history.mean.clone()
    again = [compress(chunks[5], name, history=results[4].history) for _ in range(3)]
    assert torch.equal(results[4].history.mean, before)
    assert all(torch.equal(result.keep, results[5].keep) for result in again)
    assert torch.equal(compress(chunks[0], name).keep, results[0].keep)


def test_stc_memory_by_channel_is_the_mean_of_chunk_means() -> None:
    chunks = list(video(9, 7, 6).split([2, 3, 4]))
    results = stream(chunks, "stc_pruner")
    means = torch.stack([chunk.mean((0, 1)) for chunk in chunks])
    for index, result in enumerate(results):
        torch.testing.assert_close(result.history.mean, means[: index + 1].mean(0))


@pytest.mark.parametrize("retention", [0.3, 1.0])
def test_stc_remembers_chunks_that_are_kept_whole(retention: float) -> None:
    chunks = list(video(3, 9, 8).split(1))
    results = stream(chunks, "stc_pruner", retention=retention)
    assert results[-1].history.chunks == 3


def test_stc_memory_turns_what_was_seen_into_something_ordinary() -> None:
    seen, new = video(2, 1, 16)[:, 0]
    frame = torch.stack([seen] * 6 + [new] * 6) + 0.01 * video(1, 12, 16, seed=3)[0]
    past = seen.expand(1, 12, 16).contiguous()
    for name in ("stc_pruner", "stc_pruner_paper"):
        history = stream([past] * 5, name)[-1].history
        assert compress(frame[None], name, history=history, tokens=6).keep.tolist() == list(range(6, 12))


def test_stc_dual_anchor_as_printed() -> None:
    chunks = list(video(4, 9, 8).split(2))
    last = stream(chunks, "stc_pruner_paper")[-1]
    memory = torch.stack([chunk.mean((0, 1)) for chunk in chunks]).mean(0)
    spatial = torch.cosine_similarity(chunks[1], chunks[1].mean(1, keepdim=True), dim=2)
    temporal = torch.cosine_similarity(chunks[1], memory[None, None], dim=2)
    torch.testing.assert_close(last.scores, -(0.5 * temporal + 0.5 * spatial))


def test_stc_refuses_a_history_that_is_not_its_own() -> None:
    features = video(2, 9, 8)
    rank = compress(features, "stc_pruner_released").history
    with pytest.raises(InputError, match="StreamMemory paired by rank"):
        compress(features, "stc_pruner", history=rank)
    with pytest.raises(InputError, match="history is a LastFrame"):
        compress(features, "stc_pruner", history=compress(features, "timechat_dtd").history)
    with pytest.raises(InputError, match="remembers 8 channels"):
        compress(video(2, 9, 6), "stc_pruner", history=compress(features, "stc_pruner").history)


def test_stateless_methods_pass_a_history_on() -> None:
    mark = object()
    for name in ("vcast", "divprune", "evs"):
        for retention in (0.5, 1.0):
            assert compress(video(2, 4, 3), name, history=mark, retention=retention).history is mark
