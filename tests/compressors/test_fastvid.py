"""FastVID: parity with both releases, exact budgets, few frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors import RequirementError, build, compress
from compressors.fastvid import FastVid
from tests.compressors.merging import assert_sound, matrix, video
from tests.golden import cases


def inputs(features: Tensor, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "attention": torch.rand(features.shape[:2], generator=generator),
        "frame_features": torch.randn(features.shape[0], 6, generator=generator),
    }


@pytest.mark.parametrize("name", cases.names("fastvid"))
def test_released_forms_equal_the_releases(name: str) -> None:
    case = cases.load(name)
    config, features = case.params["config"], case.inputs["features"]
    params = {"segments": config["dyseg_c"], "threshold": config["dyseg_tau"], "context_share": config["stprune_d"]}
    params |= {"anchor_stride": config["dtm_p"], "centre_weight": config["dtm_beta"]}
    if "dyseg_ignore" in config:
        params["duplicate"] = config["dyseg_ignore"]
    compressor = build("fastvid_released" if "orig" in name else "fastvid_qwen_released", **params)
    # Without scores that release ranks by norm.
    attention = case.inputs.get("scores", features.norm(dim=-1))
    pooled = case.inputs.get("frame_features")
    result = compress(
        features, compressor, retention=config["retention_ratio"], attention=attention, frame_features=pooled
    )
    case.assert_equal("keep", result.keep)
    case.assert_equal("counts", result.budgets)
    case.assert_equal("features", result.features)
    assert_sound(result)


def test_every_anchor_gathers_the_whole_segment() -> None:
    """By hand: one segment of 8 frames, anchors at frames 3 and 7, any other token in a row of each."""
    features = video(8, 10)
    given = inputs(features) | {"frame_features": torch.ones(8, 2)}
    result = compress(features, FastVid(segments=1), tokens=20, **given)
    salient = torch.tensor([2, 2, 2, 2, 1, 1, 1, 1])  # 12 of the 20, the other 8 in equal parts on the anchors
    assert result.budgets.tolist() == [2, 2, 2, 6, 1, 1, 1, 5]
    weights = matrix(result)
    merged = (weights > 0).sum(1) > 1
    assert set((result.keep[merged] // 10).tolist()) == {3, 7}
    rank = given["attention"].argsort(1, descending=True).argsort(1)
    fed = (weights[result.keep // 10 == 3] > 0).sum(0) + (weights[result.keep // 10 == 7] > 0).sum(0)
    is_salient = (rank < salient.unsqueeze(1)).flatten()
    anchored = torch.isin(torch.arange(80) // 10, torch.tensor([3, 7]))
    assert (fed[~is_salient] == 2).all()
    assert (fed[is_salient & ~anchored] == 0).all()


def test_near_duplicate_frames_get_nothing_in_the_qwen_form() -> None:
    features = video(1, 12).repeat(9, 1, 1)
    result = compress(features, build("fastvid_qwen", segments=2), tokens=12, **inputs(features))
    assert result.budgets.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 11]


def test_frame_descriptors_and_attention_are_never_replaced() -> None:
    features = video(3, 4)
    with pytest.raises(RequirementError, match="frame_features"):
        compress(features, "fastvid", attention=torch.rand(3, 4))
    with pytest.raises(RequirementError, match=r"Attention\(layer=-1, row='pool_head'\)"):
        compress(features, "fastvid", frame_features=torch.rand(3, 4))
