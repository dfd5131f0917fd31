"""FlashVID: parity with the release, exact budgets, every token counted once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from compressors import VideoTokens, build, compress
from compressors.flashvid import FlashVid
from tests.compressors.merging import assert_sound, matrix, video
from tests.golden import cases

SELECTION = {"attn_div": "attention", "attn_div_v2": "attention_event", "div": "diversity"}


def slow_video(frames: int, places: int, channels: int = 8, seed: int = 0) -> Tensor:
    """Tokens that stay alike from frame to frame, half of them one place further on."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(places, channels, generator=generator)
    moved = [torch.where(torch.arange(places)[:, None] % 2 == 0, start, start.roll(t, 0)) for t in range(frames)]
    return torch.stack(moved) + 0.1 * torch.randn(frames, places, channels, generator=generator)


def attention(features: Tensor) -> Tensor:
    return torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("name", cases.names("flashvid"))
def test_released_form_equals_the_release(name: str) -> None:
    case = cases.load(name)
    config, features = case.params["config"], case.inputs["features"]
    compressor = build(
        "flashvid_released",
        threshold=config["temporal_threshold"],
        segment_threshold=config["segment_threshold"],
        segments=config["min_segment_num"] if config.get("do_segment", True) else None,
        selection_share=config["alpha"],
        expansion=config["expansion"],
        selection=SELECTION[config.get("token_selection_method", "attn_div")],
    )
    result = compress(features, compressor, retention=config["retention_ratio"], attention=case.inputs["scores"])
    assert isinstance(compressor, FlashVid)
    segment = compressor.segment_of_frame(VideoTokens(features))
    case.assert_equal("segments", segment.bincount())

    # In segments of one frame the release may emit a place twice, as itself and as a merged row; we keep the former.
    emitted, times = np.unique(case.arrays["keep"], return_counts=True)
    assert result.keep.tolist() == emitted.tolist()
    alone = segment.bincount()[segment] == 1
    assert alone[torch.from_numpy(emitted[times > 1]).long() // features.shape[1]].all()
    own = features.flatten(0, 1)[result.keep].numpy()
    expected = np.stack([case.arrays["features"][case.arrays["keep"] == place][0] for place in emitted])
    expected[times > 1] = own[times > 1]
    assert np.abs(result.features.numpy() - expected).max() <= case.tolerances["features"] * np.abs(expected).max()
    assert_sound(result, row_sum=None)


def test_the_release_misses_the_budget_and_the_default_does_not() -> None:
    case = cases.load("flashvid_f16_n196_r025")
    assert case.arrays["keep"].shape == (998,)
    result = compress(case.inputs["features"], "flashvid", retention=0.25, attention=case.inputs["scores"])
    assert result.kept == 784
    assert_sound(result)


def test_every_token_counts_once() -> None:
    """The release counts what hangs on a chain again and again."""
    features = slow_video(8, 12)
    given = {"attention": attention(features), "retention": 0.3}
    once = compress(features, build("flashvid", segments=None), **given)
    weights = matrix(once)
    merged = (weights > 0).sum(1) > 1
    assert merged.any()
    for row in weights[merged]:
        assert row[row > 0].unique().numel() == 1, "all tokens of a row weigh the same"
    assert ((weights > 0).sum(0) <= 1).all(), "no token flows into two rows"
    again = compress(features, build("flashvid_released", segments=None), **given)
    assert matrix(again).sum(1).max() > 1.1


def test_links_stay_within_segments() -> None:
    features = torch.cat([slow_video(4, 12, seed=0), slow_video(4, 12, seed=1)])
    compressor = build("flashvid", segments=2, segment_threshold=-1.0)
    assert isinstance(compressor, FlashVid)
    segment = compressor.segment_of_frame(VideoTokens(features))
    assert segment.tolist() == [0] * 4 + [1] * 4
    result = compress(features, compressor, retention=0.3, attention=attention(features))
    for row, place in zip(matrix(result), result.keep.tolist(), strict=True):
        sources = row.nonzero().flatten() // 12
        assert (segment[sources] == segment[place // 12]).all()
        assert (sources >= place // 12).all(), "what is merged comes from the row's frame or later"


def test_enough_tokens_remain_for_the_budget() -> None:
    """Frames that hardly change link everything; then the weakest links are left out."""
    features = video(1, 20).repeat(6, 1, 1) + 0.001 * video(6, 20, seed=1)
    result = compress(features, build("flashvid", segments=None), retention=0.5, attention=attention(features))
    assert result.kept == 60
    assert_sound(result)
