"""What every method promises, over the whole list: exact budgets, order, determinism, host reads, one graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors import (
    Budget,
    BuildError,
    Compression,
    Compressor,
    VideoTokens,
    build,
    compress,
    method_names,
    methods,
    names,
    wrap,
)
from compressors.functional.quadtree import levels_of
from compressors.methods import PARTS
from tests.compressors.videos import HostReads, OffDevice, noise, on, ragged, scene_cut, supplied

METHODS = method_names()
EXACT = [name for name in METHODS if build(name).exact]


# Every allocator under every selector: selectors that rank by score get VidCom2's scorer.
PAIRS = list(itertools.product(names("selector"), [*names("allocator"), "none"]))


def composed(selector: str, allocator: str) -> Compressor:
    return build("vidcom2", selector=selector, allocator=allocator)


def possible(selector: str, allocator: str) -> bool:
    """Whether the two go together; what does not fails when built."""
    try:
        composed(selector, allocator)
    except BuildError:
        return False
    return True


def longest(features: Tensor, k: int) -> Tensor:
    return features.float().norm(dim=-1).topk(k).indices


COMPOSED = [pair for pair in PAIRS if possible(*pair) and composed(*pair).exact]


@st.composite
def videos(draw: st.DrawFn) -> VideoTokens:
    """Any shape, dtype and content (constant, repeated frames, repeated tokens, …); some with empty places."""
    frames, height, width = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    channels, places = draw(st.integers(2, 20)), height * width
    x = noise(frames, places, channels, draw(st.integers(0, 99)))
    x = {
        "noise": x,
        "constant": torch.ones_like(x) * 3.7,
        "zero": torch.zeros_like(x),
        "same frames": x[:1].expand_as(x),
        "same tokens": x[:, :1].expand_as(x),
        "huge": x * 1e4,
    }[draw(st.sampled_from(["noise", "constant", "zero", "same frames", "same tokens", "huge"]))]
    x = x.to(draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])))
    if draw(st.booleans()):
        return VideoTokens(x, grid=(height, width))
    counts = draw(st.lists(st.integers(0, places), min_size=frames, max_size=frames).filter(any))
    gaps = ragged(frames, places, channels, counts)
    assert gaps.valid is not None
    return gaps.with_(features=torch.where(gaps.valid.unsqueeze(-1), x, float("nan")), grid=(height, width))


def check(result: Compression, tokens: VideoTokens) -> None:
    keep = result.keep
    assert keep.dtype == torch.int64
    assert (keep.diff() > 0).all(), "sorted and unique"
    assert set(keep.tolist()) <= set(range(tokens.frames * tokens.places))
    assert result.budgets.tolist() == torch.bincount(keep // tokens.places, minlength=tokens.frames).tolist()
    if tokens.valid is not None:
        assert tokens.valid.flatten()[keep].all(), "no empty place is kept"
    assert result.mask.flatten().nonzero().squeeze(1).tolist() == keep.tolist()
    assert result.features.shape == (result.kept, tokens.channels)
    assert result.features.dtype == tokens.features.dtype
    assert torch.isfinite(result.features).all()


@pytest.mark.parametrize("name", METHODS)
@given(tokens=videos(), retention=st.floats(0.001, 1.0))
def test_any_video(name: str, tokens: VideoTokens, retention: float) -> None:
    tokens = supplied(tokens)
    result = compress(tokens, name, retention=retention)
    check(result, tokens)
    total = Budget(retention=retention).resolve(tokens.frames, tokens.places, tokens.total)
    if name in EXACT:
        assert result.kept == total
    again = compress(tokens.with_(_memo={}), name, retention=retention)
    assert torch.equal(again.keep, result.keep)
    assert torch.equal(again.features, result.features)


@pytest.mark.parametrize(("selector", "allocator"), COMPOSED)
@settings(max_examples=20)
@given(tokens=videos(), total=st.integers(1, 200))
def test_any_video_under_any_composition(selector: str, allocator: str, tokens: VideoTokens, total: int) -> None:
    result = compress(supplied(tokens), composed(selector, allocator), tokens=total)
    check(result, tokens)
    assert result.kept == min(total, tokens.total)


def runs_if_it_builds(method: str, **parts: Any) -> bool:
    """Whether it builds; if so it runs, on a video with empty places too."""
    try:
        compressor = build(method, **parts)
    except BuildError:
        return False
    for tokens in (VideoTokens(scene_cut(4, 6, 8, cut=3)), ragged(4, 6, 5, [6, 0, 2, 3])):
        result = compress(supplied(tokens).with_(grid=(2, 3)), compressor, tokens=5)
        assert result.kept == 5 or not compressor.exact, (method, parts)
        assert torch.isfinite(result.features).all(), (method, parts)
    return True


@pytest.mark.parametrize("scorer", [*names("scorer"), "none"])
def test_what_cannot_run_does_not_build(scorer: str) -> None:
    """Every scorer, allocator, selector and merger with every other."""
    choices = itertools.product([*names("allocator"), "none"], names("selector"), [*names("merger"), "none"])
    built = [
        runs_if_it_builds("vidcom2", scorer=scorer, allocator=allocator, selector=selector, merger=merger)
        for allocator, selector, merger in choices
    ]
    assert any(built)
    assert not all(built)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_with_any_other_part_runs_or_does_not_build(method: str) -> None:
    for kind in PARTS:
        for part in [*names(kind), "none"]:
            runs_if_it_builds(method, **{kind: part})
    for other in METHODS:
        assert runs_if_it_builds("chain", first=method, second=other) <= (method in EXACT and other in EXACT)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("gaps", [False, True])
def test_full_retention_is_the_identity(name: str, gaps: bool) -> None:
    tokens = supplied(ragged(3, 6, 4, [6, 0, 2]) if gaps else VideoTokens(noise(3, 6, 4))).with_(grid=(2, 3))
    result = compress(tokens, name, retention=1.0)
    assert result.identity
    assert result.merge is None
    wanted = tokens.features.flatten(0, 1) if tokens.valid is None else tokens.features[tokens.valid]
    assert torch.equal(result.features, wanted)


@pytest.mark.parametrize("name", METHODS)
def test_none_keeps_everything_and_the_rest_the_budget(name: str) -> None:
    result = compress(supplied(VideoTokens(scene_cut())), name, tokens_per_frame=2.5, grid=(6, 6))
    assert result.kept == {"none": 288}.get(name, 20) or not build(name).exact


def count_reads(compressor: Compressor, validate: bool) -> int:
    x = supplied(VideoTokens(scene_cut()))
    with HostReads() as reads:
        compress(x, compressor, retention=0.3, grid=(6, 6), validate=validate)
    return reads.count


@pytest.mark.parametrize("name", METHODS)
def test_host_reads_of_methods(name: str) -> None:
    compressor = build(name)
    assert compressor.host_reads in (0, 1)
    assert count_reads(compressor, validate=False) == compressor.host_reads
    assert count_reads(compressor, validate=True) == compressor.host_reads + 1


@pytest.mark.parametrize(("selector", "allocator"), COMPOSED)
def test_host_reads_of_compositions(selector: str, allocator: str) -> None:
    compressor = composed(selector, allocator)
    assert compressor.host_reads == 0
    assert count_reads(compressor, validate=False) == 0


def test_host_reads_with_gaps() -> None:
    tokens = supplied(ragged(4, 6, 5, [6, 2, 0, 4])).with_(grid=(2, 3))
    for name in METHODS:
        compressor = build(name)
        with HostReads() as reads:
            compress(tokens.with_(_memo={}), compressor, retention=0.4, validate=False)
        assert reads.count == compressor.host_reads, name


def test_the_counter_counts() -> None:
    x = noise(1, 4, 2)
    for read in (
        lambda: x.sum().item(),
        lambda: bool(x.sum() > 0),
        lambda: x.tolist(),
        lambda: x[x > 0],
        lambda: (x > 0).nonzero(),
        lambda: x.unique(),
        lambda: x.numpy(),
        lambda: torch.equal(x, x),
        lambda: torch.tensor([0.5], device=x.device),
        lambda: torch.tensor(0.5, device=x.device),
        lambda: torch.as_tensor([1, 2]),
        lambda: x.new_tensor([0.5]),
        lambda: x.new_tensor(0.5),
        lambda: x[[0]],
        lambda: x[:, [0, 1]],
        lambda: x.to(x.device),
        lambda: x.to(device="cpu"),
        lambda: x.to(x),
    ):
        with HostReads() as reads:
            read()
        assert reads.count == 1
    with HostReads() as reads:  # numbers are arguments of kernels, and what is a tensor already stays where it is
        y = torch.where(x > 0, 2 * x, 0.5)
        y[0] = y[:, torch.arange(2, device=y.device)] = 1.0
        y.to(torch.float64)
        torch.as_tensor(y)
    assert reads.count == 0


ON_DEVICE = [pytest.param(build(name), id=name) for name in METHODS if build(name).host_reads == 0]
ON_DEVICE += [
    pytest.param(composed(*pair), id="+".join(pair))
    for pair in COMPOSED
    if pair[0] == "token_saliency" or pair[1] == "none"  # every part once
]
ON_DEVICE.append(pytest.param(build("sttm", temporal=None, weighted=True), id="sttm, frames apart"))


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("compressor", ON_DEVICE)
def test_everything_is_made_on_the_device(compressor: Compressor, gaps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without values nothing can be read or moved: a tensor made on the host shows, whatever it was made with."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    levels_of.cache_clear()  # made once per grid and device, and to be seen here
    tokens = ragged(4, 6, 5, [6, 2, 0, 4]) if gaps else VideoTokens(scene_cut(4, 6, 5, cut=3))
    tokens = on("meta", supplied(tokens)).with_(grid=(2, 3))
    with OffDevice(tokens) as off:
        result = compress(tokens, compressor, retention=0.4, validate=False)
        assert result.features.is_meta
    assert off.found == []


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x[torch.tensor([0, 1], device=x.device)],
        lambda x: x + torch.tensor(0.5, device=x.device),
        lambda x: x + x.new_tensor([0.5]),
        lambda x: x[[0, 1]],
        lambda x: x[torch.arange(2)],
        lambda x: x + torch.ones(()),
        lambda x: x + torch.ones(4).to(x.device),
    ],
)
def test_what_is_made_on_the_host_shows(mistake: Callable[[Tensor], Tensor]) -> None:
    tokens = on("meta", VideoTokens(noise(2, 3, 4)))
    with OffDevice(tokens) as off:
        y = torch.where(tokens.features > 0, 2 * tokens.features, 0.5)
        y[0] = y[:, torch.arange(2, device=y.device)] = 1.0
    assert off.found == []
    with off:
        mistake(tokens.features)
    assert off.found


ONE_GRAPH = [(name, build(name)) for name in METHODS if build(name).host_reads == 0]
ONE_GRAPH += [("+".join(pair), composed(*pair)) for pair in (("token_saliency", "none"), ("one_per_block", "fca"))]


@pytest.mark.parametrize("compressor", [c for _, c in ONE_GRAPH], ids=[n for n, _ in ONE_GRAPH])
def test_one_graph(compressor: Compressor) -> None:
    torch.compiler.reset()

    def kept(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result = compress(needs.with_(features=x), compressor, retention=0.3, grid=(3, 4), validate=False)
        return result.keep, result.budgets, result.features

    x = scene_cut(4, 12, 8, cut=3)
    needs = supplied(VideoTokens(x))
    for got, want in zip(torch.compile(kept, fullgraph=True, backend="eager")(x), kept(x), strict=True):
        torch.testing.assert_close(got, want)


def test_one_graph_with_gaps() -> None:
    torch.compiler.reset()
    gaps, compressor = ragged(4, 6, 5, [6, 2, 0, 4]), build("vidcom2")
    assert gaps.valid is not None

    def kept(x: Tensor, valid: Tensor) -> Tensor:
        return compressor(VideoTokens(x, valid=valid, counts=(6, 2, 0, 4)), Budget(retention=0.4)).keep

    compiled = torch.compile(kept, fullgraph=True, backend="eager")
    assert torch.equal(compiled(gaps.features, gaps.valid), kept(gaps.features, gaps.valid))


def test_frame_budgets_are_the_same_under_every_selector() -> None:
    x = scene_cut()
    want = compress(x, "vidcom2").budgets
    assert want.max() > want.min(), "not uniform on a video with a scene cut"
    assert want[6:].min() > want[:6].max(), "the short scene stands out"
    for selector in [*names("selector"), wrap(longest)]:
        for name in methods():
            if methods()[name].compressor is not None:
                continue
            try:
                compressor = build(name, selector=selector, allocator="fca", scorer="vidcom2")
            except BuildError:  # the selector takes no allocator, or the preset's merger another selector
                continue
            result = compress(supplied(VideoTokens(x)), compressor, grid=(6, 6))
            assert result.budgets.tolist() == want.tolist(), (selector, name)


def test_autocast_gradients_and_precision_settings_change_nothing() -> None:
    x = scene_cut()
    want = compress(x, "vidcom2")
    assert want.scores is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compress(x, "vidcom2").scores, want.scores)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        torch.testing.assert_close(compress(x, "vidcom2").scores, want.scores, rtol=1e-6, atol=1e-6)
    finally:
        torch.set_float32_matmul_precision(precision)
    leaf = x.clone().requires_grad_()
    result = compress(leaf, "vidcom2")
    assert torch.equal(result.keep, want.keep)
    result.features.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.flatten(0, 1)[want.keep].eq(1).all()
    assert int(leaf.grad.count_nonzero()) == want.features.numel()


def test_planes_follow() -> None:
    x = scene_cut(4, 12, 8)
    planes = {"deep": noise(4, 12, 3, seed=1), "place": torch.arange(48).view(4, 12)}
    result = compress(x, "vidcom2", planes=planes)
    assert torch.equal(result.planes["place"], result.keep)
    assert torch.equal(result.planes["deep"], planes["deep"].flatten(0, 1)[result.keep])


def test_view_of_other_memory_layouts() -> None:
    x = scene_cut()
    want = compress(x, "vidcom2").keep
    assert torch.equal(compress(x.transpose(0, 1).contiguous().transpose(0, 1), "vidcom2").keep, want)
    assert torch.equal(compress(x.repeat(1, 1, 2)[..., :32], "vidcom2").keep, want)
