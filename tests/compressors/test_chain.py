"""Two compressors, one after the other."""

from __future__ import annotations

import pytest
import torch

from compressors import BuildError, RequirementError, VideoTokens, build, compress, wrap
from tests.compressors.merging import assert_sound, count_reads, matrix, video

NEAREST = {"name": "vidcom2", "merger": "nearest_kept"}


@pytest.mark.parametrize("first", ["vidcom2", "random", "tome", NEAREST])
@pytest.mark.parametrize("second", ["vidcom2", "tome", "tome_temporal", {"name": "stride", "merger": "nearest_kept"}])
@pytest.mark.parametrize("split", [0, 0.3, 0.5, 1])
def test_any_two_end_at_the_budget(first: object, second: object, split: float) -> None:
    features = video(5, 12)
    planes = {"deepstack0": torch.randn(5, 12, 3)}
    result = compress(VideoTokens(features, planes=planes), "chain", first=first, second=second, split=split)
    assert result.kept == 15
    assert_sound(result)


def test_the_second_sees_the_rows_of_the_first() -> None:
    features = video(6, 16)
    result = compress(features, "chain", first=NEAREST, second="tome", tokens=24, split=0.5)
    left = compress(features, build("vidcom2", merger="nearest_kept"), tokens=48)
    rows = torch.zeros(6, 16, 16)
    rows.view(96, 16)[left.keep] = left.features
    right = compress(rows, "tome", tokens=24, valid=left.mask)
    assert result.keep.equal(right.keep)
    torch.testing.assert_close(result.features, right.features)
    torch.testing.assert_close(matrix(result), matrix(right)[:, left.keep] @ matrix(left))


def test_the_ends_of_the_split_are_the_single_methods() -> None:
    features = video(5, 12)
    for split, name in ((1, "vidcom2"), (0, "tome")):
        chained = compress(features, "chain", split=split)
        alone = compress(features, name)
        assert chained.keep.equal(alone.keep)
        torch.testing.assert_close(chained.features, alone.features)


def test_two_pruning_stages_stay_pruning() -> None:
    compressor = build("chain", first="vidcom2", second={"name": "random", "seed": 3})
    assert not compressor.merges
    result = compress(video(5, 12), compressor)
    assert result.merge is None
    assert result.features.equal(result.tokens.features.flatten(0, 1)[result.keep])


def test_empty_places_and_small_videos() -> None:
    features = video(5, 6)
    valid = torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) > 0.3
    valid[2] = False
    features[~valid] = float("nan")
    assert_sound(compress(features, "chain", first=NEAREST, retention=0.2, valid=valid))
    assert compress(video(1, 1), "chain").identity
    assert compress(video(3, 5), "chain", tokens=1).kept == 1
    assert compress(video(3, 5), "chain", retention=1.0).identity


@pytest.mark.parametrize("first", ["vidcom2", NEAREST])
def test_a_quadtree_over_what_is_left(first: object) -> None:
    result = compress(video(5, 12), "chain", first=first, second="sttm", grid=(3, 4))
    assert result.kept == 15
    assert result.merge is not None
    assert_sound(result)


def test_what_cannot_work_says_so_when_built() -> None:
    with pytest.raises(BuildError, match="split=2"):
        build("chain", split=2)
    with pytest.raises(BuildError, match="vidcom2_released does not keep an exact number"):
        build("chain", first="vidcom2_released")
    with pytest.raises(BuildError, match="both carry a stream's state"):
        build("chain", first="stc_pruner", second="stc_pruner")
    with pytest.raises(BuildError, match="need different attention"):
        build("chain", first="visionzip", second={"name": "vidcom2", "scorer": {"name": "attention", "row": "cls"}})
    with pytest.raises(BuildError, match="needs 'name'"):
        build("chain", first={"scorer": "vidcom2"})
    batched = build("vidcom2", selector=wrap(lambda features, budgets: budgets, batched=True))
    with pytest.raises(BuildError, match="takes no empty places"):
        build("chain", first="random", second=batched)
    assert not build("chain", first=batched, second="random").takes_gaps
    with pytest.raises(RequirementError, match="scorer attention needs"):
        compress(video(2, 4), "chain", second="visionzip")


@pytest.mark.parametrize(
    ("first", "second"), [("vidcom2", "random"), ("vidcom2", "tome"), ("tome", "random"), (NEAREST, "tome")]
)
def test_host_reads(first: object, second: object) -> None:
    compressor = build("chain", first=first, second=second)
    with count_reads() as reads:
        _ = compressor(VideoTokens(video(4, 12))).features
    assert len(reads) == compressor.host_reads
