"""On a GPU: the kernels against the plain operations, no wait for the device, and replay from a CUDA graph.

Run them wherever there is one: `pytest tests/compressors/kernels`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from compressors import Compression, Compressor, VideoTokens, build, compress, kernels, method_names
from compressors.functional.centres import CentreSimilarity
from compressors.functional.ragged import top_per_frame
from compressors.functional.statistics import channel_statistics
from experiments.benchmark_kernels import captured, without_synchronising
from tests.compressors.videos import noise, on, ragged, scene_cut, supplied

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
with_kernels = pytest.mark.skipif(not kernels.installed(), reason="needs Triton 3.3 or newer")

V = TypeVar("V")
GPU = "cuda"
METHODS = [name for name in method_names() if build(name).host_reads == 0]
DTYPES = [torch.float32, torch.bfloat16]
SETTINGS = [
    CentreSimilarity(),
    CentreSimilarity(channels="all", kernel="cosine", centres="raw"),
    CentreSimilarity(window=2, bandwidths=(0.5, 1.0)),
]


def video(gaps: bool = False, seed: int = 0) -> VideoTokens:
    """With all that any method needs, on the GPU."""
    tokens = ragged(6, 36, 32, [36, 20, 0, 31, 7, 36], seed) if gaps else VideoTokens(scene_cut(seed=seed))
    return on(GPU, supplied(tokens)).with_(grid=(6, 6))


def wide(dtype: torch.dtype, gaps: bool = False) -> VideoTokens:
    """As wide as a model's features, on the GPU."""
    tokens = ragged(4, 196, 3584, [196, 60, 0, 121]) if gaps else VideoTokens(noise(4, 196, 3584))
    return on(GPU, tokens.with_(features=tokens.features.to(dtype)))


def compressed(tokens: VideoTokens, compressor: Compressor) -> Compression:
    """From nothing that an earlier call has left on the video, the kept rows included."""
    result = compress(tokens.with_(_memo={}), compressor, retention=0.3, validate=False)
    assert result.features.shape[0] == result.kept
    return result


def assert_same(got: Compression, want: Compression, share: float = 0.95) -> None:
    """Sums in another order may swap tokens whose scores differ by rounding, and then what merges into them."""
    assert got.keep.shape == want.keep.shape
    assert int(got.budgets.sum()) == got.kept
    both = torch.isin(got.keep, want.keep)
    assert both.float().mean() >= share
    rows = got.features[both], want.features[torch.isin(want.keep, got.keep)]
    alike = torch.isclose(rows[0].float(), rows[1].float(), rtol=1e-2, atol=1e-3).all(1)
    assert alike.float().mean() >= share


def both_paths(tokens: VideoTokens, compute: Callable[[VideoTokens], V]) -> list[V]:
    """The same computation by the plain operations and by the kernels, each on statistics of its own."""
    results = []
    for mode in ("plain", "fused"):
        with kernels.using(mode):
            results.append(compute(tokens.with_(_memo={})))
    return results


@with_kernels
@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_equal_plain_operations(dtype: torch.dtype, gaps: bool) -> None:
    tokens = wide(dtype, gaps)
    plain, fused = both_paths(tokens, channel_statistics)
    torch.testing.assert_close(fused.mean, plain.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fused.variance, plain.variance, rtol=1e-4, atol=1e-5)
    assert bool(fused.finite)
    present = torch.ones_like(tokens.features[..., 0], dtype=torch.bool) if tokens.valid is None else tokens.valid
    for settings in SETTINGS:
        # Wider than rounding: of two channels with nearly the same variance either may be the last compared.
        for want, got in zip(*both_paths(tokens, settings), strict=True):
            torch.testing.assert_close(got[present], want[present], rtol=0, atol=1e-3)


@with_kernels
def test_the_kernel_selects_what_the_plain_operations_do() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5, (6, 196), generator=generator).float().to(GPU)
    per_frame = torch.randint(0, 197, (6,), generator=generator)
    total = int(per_frame.sum())
    tokens = on(GPU, VideoTokens(noise(6, 196, 4)))
    plain, fused = both_paths(tokens, lambda t: top_per_frame(scores, per_frame.to(GPU), total, t))
    assert torch.equal(fused, plain)


@with_kernels
@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_the_same_by_kernels_and_plain_operations(name: str, gaps: bool) -> None:
    plain, fused = both_paths(video(gaps), lambda tokens: compressed(tokens, build(name)))
    assert_same(fused, plain)


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_the_same_as_on_a_processor(name: str, gaps: bool) -> None:
    tokens, compressor = video(gaps), build(name)
    here = compressed(on("cpu", tokens), compressor)
    there = compressed(tokens, compressor)
    assert int(there.budgets.sum()) == there.kept == here.kept
    assert torch.isin(there.keep.cpu(), here.keep).float().mean() >= 0.9


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("name", METHODS)
def test_no_method_waits_for_the_device(name: str, gaps: bool) -> None:
    tokens, compressor = video(gaps), build(name)
    without_synchronising(lambda: compressed(tokens, compressor))


@pytest.mark.parametrize("name", METHODS)
def test_the_front_door_waits_once(name: str) -> None:
    tokens, compressor = video(), build(name)
    compress(tokens.with_(_memo={}), compressor, retention=0.3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compress(tokens.with_(_memo={}), compressor, retention=0.3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchroniz" in str(warning.message) for warning in caught) == 1


def test_a_wait_is_an_error() -> None:
    """What the tests above rely on."""
    x = torch.ones(3, device=GPU)
    for wait in (lambda: x.sum().item(), lambda: torch.tensor([0, 1], device=GPU), lambda: x[[0, 1]]):
        with pytest.raises(RuntimeError, match="synchroniz"):
            without_synchronising(wait)


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("name", METHODS)
def test_a_replayed_graph_compresses_what_is_in_its_memory_then(name: str, gaps: bool) -> None:
    tokens, compressor = video(gaps), build(name)
    # Other values at the same places; an empty place holds NaN.
    others = torch.where(tokens.features.isnan(), tokens.features, video(seed=1).features[: tokens.frames])
    first, second = (compressed(tokens.with_(features=x), compressor) for x in (tokens.features.clone(), others))
    replay, result = captured(lambda: compressed(tokens, compressor))
    replay()
    assert_same(result, first)
    tokens.features.copy_(others)
    replay()
    assert_same(result, second)


@with_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_kernels_are_captured_at_full_width(dtype: torch.dtype) -> None:
    tokens, compressor = wide(dtype), build("vidcom2")

    def fused() -> Compression:
        with kernels.using("fused"):
            return compressed(tokens, compressor)

    want: Tensor = without_synchronising(fused).keep
    replay, result = captured(fused)
    replay()
    assert torch.equal(result.keep, want)
