"""The truth itself: its two definitions agree, and with nothing dropped it is what the unpressed library computes."""

from __future__ import annotations

import pytest
import torch

from tests.adapters import tiny, truth
from tests.adapters.given import Given, GivenMerge
from tests.adapters.harness import (
    AGAIN,
    EAGER,
    STEPS,
    Precision,
    beams_work,
    close,
    generated,
    manual_loop,
    second_turn,
    seeds,
)


@pytest.mark.parametrize("compressor", [Given, GivenMerge])
@pytest.mark.parametrize("seed", seeds(3))
def test_dropping_equals_masking(
    family: tiny.Family, layout: tiny.Rows, precision: Precision, seed: int, compressor: type[Given]
) -> None:
    """Cutting tokens out, positions untouched, computes the same as hiding them as keys."""
    if not family.known.masking:
        pytest.skip("a masked slot still acts in this decoder")
    model = tiny.untouched(family, *precision.model)
    inputs = tiny.prompt(family, layout, seed, precision.dtype)
    results = truth.compress(model, family, inputs, compressor(tiny.ragged_keeps(family, layout, seed)))
    for row in truth.rows(model, family, inputs):
        hidden, cut = truth.masked(row, results), truth.pruned(row, results)
        close(truth.logits(model, cut), truth.logits(model, hidden)[~hidden.dropped], precision)
        a, b = truth.greedy(model, cut, STEPS), truth.greedy(model, hidden, STEPS)
        assert torch.equal(a.tokens, b.tokens)
        close(a.logits, b.logits, precision)


def test_dropping_moves_the_logits(family: tiny.Family, layout: tiny.Rows, precision: Precision) -> None:
    """The tiny models notice what is dropped, so that a test on them can fail."""
    model = tiny.untouched(family, *precision.model)
    inputs = tiny.prompt(family, layout, dtype=precision.dtype)
    results = truth.compress(model, family, inputs, Given(tiny.ragged_keeps(family, layout)))
    for row in truth.rows(model, family, inputs):
        if row.videos:
            full, cut = truth.logits(model, row)[-1], truth.logits(model, truth.pruned(row, results))[-1]
            assert (full - cut).abs().max() > 0.02


def test_prefill_is_the_library_s(family: tiny.Family, layout: tiny.Rows, precision: Precision) -> None:
    model = tiny.untouched(family, *precision.model)
    inputs = tiny.prompt(family, layout, dtype=precision.dtype)
    with torch.no_grad():
        got = model(**inputs).logits
    for b, row in enumerate(truth.rows(model, family, inputs)):
        close(got[b, -len(row.ids) :], truth.logits(model, row), precision)


@pytest.mark.parametrize("frames", tiny.FRAME_COUNTS)
def test_generation_is_the_library_s_for_any_length(family: tiny.Family, frames: int) -> None:
    rows = ((tiny.Text(2), tiny.Video(frames), tiny.Text(2)),)
    model, inputs = tiny.build(family), tiny.prompt(family, rows)
    out = generated(model, inputs)
    (row,) = truth.rows(model, family, inputs)
    want = truth.greedy(model, row, STEPS)
    assert torch.equal(out.tokens[0], want.tokens)
    close(out.logits[0], want.logits, EAGER)


def test_generation_is_the_library_s(family: tiny.Family, layout: tiny.Rows, precision: Precision) -> None:
    model = tiny.build(family, *precision.model)
    inputs = tiny.prompt(family, layout, dtype=precision.dtype)
    out = generated(model, inputs)
    for b, row in enumerate(truth.rows(model, family, inputs)):
        want = truth.greedy(model, row, STEPS)
        assert torch.equal(out.tokens[b], want.tokens)
        close(out.logits[b], want.logits, precision)


@pytest.mark.needs("beams")
def test_beam_search_is_the_library_s(family: tiny.Family, layout: tiny.Rows) -> None:
    beams_work(family, layout)
    model, inputs = tiny.build(family), tiny.prompt(family, layout)
    out = generated(model, inputs, num_beams=2)
    for b, row in enumerate(truth.rows(model, family, inputs)):
        tokens, score = truth.beam_search(model, row, STEPS, beams=2)
        assert torch.equal(out.tokens[b], tokens)
        assert out.scores[b] == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("name", ["one", "padded"])
def test_a_forward_loop_is_the_library_s(family: tiny.Family, name: str, masks: bool) -> None:
    rows = tiny.LAYOUTS[name]
    if not masks and len(rows) > 1:
        pytest.skip("a padded batch needs its mask")
    if masks and family.mrope:
        pytest.skip("the library computes positions for the whole mask instead of the new token, unpressed")
    model, inputs = tiny.build(family), tiny.prompt(family, rows)
    tokens, logits = manual_loop(model, inputs, STEPS, masks)
    for b, row in enumerate(truth.rows(model, family, inputs)):
        want = truth.greedy(model, row, STEPS, from_extent=True)
        assert torch.equal(tokens[b], want.tokens)
        close(logits[b], want.logits, EAGER)


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("name", ["one", "two", "padded"])
def test_a_second_turn_is_the_library_s(family: tiny.Family, name: str, again: str) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS[name])
    first = generated(model, inputs)
    more = tiny.text_ids(3, torch.Generator().manual_seed(5)).expand(len(first.tokens), -1)
    second = generated(model, second_turn(inputs, first, more, again), past_key_values=first.cache)
    for b, row in enumerate(truth.rows(model, family, inputs)):
        turn = truth.greedy(model, row, STEPS)
        want = truth.greedy(model, truth.next_turn(model, turn, more[b]), STEPS)
        assert torch.equal(second.tokens[b], want.tokens)
        close(second.logits[b], want.logits, EAGER)
