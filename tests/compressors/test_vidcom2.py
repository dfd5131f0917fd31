"""VidCom2: parity with its release, and its formulae written out plainly."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from compressors import VideoTokens, build, compress, make
from compressors.functional.centres import BANDWIDTHS, CentreSimilarity
from compressors.functional.statistics import channel_statistics, low_variance_channels
from tests.compressors.videos import noise, ragged, scene_cut
from tests.golden.cases import Case, cases, expected, features

CASES = cases("vidcom2")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_released_preset_equals_the_release(case: Case) -> None:
    want = expected(case)
    result = compress(features(case), "vidcom2_released", retention=case["params"]["ratio"])
    assert result.keep.tolist() == want["keep_linear"].tolist()
    assert result.budgets.tolist() == want["budgets"].tolist()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_stages_equal_the_release(case: Case) -> None:
    tokens, want = VideoTokens(features(case)), expected(case)
    assert low_variance_channels(tokens).nonzero().squeeze(1).tolist() == want["channels"].tolist()
    video, frame = CentreSimilarity()(tokens)
    torch.testing.assert_close(video, want["video_token_scores"], rtol=0, atol=4e-6 * 5)
    torch.testing.assert_close(frame, want["frame_token_scores"], rtol=0, atol=4e-6 * 5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_exact_preset_spends_the_budget_where_the_release_misses_it(case: Case) -> None:
    x, retention = features(case), case["params"]["ratio"]
    exact = compress(x, "vidcom2", retention=retention)
    assert exact.kept == exact.budgets.sum() == max(1, round(retention * x.shape[0] * x.shape[1]))
    if retention < 1:
        # Rounding apart, a frame gets the same.
        assert (exact.budgets - expected(case)["budgets"]).abs().max() <= 2


def plain_similarity(x: Tensor, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """`CentreSimilarity` in float64, one frame and token at a time in spirit."""
    x = x.double()
    frames, _, channels = x.shape
    if settings.get("channels", "low_variance") == "low_variance":
        count = int(channels * settings.get("fraction", 0.5))
        x = x[..., x.reshape(-1, channels).var(0, correction=0).argsort(stable=True)[:count].sort().values]
    unit = x / x.norm(dim=-1, keepdim=True)
    averaged = unit if settings.get("centres", "unit") == "unit" else x
    width = settings.get("window") or frames
    video = torch.cat([w.mean((0, 1), keepdim=True).expand(len(w), 1, -1) for w in averaged.split(width)])
    results = []
    for centre in (video, averaged.mean(1, keepdim=True)):
        if settings.get("kernel", "gaussian") == "cosine":
            results.append((unit * centre).sum(-1) / centre.norm(dim=-1))
        else:
            distance = (unit - centre).square().sum(-1)
            results.append(sum(torch.exp(-distance / (2 * a)) for a in settings.get("bandwidths", BANDWIDTHS)))
    return results[0], results[1]


ABLATIONS: list[dict[str, Any]] = [
    {},
    {"channels": "all"},
    {"fraction": 0.25},
    {"kernel": "cosine"},
    {"kernel": "cosine", "centres": "raw", "channels": "all"},
    {"bandwidths": (0.5, 1.0)},
    {"centres": "raw", "kernel": "cosine"},
    *({"window": window} for window in (1, 3, 4, 8, 32)),
]


@pytest.mark.parametrize("settings", ABLATIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_similarities_equal_their_formulae(settings: dict[str, Any], dtype: torch.dtype) -> None:
    x = scene_cut(7, 10, 24, cut=5).to(dtype)
    for got, want in zip(CentreSimilarity(**settings)(VideoTokens(x)), plain_similarity(x, settings), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-5)


def test_scorer_weights_sign_and_frame_statistics() -> None:
    tokens = VideoTokens(scene_cut())
    video, frame = CentreSimilarity()(tokens)
    score = make("scorer", {"name": "vidcom2", "video_weight": 2.0, "frame_weight": 0.5})
    torch.testing.assert_close(score(tokens), -(2 * video + 0.5 * frame))
    kept = make("scorer", {"name": "vidcom2", "keep": "similar"})
    torch.testing.assert_close(kept(tokens), video + frame)
    for statistic, want in {"mean": (-video).mean(1), "max": (-video).amax(1), "min": (-video).amin(1)}.items():
        got = make("frame_scorer", {"name": "frame_uniqueness", "statistic": statistic})(tokens)
        torch.testing.assert_close(got, want)
    equal = make("frame_scorer", {"name": "frame_uniqueness", "statistic": "equal"})(tokens)
    assert equal.unique().numel() == 1


def test_paper_preset_as_printed() -> None:
    x, retention, temperature = scene_cut(), 0.2, 0.01
    video, frame = plain_similarity(x, {"kernel": "cosine", "channels": "all", "centres": "raw"})
    weight = torch.softmax((-video).mean(1) / temperature, 0)
    budgets = torch.ceil(retention * (1 + weight - 1 / x.shape[0]) * x.shape[1]).long()
    result = compress(x, "vidcom2_paper", retention=retention)
    assert result.budgets.tolist() == budgets.tolist()
    for t, kept in enumerate(result.mask):
        want = (-(video + frame))[t].topk(int(budgets[t])).indices.sort().values
        assert kept.nonzero().squeeze(1).tolist() == want.tolist()


def test_scorer_and_frame_scorer_share_one_computation() -> None:
    tokens = VideoTokens(scene_cut())
    compressor = build("vidcom2")
    compressor(tokens)
    assert sum(isinstance(key, CentreSimilarity) for key in tokens._memo) == 1


def test_empty_places_change_nothing() -> None:
    """Scores of ragged frames equal those of the same tokens without gaps."""
    tokens = ragged(3, 9, 16, [5, 5, 5])
    assert tokens.valid is not None
    packed = VideoTokens(tokens.features[tokens.valid].view(3, 5, 16))
    for similarity in (CentreSimilarity(), CentreSimilarity(channels="all", kernel="cosine", centres="raw", window=2)):
        for got, want in zip(similarity(tokens), similarity(packed), strict=True):
            torch.testing.assert_close(got[tokens.valid].view(3, 5), want)
    got, want = channel_statistics(tokens), channel_statistics(packed)
    torch.testing.assert_close(got.variance, want.variance)
    assert bool(got.finite)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("shape", [(5, 3, 8), (3, 700, 300), (700, 3, 300)])
def test_channel_variance(shape: tuple[int, int, int], offset: float) -> None:
    """Blocks of every form; a large common offset must not cancel, a first frame unlike all others neither."""
    x = noise(*shape) + offset
    x[0] = 0.0
    want = x.double().flatten(0, 1).var(0, correction=0)
    torch.testing.assert_close(channel_statistics(VideoTokens(x)).variance, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 197, 3584), (3, 197, 3585), (2, 61, 8200), (40, 5, 301), (9, 1, 64)], ids=str)
def test_equal_tokens_score_equally(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Ties must not depend on where a token stands: not on the row of a block, nor on the block."""
    x = noise(1, 1, shape[2]).to(dtype).expand(shape).contiguous()
    for row in (x, x[:, ::2], x[..., : shape[2] - 16]):
        assert make("scorer", "vidcom2")(VideoTokens(row)).unique().numel() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_and_sums_score_alike(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products, where they may be used, and what stands in for them elsewhere."""
    x = scene_cut(7, 10, 48, cut=5).to(dtype)
    products = CentreSimilarity()(VideoTokens(x))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    for got, want in zip(CentreSimilarity()(VideoTokens(x)), products, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiles_once(dtype: torch.dtype) -> None:
    """One graph through the whole of AOT tracing, and no second one for another video of the same shape."""
    torch.compiler.reset()
    compressor, graphs = build("vidcom2"), CompileCounterWithBackend("aot_eager")

    def kept(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result = compress(x, compressor, retention=0.3, validate=False)
        return result.keep, result.budgets, result.features

    compiled = torch.compile(kept, fullgraph=True, dynamic=False, backend=graphs)
    for seed in range(3):
        x = scene_cut(6, 20, 48, cut=4, seed=seed).to(dtype)
        for got, want in zip(compiled(x), kept(x), strict=True):
            assert torch.equal(got, want)
    assert graphs.frame_count == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_code_keeps_the_same(dtype: torch.dtype) -> None:
    """The default backend generates its own sums, which round otherwise: scores may differ by that, choices hardly."""
    torch.compiler.reset()
    compressor = build("vidcom2")
    x = noise(8, 49, 128).to(dtype)

    def kept(x: Tensor) -> tuple[Tensor, Tensor]:
        result = compress(x, compressor, retention=0.3, validate=False)
        return result.keep, result.scores

    (keep, scores), want = torch.compile(kept, fullgraph=True)(x), compress(x, compressor, retention=0.3)
    torch.testing.assert_close(scores, want.scores, rtol=1e-5, atol=1e-5)
    assert len(keep) == want.kept
    assert torch.isin(keep, want.keep).float().mean() > 0.98
