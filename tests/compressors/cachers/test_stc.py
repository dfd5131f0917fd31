"""STC-Cacher on a small tower: what it computes, for which streams, and at what cost."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from compressors import BuildError, InputError, build, compress
from compressors.cachers.operations import LayerSize, tower_operations
from compressors.cachers.stc import STC
from tests.compressors.cachers.tower import DEPTH, MLP, WIDTH, Tower, bound, frames, oracle, streamed

SETTINGS: list[dict[str, Any]] = [
    *(
        {"reuse": reuse, "feature": feature}
        for reuse in ("both", "attention", "mlp")
        for feature in ("key", "value", "input")
    ),
    *({"selection": "shared", "reuse": reuse} for reuse in ("both", "attention", "mlp")),
    {"selection": "shared", "feature": "value"},
    *({"similarity": similarity} for similarity in ("l1", "l2", "dot")),
    {"interval": 3, "chunk": 2},
    {"interval": None, "update_ratio": 0.6},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_is_what_its_definition_says(settings: dict[str, Any]) -> None:
    cacher, video = STC(**{"update_ratio": 0.3, **settings}), frames(7)
    expected = oracle(cacher, video)
    torch.testing.assert_close(streamed(cacher, video), expected)
    torch.testing.assert_close(streamed(cacher, video, [1] * 7), expected)
    assert not torch.allclose(expected, Tower()(video), atol=1e-3)


@pytest.mark.parametrize("reuse", ["both", "attention", "mlp"])
def test_updating_everything_is_the_tower_itself(reuse: Any) -> None:
    video = frames(5)
    torch.testing.assert_close(streamed(STC(update_ratio=1.0, reuse=reuse), video, [2, 3]), Tower()(video))


@pytest.mark.parametrize("reuse", ["both", "attention", "mlp"])
def test_updating_nothing(reuse: Any) -> None:
    cacher, video = STC(update_ratio=0.0, reuse=reuse), frames(4)
    torch.testing.assert_close(streamed(cacher, video), oracle(cacher, video))


@pytest.mark.parametrize("cuts", [[1, 0, 6], [3, 4], [2, 2, 2, 1]], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"chunk": 2, "reference": "nearest", "alike": 0.95},
        {"chunk": 2, "reference": "first"},
        {"interval": None, "refresh_above": 0.3, "alike": 0.97},
        {"interval": 4, "max_update_ratio": 0.8, "alike": 0.97},
    ],
    ids=str,
)
def test_how_a_stream_is_fed_changes_nothing(cuts: list[int], settings: dict[str, Any]) -> None:
    video = torch.cat([frames(4), frames(3, seed=5)])
    whole = streamed(STC(**settings), video)
    _tower, _binding, call = bound(STC(**settings))
    pieces = [call(piece) for piece in video.split(cuts) if len(piece)]
    torch.testing.assert_close(torch.cat(pieces), whole)


def test_a_change_of_scene_is_computed_in_full() -> None:
    video = torch.cat([frames(3, change=0.05), frames(3, seed=5, change=0.05)])
    out = streamed(STC(interval=None, refresh_above=0.5, update_ratio=0.2), video)
    torch.testing.assert_close(out[3], Tower()(video)[3])
    still = streamed(STC(interval=None, update_ratio=0.2), video)
    assert not torch.allclose(still[3], out[3], atol=1e-2)


def test_streams_in_one_batch_are_streams_of_their_own() -> None:
    cacher = STC(interval=3, update_ratio=0.3)
    videos = [frames(4, seed=seed) for seed in (1, 2, 3)]
    alone = [streamed(cacher, video) for video in videos]
    tower = Tower()
    binding = cacher.bind(tower)
    states = [binding.new_state() for _ in videos]
    # Unequal shares, a stream that pauses, and equal shares.
    with binding.using(states, frames=[2, 0, 1]):
        first = tower(torch.cat([videos[0][:2], videos[2][:1]]))
    with binding.using(states, frames=[1, 3, 2]):
        second = tower(torch.cat([videos[0][2:3], videos[1][:3], videos[2][1:3]]))
    with binding.using(states):
        third = tower(torch.stack([video[3] for video in videos]))
    torch.testing.assert_close(torch.cat([first[:2], second[:1], third[:1]]), alone[0])
    torch.testing.assert_close(torch.cat([second[1:4], third[1:2]]), alone[1])
    torch.testing.assert_close(torch.cat([first[2:], second[4:], third[2:]]), alone[2])
    assert [state.reuse for state in states] == [0.35, 0.35, 0.35]
    with binding.using(states, frames=[1, 1, 1]), pytest.raises(InputError, match="the call has 2 frames"):
        tower(frames(2))
    with binding.using(states), pytest.raises(InputError, match="4 frames of 3 streams"):
        tower(frames(4))


def test_threads_with_streams_of_their_own() -> None:
    cacher = STC(update_ratio=0.3)
    tower = Tower()
    binding = cacher.bind(tower)
    videos = [frames(8, seed=seed) for seed in range(4)]

    def run(video: torch.Tensor) -> torch.Tensor:
        with binding.using(binding.new_state()):
            return torch.cat([tower(frame) for frame in video.split(1)])

    with ThreadPoolExecutor(4) as pool:
        for video, out in zip(videos, pool.map(run, videos), strict=True):
            torch.testing.assert_close(out, streamed(cacher, video))


def test_outside_using_the_tower_is_as_it_was() -> None:
    tower, binding, call = bound(STC())
    video = frames(3)
    call(video)
    assert torch.equal(tower(video), Tower()(video))
    binding.remove()
    assert tower.runner is None


def test_a_state_is_used_by_one_call_at_a_time_and_by_its_own_binding() -> None:
    binding = STC().bind(Tower())
    state = binding.new_state()
    with binding.using(state), pytest.raises(InputError, match="in use already"), binding.using(state):
        pass
    other = STC(reuse="mlp").bind(Tower())
    with pytest.raises(InputError, match="of this binding"), other.using(state):
        pass


def test_reset_and_counts() -> None:
    cacher, video = STC(update_ratio=0.3), frames(4)
    tower = Tower()
    binding = cacher.bind(tower)
    state = binding.new_state()
    assert state.reuse is None
    with binding.using(state):
        first = tower(video)
    assert (state.reused, state.total) == (14, 40)
    state.reset()
    assert (state.reused, state.total, state.reuse) == (0, 0, None)
    with binding.using(state):
        assert torch.equal(tower(video), first)


def test_save_and_load_continue_a_stream() -> None:
    cacher, video = STC(interval=None, refresh_above=0.9, chunk=2), frames(6)
    whole = streamed(cacher, video)
    tower, binding, _call = bound(cacher)
    state = binding.new_state()
    with binding.using(state):
        tower(video[:3])
    saved = state.tensors()
    again = Tower()
    rebound = cacher.bind(again)
    loaded = rebound.new_state()
    loaded.load(saved)
    assert (loaded.reused, loaded.total) == (state.reused, state.total)
    with rebound.using(loaded):
        torch.testing.assert_close(again(video[3:]), whole[3:])


def test_a_foreign_or_damaged_state_is_refused_and_changes_nothing() -> None:
    tower, binding, _ = bound(STC())
    state = binding.new_state()
    with binding.using(state):
        tower(frames(2))
    saved = state.tensors()
    before = {name: tensor.clone() for name, tensor in saved.items()}
    missing = {name: tensor for name, tensor in saved.items() if name != "1.key"}
    short = {**saved, "1.key": saved["1.key"][:, :-1]}
    with pytest.raises(InputError, match="another cacher"):
        STC(refresh_above=0.5).bind(Tower()).new_state().load(saved)
    for wrong in ({}, missing, {**saved, "x": saved["1.key"]}, short, {**saved, "counts": torch.tensor([1, 2])}):
        with pytest.raises(InputError):
            state.load(wrong)
        assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


def test_a_call_that_fails_spoils_nothing() -> None:
    cacher, video = STC(interval=2, update_ratio=0.3), frames(5)
    tower, binding, _ = bound(cacher)
    state = binding.new_state()
    with binding.using(state):
        tower(video[:1])
    for piece in (video[1:2], video[1:3]):  # one that only reads, and one that was replacing references
        tower.fail = True
        with pytest.raises(RuntimeError), binding.using(state):
            tower(piece)
        assert state.total == 10
    with binding.using(state):
        # The references may be half of one frame, half of another: the next frame is computed in full.
        torch.testing.assert_close(tower(video[3:4]), Tower()(video[3:4]))
        assert state.reused == 0
    tower.fail = True
    with binding.using(state):
        with pytest.raises(RuntimeError):
            tower(video[2:4])
        torch.testing.assert_close(tower(video[4:]), Tower()(video[4:]))


def test_frames_of_another_size_start_anew() -> None:
    _tower, _binding, call = bound(STC(interval=None, update_ratio=0.3))
    call(frames(2))
    torch.testing.assert_close(call(frames(1, places=6)), Tower()(frames(1, places=6)))


def test_one_place_to_a_frame() -> None:
    video = frames(4, places=1)
    torch.testing.assert_close(streamed(STC(update_ratio=0.25), video), Tower()(video))  # at least one is updated


def test_bfloat16() -> None:
    tower = Tower()
    tower.layers.bfloat16()
    video = frames(6).bfloat16()
    out = streamed(STC(update_ratio=0.3, refresh_above=0.9), video, tower=tower)
    assert out.dtype == torch.bfloat16
    dense = Tower()
    dense.layers.bfloat16()
    torch.testing.assert_close(streamed(STC(update_ratio=1.0), video, tower=dense), dense(video), atol=0.1, rtol=0.05)


@pytest.mark.parametrize(
    "settings", [{}, {"similarity": "l2"}, {"reference": "nearest", "chunk": 2, "refresh_above": 0.9}], ids=str
)
def test_float64(settings: dict[str, Any]) -> None:
    tower, dense = Tower(), Tower()
    tower.layers.double()
    dense.layers.double()
    video = frames(6).double()
    out = streamed(STC(update_ratio=0.3, **settings), video, tower=tower)
    assert out.dtype == torch.float64
    expected = streamed(STC(update_ratio=0.3, **settings), frames(6))
    torch.testing.assert_close(out.float(), expected, atol=1e-4, rtol=1e-4)
    everything = streamed(STC(update_ratio=1.0, **settings), video, tower=dense)
    torch.testing.assert_close(everything, dense(video), atol=1e-12, rtol=1e-12)


def test_buffers_stay_where_they_are() -> None:
    """A CUDA graph that was captured reads and writes fixed addresses."""
    tower, binding, _ = bound(STC(interval=2))
    state = binding.new_state()
    addresses = []
    with binding.using(state):
        for frame in frames(6).split(1):
            tower(frame)
            addresses.append({n: t.data_ptr() for n, t in state.references(1).items()})
    state.reset()
    with binding.using(state):
        tower(frames(1))
    addresses.append({n: t.data_ptr() for n, t in state.references(1).items()})
    assert all(address == addresses[0] for address in addresses)


def test_a_clip_leaves_nothing_behind() -> None:
    tower, binding, _ = bound(STC())
    state = binding.new_state(keep=False)
    video = frames(5)
    with binding.using(state):
        torch.testing.assert_close(tower(video), streamed(STC(), video))
        assert torch.equal(tower(video), tower(video))  # every call is a clip of its own
    assert state.references(0) == {}
    assert state.total == 150


def test_inference_mode_and_back() -> None:
    _tower, _, call = bound(STC(interval=2))
    with torch.inference_mode():
        call(frames(1))
    call(frames(4))


def test_the_default_reads_nothing_on_the_host() -> None:
    """On the meta device there are no values that could be read."""
    tower = Tower()
    tower.layers.to("meta")
    for settings in ({}, {"selection": "shared"}, {"feature": "input", "similarity": "l1"}, {"reuse": "mlp"}):
        cacher = STC(chunk=2, **settings)  # type: ignore[arg-type]
        assert cacher.host_reads == 0
        assert streamed(cacher, frames(7).to("meta"), [2, 5], tower).shape == (7, 10, WIDTH)
    assert STC(refresh_above=0.5).host_reads == 1


OPTIONS = itertools.product(
    ("both", "attention", "mlp"), ("key", "input"), ("layer", "shared"), (0.0, 0.3, 1.0), (2, None)
)


@pytest.mark.parametrize(("reuse", "feature", "selection", "ratio", "interval"), OPTIONS)
def test_what_it_multiplies_is_what_it_says(
    reuse: Any, feature: Any, selection: Any, ratio: float, interval: int | None
) -> None:
    cacher = STC(reuse=reuse, feature=feature, selection=selection, update_ratio=ratio, interval=interval)
    sizes = [LayerSize(WIDTH, 2 * WIDTH * MLP)] * DEPTH
    for cuts in ([], [1] * 5):
        with FlopCounterMode(display=False) as counter:
            streamed(cacher, frames(5), cuts)
        # Comparing norms and features are no matrix products.
        assert counter.get_total_flops() == tower_operations(cacher, sizes, 10, 5)
    with FlopCounterMode(display=False) as counter:
        Tower()(frames(5))
    assert counter.get_total_flops() == tower_operations(None, sizes, 10, 5)


def test_the_operations_at_the_papers_size() -> None:
    """What the documentation states: 31 % of a frame; 65 % at interval 2 and 48 % at interval 4 of a stream."""
    sizes = [LayerSize(1152, 2 * 1152 * 4304)] * 27
    dense = tower_operations(None, sizes, 729, 16)
    shares = [tower_operations(STC(interval=n), sizes, 729, 16) / dense for n in (2, 4)]
    assert shares == pytest.approx([0.654, 0.481], abs=0.001)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"interval": 0}, "interval=0"),
        ({"chunk": 1.5}, "chunk=1.5"),
        ({"update_ratio": 1.5}, "update_ratio=1.5"),
        ({"refresh_above": -1}, "refresh_above=-1"),
        ({"max_update_ratio": 0.1}, "below update_ratio"),
        ({"alike": 2.0}, "a cosine"),
        ({"reuse": "all"}, "known: both, attention, mlp"),
        ({"intervall": 2}, "no parameter intervall"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildError, match=said):
        build("vidcom2", cacher={"name": "stc", **settings})


def test_build_takes_a_cacher_and_its_parameters() -> None:
    made = build("stc_pruner", cacher="stc", interval=4, frame_weight=2.0)
    assert made.cacher == STC(interval=4)
    assert made == build("stc_pruner", frame_weight=2.0)  # what is compressed how is the same
    assert build(made, cacher="none").cacher is None
    assert build(build("vidcom2"), cacher=STC(interval=3)).cacher == STC(interval=3)
    assert build("sttm", cacher="stc", interval=3).cacher == STC(interval=3)
    assert build("vidcom2").cacher is None
    with pytest.raises(BuildError, match="no part has a parameter 'interval'"):
        build("vidcom2", interval=3)
    with pytest.raises(BuildError, match="use press"):
        compress(torch.randn(2, 4, 8), "vidcom2", cacher="stc")
