"""The kernels against the plain operations, in Triton's interpreter; run by test_kernels.py in a process of its own.

Triton reads TRITON_INTERPRET when it is imported, and other tests may have imported it before.
"""

from __future__ import annotations

import os
import threading

import pytest
import torch
from torch import Tensor

from compressors import VideoTokens, build, compress, kernels
from compressors.errors import KernelError
from compressors.functional.centres import CentreSimilarity
from compressors.functional.ragged import top_per_frame
from compressors.functional.statistics import channel_statistics
from tests.compressors.videos import noise, ragged, scene_cut
from tests.golden.cases import cases, features

assert os.environ.get("TRITON_INTERPRET") == "1"

SHAPES = [(1, 1, 1), (3, 7, 5), (2, 33, 130), (5, 16, 64)]
SETTINGS = [
    CentreSimilarity(),
    CentreSimilarity(channels="all", kernel="cosine", centres="raw"),
    CentreSimilarity(window=2, bandwidths=(0.5, 1.0)),
]


def both(x: Tensor | VideoTokens, compute: object) -> tuple[object, object]:
    """The same computation by the plain operations and by the kernels, each on statistics of its own."""
    results = []
    for mode in ("plain", "fused"):
        tokens = VideoTokens(x) if isinstance(x, Tensor) else x.with_(features=x.features)
        with kernels.using(mode):
            results.append(compute(tokens))
    return results[0], results[1]


def videos() -> list[object]:
    made = [pytest.param(VideoTokens(noise(*shape)), id=str(shape)) for shape in SHAPES]
    made += [
        pytest.param(VideoTokens(noise(3, 9, 40).to(dtype)), id=str(dtype)) for dtype in (torch.bfloat16, torch.half)
    ]
    return [*made, pytest.param(ragged(4, 12, 24, [12, 3, 0, 7]), id="ragged")]


@pytest.mark.parametrize("tokens", videos())
def test_channel_statistics(tokens: VideoTokens) -> None:
    plain, fused = both(tokens, channel_statistics)
    torch.testing.assert_close(fused.mean, plain.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fused.variance, plain.variance, rtol=1e-5, atol=1e-6)
    assert bool(fused.finite)


def test_variance_beside_a_large_mean() -> None:
    """What one pass of sums of squares in float32 would lose."""
    x = 1000 + noise(6, 40, 16) * 1e-2
    plain, fused = both(x, channel_statistics)
    torch.testing.assert_close(fused.variance, x.double().flatten(0, 1).var(0, correction=0), rtol=1e-2, atol=0)
    torch.testing.assert_close(fused.variance, plain.variance, rtol=1e-2, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_noticed(value: float) -> None:
    x = noise(3, 8, 40)
    x[1, 5, 33] = value
    with kernels.using("fused"):
        assert not bool(channel_statistics(VideoTokens(x)).finite)


@pytest.mark.parametrize("settings", SETTINGS, ids=["gaussian", "cosine", "window"])
@pytest.mark.parametrize("tokens", videos())
def test_similarities(tokens: VideoTokens, settings: CentreSimilarity) -> None:
    plain, fused = both(tokens, settings)
    for want, got in zip(plain, fused, strict=True):
        present = slice(None) if tokens.valid is None else tokens.valid
        torch.testing.assert_close(got[present], want[present], rtol=0, atol=2e-5)


def test_a_token_of_zeros() -> None:
    x = noise(2, 5, 12)
    x[1, 3] = 0
    plain, fused = both(x, CentreSimilarity())
    for want, got in zip(plain, fused, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


def test_equal_tokens_score_alike_wherever_they_stand() -> None:
    x = noise(3, 1, 130).expand(3, 37, 130).contiguous()
    with kernels.using("fused"):
        for similarity in CentreSimilarity()(VideoTokens(x)):
            assert (similarity == similarity[:, :1]).all()


@pytest.mark.parametrize("places", [1, 2, 33, 196])
def test_selection(places: int) -> None:
    """Ties, empty and full frames, and scores that are not numbers."""
    generator = torch.Generator().manual_seed(places)
    scores = torch.randint(0, 5, (6, places), generator=generator).float()
    scores[2, places // 2] = float("nan")
    scores[3, : places // 2] = float("-inf")
    per_frame = torch.randint(0, places + 1, (6,), generator=generator)
    per_frame[0], per_frame[1] = 0, places
    tokens = VideoTokens(noise(6, places, 4))
    plain, fused = both(tokens, lambda t: top_per_frame(scores, per_frame, int(per_frame.sum()), t))
    assert fused.tolist() == plain.tolist()


@pytest.mark.parametrize("case", cases("vidcom2")[-4:], ids=lambda case: case["name"])
def test_released_vidcom2(case: dict) -> None:
    x, retention = features(case), case["params"]["ratio"]
    plain, fused = both(x, lambda tokens: compress(tokens, "vidcom2_released", retention=retention))
    assert fused.keep.tolist() == plain.keep.tolist()
    assert fused.budgets.tolist() == plain.budgets.tolist()


@pytest.mark.parametrize("method", ["vidcom2", "random", "vcast", "stc_pruner"])
def test_methods(method: str) -> None:
    plain, fused = both(scene_cut(4, 16, 24), lambda tokens: compress(tokens, build(method), retention=0.3))
    assert fused.keep.tolist() == plain.keep.tolist()


def test_what_they_do_not_cover_is_said_or_left_to_the_plain_operations() -> None:
    x = noise(2, 4, 8)
    assert kernels.fused_for(x) is None  # no GPU
    with kernels.using("fused"):
        assert kernels.fused_for(x) is not None
        for refused, reason in ((x.double(), "float64"), (x.mT, "contiguous"), (noise(1, 1, 8193), "8193")):
            with pytest.raises(KernelError, match=reason):
                kernels.fused_for(refused)
    with kernels.using("plain"):
        assert kernels.fused_for(x) is None


def test_the_choice_of_a_path_belongs_to_its_thread() -> None:
    found: list[object] = []
    with kernels.using("fused"):
        thread = threading.Thread(target=lambda: found.append(kernels.fused_for(noise(2, 4, 8))))
        thread.start()
        thread.join()
    assert found == [None]
