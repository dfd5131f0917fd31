"""What goes from chunk to chunk of a stream, whichever part carries it."""

from __future__ import annotations

import pytest

from compressors import VideoTokens, build, compress, method_names, names
from compressors.base import Compressor
from compressors.functional.histories import Histories
from compressors.functional.last_frame import LastFrame
from tests.compressors.videos import scene_cut, supplied

CHUNK = supplied(VideoTokens(scene_cut(5, 12, 16, cut=3))).with_(grid=(3, 4))


def second_chunk(compressor: Compressor) -> list[int]:
    """What is kept of a chunk that the same chunk came before."""
    history = compress(CHUNK, compressor, tokens=13).history
    again = compress(CHUNK.with_(history=history, _memo={}), compressor, tokens=13)
    assert type(again.history) is type(history)
    return again.keep.tolist()


@pytest.mark.parametrize("name", method_names())
def test_every_method_goes_on(name: str) -> None:
    second_chunk(build(name))


@pytest.mark.parametrize("scorer", names("scorer"))
def test_an_allocator_carries_its_own_state_under_any_scorer(scorer: str) -> None:
    compressor = build("vidcom2", scorer=scorer, allocator="timechat_dtd")
    history = compress(CHUNK, compressor, tokens=13).history
    if scorer == "stc_pruner":
        assert isinstance(history, Histories)
        alone = compress(CHUNK, "stc_pruner", tokens=13).history
        assert history.states["running_mean"].mean.equal(alone.mean)
        history = history.states["last_frame"]
    assert isinstance(history, LastFrame)
    assert history.features.equal(CHUNK.features[-1])
    # Of the first chunk the first frame is new as a whole; of the second one it is a cut back to the first scene.
    first = compress(CHUNK, compressor, tokens=13).budgets.tolist()
    assert first == compress(CHUNK, "timechat_dtd", tokens=13).budgets.tolist()
    second_chunk(compressor)


@pytest.mark.parametrize("name", ["fastvid", "flashvid"])
def test_so_does_one_inside_a_method_of_one_piece(name: str) -> None:
    compressor = build(name, allocator="timechat_dtd")
    assert compressor.stateful
    assert isinstance(compress(CHUNK, compressor, tokens=13).history, LastFrame)
    second_chunk(compressor)
