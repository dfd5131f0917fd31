"""Causal FCA: budgets of a stream whose chunks may be single frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressors import BuildError, InputError, VideoTokens, build, compress, make
from compressors.allocators.causal_fca import CausalState
from compressors.functional.histories import Histories
from tests.compressors.videos import noise, ragged


def spent(x: Tensor, sizes: list[int], retention: float = 0.25, **params: Any) -> list[int]:
    """Budgets of a stream fed in chunks of these sizes."""
    compressor = build("vidcom2", allocator={"name": "causal_fca", **params})
    history, budgets = None, []
    for chunk in torch.split(x, sizes):
        result = compress(chunk, compressor, retention=retention, history=history, validate=False)
        assert result.kept == int(result.budgets.sum())
        history = result.history
        budgets += result.budgets.tolist()
    return budgets


def one_flash(frames: int = 24, flash: int = 15, places: int = 48) -> Tensor:
    """A still scene with a little noise, in which one frame shows something else."""
    x = noise(1, places, 16).expand(frames, -1, -1).clone()
    x[flash] = noise(1, places, 16, seed=1)
    return x + 0.01 * noise(frames, places, 16, seed=2)


@given(
    st.lists(st.sampled_from(["still", "new", "zero", "back"]), min_size=1, max_size=24),
    st.floats(0.02, 1.0),
    st.floats(1.0, 6.0),
    st.floats(0.0, 8.0),
    st.integers(1, 12),
    st.integers(0, 4),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_bounds_hold_for_any_stream(
    kinds: list[str], retention: float, burst: float, strength: float, window: int, least: int, step: int
) -> None:
    places = 20
    frames = [noise(1, places, 8)]
    for i, kind in enumerate(kinds):
        new = {"still": frames[-1], "back": frames[0], "zero": torch.zeros_like(frames[0])}
        frames.append(new.get(kind, noise(1, places, 8, seed=i + 1)))
    x = torch.cat(frames)
    sizes = [min(step, len(x) - i) for i in range(0, len(x), step)]
    budgets = spent(
        x, sizes, retention, burst=burst, strength=strength, window=window, min_tokens=least, temperature=0.1
    )
    rate = retention * places
    assert all(0 <= b <= places for b in budgets)
    for start in range(len(budgets)):
        for stop in range(start + 1, len(budgets) + 1):
            assert sum(budgets[start:stop]) <= (max(burst, 1 / rate) + stop - start - 1) * rate + 1e-3
    if least <= rate:
        assert min(budgets) >= least


def test_chunks_do_not_matter() -> None:
    x = one_flash()
    one = spent(x, [24])
    assert spent(x, [1] * 24) == one
    assert spent(x, [7, 1, 16]) == one


def test_what_stands_out_gets_more_in_chunks_of_one_frame() -> None:
    x = one_flash()
    budgets = spent(x, [1] * 24, strength=1.0)
    assert budgets[15] == 23, "r·(1 + 1 - 1/w) of r = 12 with 16 frames so far is 23.25"
    assert max(budgets[:15]) <= 14
    assert spent(x, [1] * 24, strength=0.0) == [12] * 24
    assert abs(sum(budgets) - 24 * 12) <= 24


def test_shares_are_the_formula() -> None:
    x = noise(9, 12, 8)
    allocator = make("allocator", {"name": "causal_fca", "window": 4, "temperature": 0.3, "strength": 0.7})
    unit = torch.nn.functional.normalize(x, dim=-1)
    scores, want = [], []
    for t in range(9):
        centre = unit[max(0, t - 3) : t + 1].mean((0, 1))
        distance = (unit[t] - centre).square().sum(-1)
        alike = sum(torch.exp(distance / (-2 * a)) for a in (0.125, 0.25, 0.5, 1.0, 2.0))
        scores.append(-alike.mean())
        p = torch.softmax(torch.stack(scores[-4:]) / 0.3, 0)
        want.append(1 + 0.7 * (p[-1] - 1 / len(p)))
    got, _, _ = allocator._asked(VideoTokens(x))  # type: ignore[attr-defined]
    torch.testing.assert_close(got, torch.stack(want))


def test_state_is_bounded_and_belongs_to_the_stream() -> None:
    compressor = build("random", allocator={"name": "causal_fca", "window": 5})
    history = None
    for i in range(12):
        history = compress(noise(2, 6, 8, seed=i), compressor, history=history).history
        assert isinstance(history, CausalState)
        assert history.means.shape == (min(4, 2 * i + 2), 8)
    with pytest.raises(InputError, match="8 channels, and tokens have 4"):
        compress(noise(1, 6, 4), compressor, history=history)
    with pytest.raises(InputError, match="history is a str"):
        compress(noise(1, 6, 8), compressor, history="mine")


def test_together_with_a_scorer_that_remembers_too() -> None:
    both = build("stc_pruner", allocator="causal_fca")
    history = None
    for i in range(3):
        result = compress(noise(1, 16, 8, seed=i), both, history=history)
        history = result.history
    assert isinstance(history, Histories)
    assert history.states["running_mean"].chunks == 3
    assert len(history.states["causal_fca"].means) == 3
    with pytest.raises(InputError, match="is needed among others"):
        compress(noise(1, 16, 8), both, history=history.states["running_mean"])


def test_empty_places_and_frames() -> None:
    tokens = ragged(4, 10, 5, [10, 0, 3, 10])
    result = compress(tokens, build("vidcom2", allocator="causal_fca"), retention=0.5)
    budgets = result.budgets.tolist()
    assert budgets[1] == 0
    assert 1 <= budgets[2] <= 3
    assert len(result.history.means) == 3


@pytest.mark.parametrize("wrong", [{"burst": 0.5}, {"window": 0}, {"temperature": 0}, {"strength": -1}])
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(BuildError, match=f"causal_fca: {next(iter(wrong))}="):
        make("allocator", {"name": "causal_fca", **wrong})
