"""The support table, held: what a family supports equals truth, what it refuses is refused with the reason it gives.

For families that are not core this is also the short contract of `make test`; their whole contract is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from adapters import UnsupportedError
from adapters.perception_lm import SEVERAL_VIDEOS
from adapters.qwen2_5_omni import SEVERAL_SOUNDS, SHARED_TIME
from adapters.support import FEATURES, FLASH_TURNS, UNEVEN_TURNS, Feature
from compressors import RequirementError, build, rows
from compressors.requirements import Attention, FrameFeatures, Keys
from tests.adapters import flash, tiny, truth
from tests.adapters.given import Given, GivenMerge
from tests.adapters.harness import EAGER, STEPS, close, generated, second_turn
from tests.adapters.streaming.streams import QUESTION, fed, frames, model_and_processor, one_video, prefill, session
from tests.adapters.test_press import snapshot
from vidpress import press

pytestmark = pytest.mark.quick
LAYOUT = {"batch": "padded", "merging": "two"}  # else "one"
TAPS = (Attention, Keys, FrameFeatures)


def case(family: tiny.Family, name: str, kind: type[Given] = Given) -> tuple[tiny.Prompt, Given, list[truth.Row]]:
    """A prompt, a random keep set, and the compressed rows."""
    layout = tiny.LAYOUTS[name]
    if reason := family.unfit(layout):
        pytest.skip(reason)
    inputs, given = tiny.prompt(family, layout), kind(tiny.ragged_keeps(family, layout))
    reference = tiny.untouched(family)
    results = truth.compress(reference, family, inputs, given)
    return inputs, given, [truth.pruned(row, results) for row in truth.rows(reference, family, inputs)]


def plain(family: tiny.Family, feature: Feature) -> None:
    """`generate` with everything that the feature adds to it, compared token by token."""
    kind = GivenMerge if feature == "merging" else Given
    inputs, given, wanted = case(family, LAYOUT.get(feature, "one"), kind)
    contiguous = feature == "contiguous positions"
    options = {
        "static cache": {"cache_implementation": "static"},
        "assisted decoding": {"prompt_lookup_num_tokens": 2},
    }.get(feature, {})
    model, reference = tiny.build(family), tiny.untouched(family)
    with press(model, given, positions="contiguous" if contiguous else "original"):
        out = generated(model, inputs, **options)
    for b, row in enumerate(wanted):
        want = truth.greedy(reference, truth.contiguous(row) if contiguous else row, STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(out.logits[b], want.logits, EAGER)


def beams(family: tiny.Family, feature: Feature) -> None:
    inputs, given, (row,) = case(family, "one")
    model = tiny.build(family)
    with press(model, given):
        out = generated(model, inputs, num_beams=2)
    tokens, score = truth.beam_search(tiny.untouched(family), row, STEPS, beams=2)
    assert out.tokens[0].tolist() == tokens.tolist()
    assert float(out.scores[0]) == pytest.approx(score, rel=1e-4)


def turns(family: tiny.Family, feature: Feature) -> None:
    inputs, given, (row,) = case(family, "one")
    model, reference = tiny.build(family), tiny.untouched(family)
    more = tiny.text_ids(3, torch.Generator().manual_seed(5))[None]
    with press(model, given):
        first = generated(model, inputs)
        second = generated(model, second_turn(inputs, first, more), past_key_values=first.cache)
    turn = truth.next_turn(reference, truth.greedy(reference, row, STEPS), more[0])
    want = truth.greedy(reference, turn, STEPS)
    assert second.tokens[0].tolist() == want.tokens.tolist()
    close(second.logits[0], want.logits, EAGER)


def taps(family: tiny.Family, feature: Feature) -> None:
    """Every method that reads the tower runs, or is refused for what this tower lacks; `test_taps.py` checks values."""
    inputs, _, _ = case(family, "one")
    model, ran = tiny.build(family), []
    for row in rows():
        needs = build(row.name).requirements
        if not any(isinstance(need, TAPS) for need in needs):
            continue
        if reasons := [reason for need in needs if (reason := family.known.lacks(model, need))]:
            with pytest.raises(RequirementError) as refused:
                press(model, row.name)
            assert any(reason in str(refused.value) for reason in reasons)
            continue
        with torch.no_grad(), press(model, row.name, retention=0.5) as report:
            assert torch.isfinite(model(**inputs).logits).all()
        assert report.kept < report.visual
        ran.append(row.name)
    if not ran:
        raise RequirementError("no method that reads the tower runs")


def reuse(family: tiny.Family, feature: Feature) -> None:
    """Where everything is computed anew a cacher changes nothing; a part reused, dropping goes on as ever.

    Two videos: each is a stream of its own.
    """
    inputs, _, _ = case(family, "two")
    model, want = tiny.build(family), generated(tiny.build(family), inputs)
    with press(model, "none", cacher={"name": "stc", "update_ratio": 1.0}) as report:
        close(generated(model, inputs).logits, want.logits, EAGER)
    with press(model, "random", retention=0.5, cacher={"name": "stc", "update_ratio": 0.25}) as report:
        assert torch.isfinite(generated(model, inputs).logits).all()
    assert report.reuse is not None
    assert 0 < report.reuse < 1
    assert report.kept < report.visual


def stream(family: tiny.Family, feature: Feature) -> None:
    """A stream that forgets nothing is one prefill of the same prompt; `streaming/` has everything else."""
    model, processor = model_and_processor(family)
    shown = frames(6)
    with session(model, processor) as running:
        answer = fed(running, shown, (1, 3, 2)).ask(QUESTION, max_new_tokens=1, logits=True)
    close(answer.logits[0], prefill(model, one_video(processor, shown)), EAGER)


DRIVE: dict[Feature, Callable[[tiny.Family, Feature], None]] = {
    **dict.fromkeys(FEATURES, plain),
    "encoder taps": taps,
    "beams": beams,
    "chat turns": turns,
    "cacher": reuse,
    "streaming": stream,
}


@pytest.mark.parametrize("feature", FEATURES)
def test_what_the_table_says(family: tiny.Family, feature: Feature) -> None:
    reason = family.known.support()[feature]
    if reason is None:
        DRIVE[feature](family, feature)
    else:
        with pytest.raises((UnsupportedError, RequirementError)) as refused:
            DRIVE[feature](family, feature)
        if feature != "encoder taps":
            assert f"{feature}: not supported for {family.known.name}" in str(refused.value)
            assert reason in str(refused.value)


def driven(family: tiny.Family, name: str, positions: Any = "original", prefix: int = 0, **options: Any) -> None:
    """`generate` under a press, behind a few tokens of the prompt that are in the cache already."""
    layout, model = tiny.LAYOUTS[name], tiny.build(family)
    inputs = tiny.prompt(family, layout)
    with press(model, Given(tiny.ragged_keeps(family, layout)), positions=positions):
        if prefix:
            with torch.no_grad():
                options["past_key_values"] = model(input_ids=inputs["input_ids"][:, :prefix], use_cache=True)[
                    "past_key_values"
                ]
        generated(model, inputs, 1, **options)


def heard(family: tiny.Family) -> tiny.Family:
    """The family with sound in its videos."""
    return tiny.FAMILIES[f"{family.name.removesuffix('_audio')}_audio"]


def flash_turns(family: tiny.Family, monkeypatch: pytest.MonkeyPatch) -> None:
    flash.stand_in(monkeypatch)
    plain = tiny.build
    monkeypatch.setattr(tiny, "build", lambda *args, **options: flash.with_flash(plain(*args, **options)))
    driven(family, "one", prefix=2)


CASES: dict[str, Callable[[tiny.Family, pytest.MonkeyPatch], None]] = {
    SHARED_TIME: lambda family, _: driven(heard(family), "one", positions="contiguous"),
    SEVERAL_SOUNDS: lambda family, _: driven(heard(family), "two", num_beams=2),
    SEVERAL_VIDEOS: lambda family, _: driven(family, "two", num_beams=2),
    UNEVEN_TURNS: lambda family, _: driven(family, "even", prefix=2),
    FLASH_TURNS: flash_turns,
}
"""How to run into each case in which a feature that works is refused."""


def test_cases_that_are_refused_although_the_feature_works(
    family: tiny.Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    for feature, reasons in family.known.exceptions().items():
        for reason in reasons:
            with pytest.raises(UnsupportedError) as refused:
                CASES[reason](family, monkeypatch)
            assert reason in str(refused.value), f"{feature}: refused with other words than those of the table"
            monkeypatch.undo()


def test_every_such_case_is_declared(family: tiny.Family) -> None:
    """Those that follow from what a decoder is made of, by every family that has such a decoder."""
    known, decoder = family.known, family.known.decoder(tiny.untouched(family))
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    turns = known.exceptions()["chat turns"]
    assert (FLASH_TURNS in turns) == (kinds != {"full_attention"} and not known.mrope)
    assert (UNEVEN_TURNS in turns) == (not known.masking)
    assert {reason for reasons in known.exceptions().values() for reason in reasons} <= set(CASES)


def test_a_forward_gives_the_logits_of_what_stays(family: tiny.Family) -> None:
    """Both truths where a masked slot does not act, the hand-pruned sequence alone where it does."""
    inputs, given, (row,) = case(family, "one")
    model, reference = tiny.build(family), tiny.untouched(family)
    with torch.no_grad(), press(model, given):
        logits = model(**inputs).logits[0]
    close(logits, truth.logits(reference, row), EAGER)
    if family.known.masking:
        hidden = truth.masked(*truth.rows(reference, family, inputs), truth.compress(reference, family, inputs, given))
        close(logits, truth.logits(reference, hidden)[~hidden.dropped], EAGER)


def test_dropping_moves_the_logits(family: tiny.Family) -> None:
    inputs, _, (row,) = case(family, "one")
    reference = tiny.untouched(family)
    (full,) = truth.rows(reference, family, inputs)
    assert (truth.logits(reference, full)[-1] - truth.logits(reference, row)[-1]).abs().max() > 0.02


def test_everything_kept_and_removal_change_no_bit(family: tiny.Family) -> None:
    inputs, given, _ = case(family, "one")
    model = tiny.build(family)
    want = generated(model, inputs)  # whatever the library keeps from a first run is there before and after
    before = snapshot(model)
    with press(model, "vidcom2", retention=1.0) as report:
        assert torch.equal(generated(model, inputs).logits, want.logits)
    assert report.retention == 1.0
    with press(model, given):
        assert not torch.equal(generated(model, inputs).logits, want.logits)
    assert snapshot(model) == before
    assert torch.equal(generated(model, inputs).logits, want.logits)


def test_what_is_refused_is_refused_by_name(family: tiny.Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusals themselves: with every feature on the list, each way of asking for one is refused."""
    reasons = {feature: f"because of {feature}" for feature in FEATURES if feature not in ("pruning", "encoder taps")}
    inputs, given, _ = case(family, "one")
    model, known = tiny.build(family), family.known

    def refused(feature: Feature, run: Callable[[], Any]) -> None:
        monkeypatch.setattr(type(known), "refuses", {feature: reasons[feature]})
        with pytest.raises(UnsupportedError, match=f"{feature}: not supported for {known.name}.*{reasons[feature]}"):
            run()
        monkeypatch.undo()

    def call(**options: Any) -> None:
        with press(model, given):
            generated(model, inputs, **options)

    def again() -> None:
        with press(model, given):
            first = generated(model, inputs)
            more = torch.full((1, 2), tiny.VOCABULARY - 1)
            generated(model, second_turn(inputs, first, more), past_key_values=first.cache)

    ways: dict[Feature, Callable[[], Any]] = {
        "merging": lambda: press(model, GivenMerge(given.keeps)),
        "contiguous positions": lambda: press(model, given, positions="contiguous"),
        "static cache": lambda: call(cache_implementation="static"),
        "beams": lambda: call(num_beams=2),
        "assisted decoding": lambda: call(prompt_lookup_num_tokens=2),
        "chat turns": again,
        "batch": lambda: _batch(family, model),
        "cacher": lambda: press(model, "none", cacher="stc"),
        "streaming": lambda: session(*model_and_processor(family)),
    }
    assert set(ways) == set(reasons)
    for feature, run in ways.items():
        if known.support()[feature] is None:
            refused(feature, run)


def _batch(family: tiny.Family, model: Any) -> None:
    inputs, given, _ = case(family, "padded")
    with press(model, given):
        generated(model, inputs)
