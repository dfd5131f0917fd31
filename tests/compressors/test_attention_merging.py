"""FastVID, HoliTom and FlashVID: every size, empty places, host reads, and allocators inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import BuildError, Compression, VideoTokens, build, compress, make, names
from compressors.base import Compressor
from tests.compressors.merging import assert_sound, count_reads, video
from tests.compressors.videos import HostReads, ragged, scene_cut, supplied

FORMS: list[tuple[str, dict[str, Any]]] = [
    ("fastvid", {}),
    ("fastvid_released", {}),
    ("fastvid_qwen", {}),
    ("fastvid_qwen_released", {}),
    ("holitom", {}),
    ("holitom", {"context_share": 0.5}),
    ("holitom_released", {}),
    ("holitom_released", {"context_share": 0.5}),
    ("flashvid", {}),
    ("flashvid", {"segments": None}),
    ("flashvid_released", {}),
    ("flashvid_released", {"segments": None}),
    ("flashvid_paper", {}),
]


@pytest.fixture(params=FORMS, ids=lambda form: "-".join([form[0], *(f"{k}={v}" for k, v in form[1].items())]))
def compressor(request: pytest.FixtureRequest) -> Compressor:
    name, params = request.param
    return build(name, **params)


def row_sum(compressor: Compressor) -> float | None:
    """What the weights of a row sum to; the release of FlashVID says nothing."""
    return None if compressor.title == "flashvid_released" else 1.0


def slow_video(frames: int, places: int, channels: int = 8, seed: int = 0) -> Tensor:
    """One place in three changes in every frame, one in three wanders, the rest hardly moves."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(places, channels, generator=generator)
    place = torch.arange(places)[:, None]
    features = torch.stack([torch.where(place % 3 == 1, start.roll(3 * t, 0), start) for t in range(frames)])
    features += 0.05 * torch.randn(features.shape, generator=generator)
    features[:, ::3] = torch.randn(features[:, ::3].shape, generator=generator)
    return features


@pytest.mark.parametrize("make_video", [video, slow_video])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (11, 12)])
@pytest.mark.parametrize("retention", [0.01, 0.3, 0.9])
def test_every_size_works(compressor: Compressor, make_video: Any, shape: tuple[int, int], retention: float) -> None:
    """FastVID's release fails below eight frames."""
    tokens = supplied(VideoTokens(make_video(*shape)))
    result = compress(tokens, compressor, retention=retention)
    if compressor.exact:
        assert result.kept == max(1, round(retention * shape[0] * shape[1]))
    if result.kept:
        assert_sound(result, row_sum(compressor))


def test_empty_places_and_repeated_tokens(compressor: Compressor) -> None:
    features = torch.ones(6, 9, 3)
    valid = torch.ones(6, 9, dtype=torch.bool)
    valid[1, ::2] = False
    valid[4] = False
    features[~valid] = float("nan")
    result = compress(supplied(VideoTokens(features)), compressor, retention=0.4, valid=valid)
    if compressor.exact:
        assert result.kept == round(0.4 * int(valid.sum()))
    assert valid.flatten()[result.keep].all()
    assert_sound(result, row_sum(compressor))
    if row_sum(compressor):
        torch.testing.assert_close(result.features, torch.ones(result.kept, 3))


def test_reads_and_twice_the_same(compressor: Compressor) -> None:
    features = slow_video(12, 16)
    before = features.clone()
    tokens = supplied(VideoTokens(features, planes={"deep": torch.randn(12, 16, 3)}))

    def run() -> Compression:
        return compress(tokens.with_(_memo={}), compressor, retention=0.3, validate=False)

    with count_reads() as reads:
        first = run()
    assert len(reads) == compressor.host_reads
    second = run()
    assert first.keep.equal(second.keep)
    assert first.features.equal(second.features)
    assert features.equal(before), "FlashVID's release changes its input"
    assert_sound(first, row_sum(compressor))


WITH_ALLOCATOR = ["fastvid", "fastvid_qwen", "flashvid", "flashvid_paper"]


@pytest.mark.parametrize("name", WITH_ALLOCATOR)
@pytest.mark.parametrize("allocator", [name for name in names("allocator") if make("allocator", name).exact])
def test_any_allocator_inside(name: str, allocator: str) -> None:
    compressor = build(name, allocator=allocator)
    for tokens in (VideoTokens(scene_cut()), VideoTokens(video(1, 40)), ragged(4, 60, 5, [60, 2, 0, 40])):
        for total in (1, 7, 33):
            with HostReads() as reads:
                result = compress(supplied(tokens), compressor, tokens=total, validate=False)
            assert result.kept == total
            assert reads.count == (compressor.host_reads if tokens.frames > 1 else 0)
            assert_sound(result)


@pytest.mark.parametrize("name", WITH_ALLOCATOR)
def test_fca_gives_frames_that_stand_out_more(name: str) -> None:
    tokens = supplied(VideoTokens(scene_cut()))
    own = compress(tokens, name, segments=2).budgets
    adjusted = compress(tokens, name, segments=2, allocator="fca").budgets
    assert adjusted.sum() == own.sum()
    assert adjusted[6:].sum() > own[6:].sum(), "the short scene stands out"
    assert compress(tokens, name, segments=2, allocator="uniform").budgets.equal(own), "even budgets are its own"


def test_salient_tokens_follow_the_allocator() -> None:
    """One segment, no context: what FastVID keeps of a frame is what the allocator gave it."""
    tokens = supplied(VideoTokens(scene_cut()))
    wanted = compress(tokens, "vidcom2", allocator="fca").budgets
    assert wanted.max() > wanted.min()
    whole = {"segments": 1, "threshold": -1.0, "context_share": 0.0}
    assert compress(tokens, "fastvid", allocator="fca", **whole).budgets.equal(wanted)
    every = {"segments": None, "selection_share": 1.0}
    assert compress(tokens, "flashvid", allocator="fca", **every).budgets.equal(wanted)


def test_allocators_that_do_not_fit() -> None:
    with pytest.raises(BuildError, match=r"flashvid: rounding='up' .* takes no allocator"):
        build("flashvid_released", allocator="fca")
    with pytest.raises(BuildError, match="misses the budget"):
        build("fastvid", allocator={"name": "fca", "rounding": "ceil"})
    with pytest.raises(BuildError, match="method 'flashvid' does not split into parts, so it takes no selector"):
        build("flashvid", allocator="fca", selector="stride")
    for name, reason in {
        "holitom": "the redundancy itself sets the budgets",
        "prunevid": "in proportion to what is left",
        "sttm": "one threshold for all frames",
        "chain": 'first={"name"',
        "none": "keeps every token",
    }.items():
        with pytest.raises(BuildError, match=f"method '{name}' takes no allocator: .*{reason}"):
            build(name, allocator="fca")
    assert build("flashvid", allocator="none") == build("flashvid")
