"""The baselines keep what their definitions say."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from compressors import VideoTokens, compress
from tests.compressors.videos import noise, ragged


def test_stride() -> None:
    x = noise(3, 10, 2)
    assert compress(x, "stride", tokens=7).keep.tolist() == [i * 30 // 7 for i in range(7)]
    per_frame = compress(x, "stride", allocator="uniform", tokens=9).keep
    assert per_frame.tolist() == [t * 10 + j * 10 // 3 for t in range(3) for j in range(3)]
    gaps = ragged(3, 10, 2, [4, 0, 6])
    assert gaps.valid is not None
    filled = gaps.valid.flatten().nonzero().squeeze(1)
    assert compress(gaps, "stride", tokens=3).keep.tolist() == filled[[0, 3, 6]].tolist()


def test_random_is_spread_seeded_and_differs_between_videos_of_a_batch() -> None:
    x = noise(8, 100, 2)
    keep = compress(x, "random", retention=0.5).keep
    assert torch.equal(keep, compress(x * 2, "random", retention=0.5).keep), "features play no part"
    for other in (
        compress(x, "random", retention=0.5, seed=1),
        compress(VideoTokens(x, index=1), "random", retention=0.5),
    ):
        overlap = len(set(keep.tolist()) & set(other.keep.tolist())) / 400
        assert 0.4 < overlap < 0.6
    counts = torch.stack([compress(x, "random", retention=0.25, seed=s).mask for s in range(40)]).float().mean(0)
    assert float(counts.mean(1).min()) > 0.2
    assert float(counts.mean(1).max()) < 0.3, "every frame alike"
    assert float(counts.std()) < 0.1, "every place alike"
    nested = compress(x, "random", retention=0.25).keep
    assert set(nested.tolist()) <= set(keep.tolist()), "a smaller budget keeps a subset"


def test_one_per_block_keeps_one_of_each_cell() -> None:
    x = noise(3, 24, 4)
    for choice in ("random", "centre", "score"):
        result = compress(x, "one_per_block", choice=choice, scorer="vidcom2", grid=(4, 6))
        assert result.kept == 18
        blocks = result.mask.view(3, 2, 2, 3, 2).sum((2, 4))
        assert (blocks == 1).all(), choice
    scores = result.scores
    assert scores is not None
    cells = scores.view(3, 2, 2, 3, 2).permute(0, 1, 3, 2, 4).flatten(3)
    kept = result.mask.view(3, 2, 2, 3, 2).permute(0, 1, 3, 2, 4).flatten(3)
    assert torch.equal(cells[kept], cells.amax(-1).flatten())


def test_one_per_block_centre_is_the_middle() -> None:
    keep = compress(noise(1, 81, 2), "one_per_block", choice="centre", tokens=9, grid=(9, 9)).keep
    assert keep.tolist() == [y * 9 + x for y in (1, 4, 7) for x in (1, 4, 7)]


def test_average_pool_equals_torch() -> None:
    x = noise(3, 24, 5)
    result = compress(x, "average_pool", retention=0.25, grid=(4, 6))
    pooled = F.avg_pool2d(x.view(3, 4, 6, 5).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).reshape(-1, 5)
    torch.testing.assert_close(result.features, pooled)
    assert result.merge is not None
    torch.testing.assert_close(result.merge.row_sums(), torch.ones(18))
    half = compress(x.bfloat16(), "average_pool", retention=0.25, grid=(4, 6)).features
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), pooled, rtol=2e-2, atol=2e-2)


def test_average_pool_covers_every_token_of_frames_with_a_budget() -> None:
    x, planes = noise(5, 21, 3), {"place": torch.arange(105.0).view(5, 21)}
    for retention in (0.05, 0.1, 0.3, 0.77):
        result = compress(x, "average_pool", allocator="fca", retention=retention, grid=(3, 7), planes=planes)
        assert result.merge is not None
        torch.testing.assert_close(result.merge.row_sums(), torch.ones(result.kept))
        weight = torch.zeros(105).index_add_(0, result.merge.source, (result.merge.weight > 0).float())
        assert torch.equal(weight.view(5, 21) > 0, (result.budgets > 0).unsqueeze(1).expand(5, 21))
        # A kept token is part of its own row, and rows come in the order of their tokens.
        own = (result.merge.weight > 0) & (result.merge.source == result.keep[result.merge.target])
        assert sorted(result.merge.target[own].tolist()) == list(range(result.kept))
        assert result.planes["place"].shape == (result.kept,)


def test_average_pool_gradients_reach_every_token() -> None:
    x = noise(1, 16, 2).requires_grad_()
    compress(x, "average_pool", grid=(4, 4)).features.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.25))


def test_frame_subsample_keeps_whole_frames() -> None:
    result = compress(noise(8, 10, 2), "frame_subsample", tokens=25)
    assert result.budgets.tolist() == [10, 0, 10, 0, 0, 5, 0, 0]
    assert result.mask[5].nonzero().squeeze(1).tolist() == [0, 2, 4, 6, 8]


def test_none_keeps_everything_whatever_the_budget() -> None:
    x = noise(2, 5, 3)
    assert torch.equal(compress(x, "none", tokens=1).features, x.flatten(0, 1))
