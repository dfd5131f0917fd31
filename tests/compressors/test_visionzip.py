"""VisionZip: parity with the release, and the exact-budget form."""

from __future__ import annotations

import pytest
import torch

from compressors import BuildError, RequirementError, VideoTokens, build, compress
from tests.compressors.merging import assert_sound, count_reads, matrix, video
from tests.golden import cases


@pytest.mark.parametrize("name", cases.names("visionzip"))
def test_released_form_equals_the_release(name: str) -> None:
    case = cases.load(name)
    features = case.inputs["features"]
    # Without scores the release ranks by norm; with a class token it always keeps that.
    attention = case.inputs.get("scores", features.norm(dim=-1)).clone()
    if case.params["cls_token"]:
        attention[:, 0] = attention.amax() + 1
    result = compress(features, "visionzip_released", retention=case.params["ratio"], attention=attention)
    order = torch.arange(result.kept)
    if case.arrays["keep"].ndim == 2:
        # The release lists a frame's dominant tokens first.
        expected = torch.from_numpy(case.arrays["keep"]).long()
        order = (
            (expected + torch.arange(expected.shape[0]).unsqueeze(1) * features.shape[1]).flatten().argsort().argsort()
        )
        case.assert_equal("keep", (result.keep % features.shape[1])[order].view(expected.shape))
    else:
        case.assert_equal("keep", result.keep)
    case.assert_equal("features", result.features[order].view(case.arrays["features"].shape))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (5, 12)])
@pytest.mark.parametrize("retention", [0.01, 0.1, 0.37, 0.9, 1.0])
def test_every_size_ends_at_the_budget(shape: tuple[int, int], retention: float) -> None:
    features = video(*shape)
    result = compress(
        features, "visionzip", retention=retention, attention=torch.rand(shape), keys=video(*shape, 4, seed=1)
    )
    assert result.kept == max(1, round(retention * shape[0] * shape[1]))
    assert_sound(result)


def test_evenly_spaced_targets_gather_all_that_remains() -> None:
    """By hand: 16 tokens, 8 kept, 6 of them dominant; of the 10 that remain the first and the sixth are targets."""
    attention = torch.tensor([[9.0, 1, 8, 1, 7, 1, 6, 1, 5, 1, 4, 1, 1, 1, 1, 1]])
    remaining = torch.tensor([1, 3, 5, 7, 9, 11, 12, 13, 14, 15])
    keys = torch.zeros(1, 16, 2)
    keys[0, :, 0] = 1
    keys[0, [5, 7, 11]] = torch.tensor([0.0, 1.0])  # 11 is the sixth that remains
    result = compress(video(1, 16), "visionzip", tokens=8, attention=attention, keys=keys)
    assert result.keep.tolist() == [0, 1, 2, 4, 6, 8, 10, 11]
    weights = matrix(result)
    first, second = weights[1], weights[7]
    assert second.nonzero().flatten().tolist() == [5, 7, 11]
    assert first.nonzero().flatten().tolist() == [n for n in remaining.tolist() if n not in (5, 7, 11)]
    assert_sound(result)


def test_authors_release_adds_the_mean_to_the_target() -> None:
    features, attention, keys = video(2, 20), torch.rand(2, 20), video(2, 20, 4)
    summed = compress(features, "visionzip_original", retention=0.5, attention=attention, keys=keys)
    plain = compress(features, "visionzip", retention=0.5, attention=attention, keys=keys)
    assert summed.keep.equal(plain.keep)
    assert_sound(summed, row_sum=None)
    rows = matrix(summed).sum(1)
    shared = (matrix(summed) > 0).sum(1) > 1
    torch.testing.assert_close(rows, 1 + shared.double())


@pytest.mark.parametrize("method", ["visionzip", "visionzip_released"])
def test_empty_places_and_repeated_tokens(method: str) -> None:
    features = torch.ones(4, 9, 3)
    valid = torch.ones(4, 9, dtype=torch.bool)
    valid[1, ::2] = False
    valid[2] = False
    features[~valid] = float("nan")
    result = compress(
        VideoTokens(features, valid=valid, counts=tuple(valid.sum(1).tolist()), keys=torch.ones(4, 9, 2)),
        method,
        retention=0.5,
        attention=torch.ones(4, 9),
    )
    assert_sound(result)
    assert result.budgets[2] == 0
    torch.testing.assert_close(result.features, torch.ones(result.kept, 3))


def test_parts_exchange_with_other_methods() -> None:
    features, attention, keys = video(6, 16), torch.rand(6, 16), video(6, 16, 4)
    for allocator in ("fca", "frame_subsample"):
        result = compress(features, "visionzip", allocator=allocator, attention=attention, keys=keys)
        assert result.kept == 24
        assert_sound(result)
    assert compress(features, "vidcom2", scorer="attention", attention=attention).kept == 24
    assert compress(features, "visionzip", scorer="vidcom2", keys=keys).kept == 24


def test_needs_are_stated_and_nonsense_is_refused() -> None:
    with pytest.raises(RequirementError, match=r"scorer attention needs Attention\(layer=-2"):
        compress(video(2, 4), "visionzip", keys=video(2, 4))
    with pytest.raises(RequirementError, match=r"merger nearest_kept needs Keys\(layer=-2\)"):
        compress(video(2, 4), "visionzip", attention=torch.rand(2, 4))
    with pytest.raises(BuildError, match="needs an allocator"):
        build("visionzip", allocator="none")
    with pytest.raises(BuildError, match="dominant_ratio=2"):
        build("visionzip", dominant_ratio=2)
    with pytest.raises(BuildError, match="neighbours=0"):
        build("visionzip", neighbours=0)


@pytest.mark.parametrize("method", ["visionzip", "visionzip_released"])
def test_host_reads(method: str) -> None:
    tokens = VideoTokens(video(4, 16), attention=torch.rand(4, 16), keys=video(4, 16))
    compressor = build(method)
    with count_reads() as reads:
        _ = compressor(tokens).features
    assert len(reads) == compressor.host_reads
