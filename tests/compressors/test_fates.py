"""What became of every token."""

from __future__ import annotations

import pytest
import torch

from compressors import Compression, MergeMap, VideoTokens, compress
from tests.compressors.merging import count_reads, matrix, video


@pytest.mark.parametrize("method", ["vidcom2", "tome", "tome_temporal", "average_pool", "chain", "none"])
@pytest.mark.parametrize("retention", [0.1, 0.4, 1.0])
def test_one_fate_per_token(method: str, retention: float) -> None:
    result = compress(video(5, 12), method, retention=retention, grid=(3, 4))
    fates = result.fates()
    total = fates.kept.int() + fates.merged.int() + fates.dropped.int() + fates.empty.int()
    assert (total == 1).all()
    assert fates.kept.equal(result.mask)
    assert fates.row.flatten()[result.keep].equal(torch.arange(result.kept))
    if result.merge is None:
        assert not fates.merged.any()
        assert fates.weight.equal(result.mask.float())
        return
    weights = matrix(result)
    alive = (fates.row >= 0).flatten()
    place = torch.arange(60)
    torch.testing.assert_close(weights[fates.row.flatten()[alive], place[alive]].float(), fates.weight.flatten()[alive])
    assert fates.dropped.flatten().equal(weights.sum(0) == 0)
    assert (fates.representative.flatten()[alive] == result.keep[fates.row.flatten()[alive]]).all()
    assert (fates.weight.flatten()[~alive] == 0).all()


def test_by_hand() -> None:
    """Token 1 flows into two rows, in two edges into the second; token 3 flows into none."""
    tokens = VideoTokens(torch.randn(1, 6, 2), valid=torch.tensor([[True] * 5 + [False]]), counts=(5,))
    merge = MergeMap(
        source=torch.tensor([0, 1, 1, 1, 4, 2, 3]),
        target=torch.tensor([0, 0, 1, 1, 1, 1, 0]),
        weight=torch.tensor([0.6, 0.4, 0.3, 0.3, 0.2, 0.2, 0.0]),
        rows=2,
    )
    fates = Compression(tokens, torch.tensor([0, 2]), torch.tensor([2]), merge=merge).fates()
    assert fates.kept.tolist() == [[True, False, True, False, False, False]]
    assert fates.merged.tolist() == [[False, True, False, False, True, False]]
    assert fates.dropped.tolist() == [[False, False, False, True, False, False]]
    assert fates.empty.tolist() == [[False] * 5 + [True]]
    assert fates.row.tolist() == [[0, 1, 1, -1, 1, -1]]
    assert fates.representative.tolist() == [[0, 2, 2, -1, 2, -1]]
    torch.testing.assert_close(fates.weight, torch.tensor([[0.6, 0.6, 0.2, 0.0, 0.2, 0.0]]))


def test_no_host_reads() -> None:
    result = compress(video(3, 8), "tome")
    with count_reads() as reads:
        result.fates()
    assert not reads
