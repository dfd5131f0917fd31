"""Cosine similarities against torch's own, whatever the block borders, and with empty places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressors import InputError, VideoTokens
from compressors.functional import cosine, statistics
from compressors.functional.last_frame import LastFrame


@pytest.fixture(params=[1, 50, 1 << 18], autouse=True)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_buffer_values", lambda *_, **__: request.param)


def features(frames: int = 5, places: int = 7, channels: int = 6) -> Tensor:
    return torch.randn(frames, places, channels, generator=torch.Generator().manual_seed(3))


def ragged(values: Tensor) -> VideoTokens:
    valid = torch.rand(values.shape[:2], generator=torch.Generator().manual_seed(4)) > 0.4
    valid[3] = False
    poisoned = torch.where(valid.unsqueeze(2), values, float("nan"))
    return VideoTokens(poisoned, valid=valid, counts=tuple(valid.sum(1).tolist()))


def test_norms_and_means() -> None:
    values = features()
    tokens = VideoTokens(values)
    torch.testing.assert_close(cosine.norms(tokens), values.norm(dim=2))
    torch.testing.assert_close(cosine.frame_means(tokens), values.mean(1))
    expected = torch.cosine_similarity(values, values.mean(1, keepdim=True), dim=2)
    torch.testing.assert_close(cosine.cosine_to_frame_mean(tokens), expected)


def test_to_other_frames() -> None:
    values = features()
    reference = [4, 0, 1, 1, 4]
    expected = torch.cosine_similarity(values, values[reference], dim=2)
    torch.testing.assert_close(cosine.cosine_to_frames(VideoTokens(values), reference), expected)
    tokens = VideoTokens(values.bfloat16())
    assert cosine.cosine_to_frames(tokens, reference).dtype == torch.float32


def test_a_frame_without_reference_leads() -> None:
    values = features()
    scores = cosine.dissimilarity_to_frames(VideoTokens(values), [None, 0, None, 2, 3])
    assert scores[[0, 2]].min() >= cosine.LEADING
    assert scores[[1, 3, 4]].max() <= 2
    torch.testing.assert_close(scores[3], 1 - torch.cosine_similarity(values[3], values[2], dim=1))


def test_empty_places() -> None:
    values = features()
    tokens = ragged(values)
    assert tokens.valid is not None
    means = cosine.frame_means(tokens)
    torch.testing.assert_close(means[0], values[0, tokens.valid[0]].mean(0))
    assert (means[3] == 0).all()
    scores = cosine.dissimilarity_to_previous(tokens)
    assert torch.isfinite(scores).all()
    both = tokens.valid[2] & tokens.valid[1]
    torch.testing.assert_close(scores[2, both], 1 - torch.cosine_similarity(values[2, both], values[1, both], dim=1))
    assert (scores[2, ~tokens.valid[1]] == cosine.NO_COUNTERPART).all()


def test_the_last_frame_continues_a_video() -> None:
    values = features()
    whole = cosine.dissimilarity_to_previous(VideoTokens(values))
    history = LastFrame.of(VideoTokens(values[:2]))
    tokens = VideoTokens(values[2:], history=history)
    torch.testing.assert_close(cosine.dissimilarity_to_previous(tokens, LastFrame.before(tokens)), whole[2:])
    with pytest.raises(InputError, match="start a new stream"):
        LastFrame.before(VideoTokens(features(2, 5), history=history))
    with pytest.raises(InputError, match="history is a dict"):
        LastFrame.before(VideoTokens(features(2, 5), history={}))
