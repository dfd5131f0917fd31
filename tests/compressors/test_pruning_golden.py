"""V-CAST, DyCoke and STC-Pruner against the vectors of their releases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compressors import Composition, Compression, VideoTokens, build, compress
from compressors.allocators import Curvature
from compressors.functional.cosine import cosine_to_frames
from compressors.functional.statistics import channel_statistics
from compressors.scorers import StcPrunerScorer
from tests.golden import cases


@pytest.mark.parametrize("name", cases.names("vcast"))
def test_vcast(name: str) -> None:
    case = cases.load(name)
    tokens = VideoTokens(case.inputs["features"])
    result = compress(tokens, "vcast_released", retention=case.params["ratio"], min_tokens=case.params["min_k"])
    case.assert_equal("keep", result.keep)
    case.assert_equal("budgets", result.budgets)
    case.assert_equal("curvature", Curvature().curvature(tokens))
    case.assert_equal("weights", Curvature().weights(tokens))


@pytest.mark.parametrize("name", cases.names("vcast"))
def test_vcast_spends_exactly_and_spreads_the_remainder(name: str) -> None:
    case = cases.load(name)
    features, ratio = case.inputs["features"], case.params["ratio"]
    result = compress(features, "vcast", retention=ratio)
    assert result.kept == round(ratio * features[..., 0].numel()) == int(result.budgets.sum())
    if features.shape[0] > 1:
        released = torch.from_numpy(case.arrays["budgets"])
        wanted = 1 + torch.from_numpy(case.arrays["weights"]) * (result.kept - features.shape[0])
        assert (result.budgets - wanted).abs().max() < 1
        assert (released - wanted).abs().max() >= (result.budgets - wanted).abs().max() - 1e-3


@pytest.mark.parametrize("name", cases.names("dycoke"))
def test_dycoke(name: str) -> None:
    case = cases.load(name)
    tokens = VideoTokens(case.inputs["features"])
    ratio = case.params["merging_ratio"]
    result = compress(tokens, "dycoke_released", retention=0.5, merging_ratio=ratio)
    case.assert_equal("keep", result.keep)
    case.assert_equal("keep_core", result.keep)
    case.assert_equal("counts", result.budgets)
    if "similarities" in case.arrays:
        frames = tokens.frames
        before = cosine_to_frames(tokens, [max(0, t - 1) for t in range(frames)])
        window = cosine_to_frames(tokens, [max(0, t - 2) for t in range(frames)])
        rows = [before[t] for t in range(1, frames, 2)] + [window[t] for t in range(2, frames - 2, 4)]
        case.assert_equal("similarities", torch.stack(rows))


@pytest.mark.parametrize("name", cases.names("dycoke"))
def test_dycoke_exact_keeps_anchors_whole_and_loses_no_frame(name: str) -> None:
    case = cases.load(name)
    features = case.inputs["features"]
    frames, places = features.shape[:2]
    anchors = -(-frames // 4)
    total = anchors * places + (frames - anchors) * places // 3
    result = compress(features, "dycoke", tokens=total)
    assert result.kept == total
    assert (result.budgets[::4] == places).all()
    others = result.budgets[torch.arange(frames) % 4 != 0]
    assert len(others) == 0 or others.max() - others.min() <= 1


def stream(case: cases.Release, method: str, **params: Any) -> list[tuple[Compression, VideoTokens]]:
    """Chunk by chunk, the history passed by hand."""
    compressor = build(method, **params)
    results, history, first = [], None, 0
    for length in case.params["chunks"]:
        tokens = VideoTokens(case.inputs["features"][first : first + length], history=history)
        result = compress(tokens, compressor, tokens_per_frame=case.params["tokens_kept"])
        history = result.history
        results.append((result, tokens))
        first += length
    return results


@pytest.mark.parametrize("name", cases.names("stc_pruner"))
def test_stc_pruner(name: str) -> None:
    case = cases.load(name)
    compressor = build("stc_pruner_released")
    assert isinstance(compressor, Composition)
    scorer = compressor.scorer
    assert isinstance(scorer, StcPrunerScorer)
    for index, (result, tokens) in enumerate(stream(case, "stc_pruner_released")):
        case.assert_equal(f"keep_linear_{index}", result.keep)
        case.assert_equal(f"channels_{index}", channel_order(tokens))
        case.assert_equal(f"memory_{index}", result.history.mean)
        video, frame = scorer.to_frame(tokens)
        case.assert_equal(f"memory_scores_{index}", scorer.to_memory(tokens))
        case.assert_equal(f"frame_scores_{index}", frame)
        case.assert_equal(f"video_scores_{index}", video)


@pytest.mark.parametrize("name", cases.names("stc_pruner"))
def test_stc_pruner_pairs_a_channel_with_its_own_past(name: str) -> None:
    """The release pairs channels by rank; by default they are paired by identity, which changes later chunks only."""
    case = cases.load(name)
    aligned = stream(case, "stc_pruner")
    released = stream(case, "stc_pruner_released")
    assert torch.equal(aligned[0][0].keep, released[0][0].keep)
    for (left, tokens), (right, _) in zip(aligned, released, strict=True):
        assert left.kept == right.kept
        assert left.history.mean.shape == (tokens.channels,)
    total = sum(left.kept for left, _ in aligned)
    shared = sum(np.intersect1d(a.keep, b.keep).size for (a, _), (b, _) in zip(aligned, released, strict=True))
    assert total > shared or case.params["tokens_kept"] == case.inputs["features"].shape[1]


def channel_order(tokens: VideoTokens) -> Tensor:
    order = torch.sort(channel_statistics(tokens).variance, stable=True).indices
    return order[: tokens.channels // 2]
