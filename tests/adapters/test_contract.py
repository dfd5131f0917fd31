"""The contract of `press`: logits and tokens of a pressed model are those of the hand-made truth.

Keep sets are random and ragged: every frame keeps another count, some nothing, some everything, and now and then a
whole video goes. Methods are checked as well, merging ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import family_of
from compressors import RequirementError, build, method_names
from compressors.base import Compression, Compressor
from compressors.budget import Budget
from tests.adapters import tiny, truth
from tests.adapters.given import Given, GivenMerge, Recorded
from tests.adapters.harness import EAGER, STEPS, Precision, close, generated
from vidpress import press

CACHES = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "none": {"use_cache": False},
}
METHODS = ("vidcom2", "random", "stride", "average_pool")


def check(
    family: tiny.Family,
    inputs: dict[str, Tensor],
    compressor: Compressor,
    results: Sequence[Compression],
    precision: Precision = EAGER,
    positions: str = "original",
    budget: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Generate under press and compare every row, token by token and logit by logit."""
    model, reference = tiny.build(family, *precision.model), tiny.untouched(family, *precision.model)
    with press(model, compressor, positions=positions, **(budget or {})):
        out = generated(model, inputs, **options)
    for b, row in enumerate(truth.rows(reference, family, inputs)):
        row = truth.pruned(row, results)
        want = truth.greedy(reference, truth.contiguous(row) if positions == "contiguous" else row, STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(out.logits[b], want.logits, precision)


@pytest.mark.parametrize("compressor", [Given, GivenMerge])
def test_prefill(family: tiny.Family, layout: tiny.Rows, precision: Precision, compressor: type[Given]) -> None:
    """A plain forward gives the logits of every token that stays; shorter rows are padded on the left."""
    seed = 1
    inputs = tiny.prompt(family, layout, seed, precision.dtype)
    model, reference = tiny.build(family, *precision.model), tiny.untouched(family, *precision.model)
    given = compressor(tiny.ragged_keeps(family, layout, seed))
    with torch.no_grad(), press(model, given):
        logits = model(**inputs).logits
    results = truth.compress(reference, family, inputs, given)
    cut = truth.masked if family.known.masking else truth.pruned
    wanted = [cut(row, results) for row in truth.rows(reference, family, inputs)]
    assert logits.shape[:2] == (len(wanted), max(int((~row.dropped).sum()) for row in wanted))
    for b, row in enumerate(wanted):
        want = truth.logits(reference, row)[~row.dropped]
        close(logits[b, -len(want) :], want, precision)


@pytest.mark.parametrize("padding", ["none", "right", "no mask"])
def test_prefill_with_other_masks(family: tiny.Family, padding: str) -> None:
    """A plain forward without a mask, and one padded on the right."""
    layout = tiny.LAYOUTS["padded" if padding == "right" else "even"]
    inputs = tiny.prompt(family, layout)
    model, reference = tiny.build(family), tiny.untouched(family)
    given = Given(tiny.ragged_keeps(family, layout))
    rows = truth.rows(reference, family, inputs)
    if padding == "no mask":
        del inputs["attention_mask"]
        if family.positions_need_mask:
            rows = [replace(row, positions=torch.arange(len(row.ids)).expand_as(row.positions)) for row in rows]
    if padding == "right":
        for name in family.per_token:
            if name in inputs:
                by_row = zip(inputs[name], rows, strict=True)
                inputs[name] = torch.stack([value.roll(len(row.ids), dims=0) for value, row in by_row])
    with torch.no_grad(), press(model, given):
        logits = model(**inputs).logits
    if padding == "right":
        del inputs["attention_mask"]
    results = truth.compress(reference, family, inputs, given)
    for b, row in enumerate(rows):
        want = truth.logits(reference, truth.pruned(row, results))
        close(logits[b, -len(want) :], want, EAGER)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("seed", [0, 2])
def test_generation(family: tiny.Family, layout: tiny.Rows, precision: Precision, cache: str, seed: int) -> None:
    """Prefill and decoding, with every kind of cache. Seed 2 drops the whole first video where there are several."""
    inputs = tiny.prompt(family, layout, seed, precision.dtype)
    given = Given(tiny.ragged_keeps(family, layout, seed))
    results = truth.compress(tiny.untouched(family, *precision.model), family, inputs, given)
    check(family, inputs, given, results, precision, **CACHES[cache])


@pytest.mark.parametrize("cache", CACHES)
def test_merged_rows(family: tiny.Family, layout: tiny.Rows, cache: str) -> None:
    """Kept rows that are mixtures of several tokens, DeepStack planes included."""
    inputs = tiny.prompt(family, layout, 3)
    given = GivenMerge(tiny.ragged_keeps(family, layout, 3))
    results = truth.compress(tiny.untouched(family), family, inputs, given)
    check(family, inputs, given, results, **CACHES[cache])


@pytest.mark.parametrize("frames", tiny.FRAME_COUNTS)
def test_any_number_of_frames(family: tiny.Family, frames: int) -> None:
    rows = ((tiny.Text(2), tiny.Video(frames), tiny.Text(1)), (tiny.Text(9),))
    inputs, given = tiny.prompt(family, rows), Given(tiny.ragged_keeps(family, rows, frames))
    check(family, inputs, given, truth.compress(tiny.untouched(family), family, inputs, given))


def test_a_single_video_dropped_whole(family: tiny.Family) -> None:
    """Nothing of the only video stays but structural tokens."""
    rows = tiny.LAYOUTS["one"]
    inputs, given = tiny.prompt(family, rows), Given((torch.empty(0, dtype=torch.int64),))
    check(family, inputs, given, truth.compress(tiny.untouched(family), family, inputs, given))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_any_layout(family: tiny.Family, seed: int) -> None:
    """Random layouts, keep sets and caches."""
    rows = tiny.random_rows(family, seed)
    if reason := family.unfit(rows):
        pytest.skip(reason)
    inputs = tiny.prompt(family, rows, seed)
    compressor = (Given, GivenMerge)[seed % 2]
    given = compressor(tiny.ragged_keeps(family, rows, seed))
    results = truth.compress(tiny.untouched(family), family, inputs, given)
    check(family, inputs, given, results, **list(CACHES.values())[seed % 3])


@pytest.mark.parametrize("name", ["one", "mixed"])
def test_half_precision(family: tiny.Family, name: str) -> None:
    """bfloat16 through and through; only loosely equal, but nothing is off by a token."""
    half = Precision("sdpa", torch.bfloat16, 0.1)
    inputs = tiny.prompt(family, tiny.LAYOUTS[name], dtype=half.dtype)
    model, reference = tiny.build(family, *half.model), tiny.untouched(family, *half.model)
    given = Given(tiny.ragged_keeps(family, tiny.LAYOUTS[name]))
    with press(model, given):
        out = generated(model, inputs)
    results = truth.compress(reference, family, inputs, given)
    for b, row in enumerate(truth.rows(reference, family, inputs)):
        close(out.logits[b], truth.forced(reference, truth.pruned(row, results), out.tokens[b]), half)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["one", "image", "ragged"])
def test_methods(family: tiny.Family, name: str, method: str) -> None:
    """Registered methods under press keep and merge what they do on the video alone."""
    inputs = tiny.prompt(family, tiny.LAYOUTS[name])
    compressor = build(method)
    results = truth.compress(tiny.untouched(family), family, inputs, compressor, Budget(retention=0.3))
    check(family, inputs, compressor, results, budget={"retention": 0.3})


@cache
def prefill_truth(family: tiny.Family) -> tuple[Any, Any, dict[str, Tensor], list[truth.Row]]:
    """A model to press, one to leave alone, a prompt of three videos and its rows: the same for every method."""
    model, reference, inputs = tiny.build(family), tiny.untouched(family), tiny.prompt(family, tiny.LAYOUTS["ragged"])
    return model, reference, inputs, truth.rows(reference, family, inputs)


@pytest.mark.parametrize("method", method_names())
def test_every_method(family: tiny.Family, method: str) -> None:
    """Each gives the logits of what it kept and merged, or is refused when attached, with the reason."""
    model, reference, inputs, rows = prefill_truth(family)
    recorded = Recorded(build(method))
    reasons = [family_of(model).lacks(model, need) for need in recorded.requirements]
    if any(reasons):
        with pytest.raises(RequirementError) as refused:
            press(model, method)
        assert any(reason and reason in str(refused.value) for reason in reasons)
        return
    with torch.no_grad(), press(model, recorded, retention=0.4) as report:
        logits = model(**inputs).logits
    results = [result for _, result in sorted(recorded.results.items())]
    assert len(results) == len(report.videos) == 3
    if recorded.exact:
        assert [r.kept for r in results] == [round(0.4 * r.tokens.total) for r in results]
    for b, row in enumerate(rows):
        want = truth.logits(reference, truth.pruned(row, results))
        close(logits[b, -len(want) :], want, EAGER)


@pytest.mark.needs("encoder taps")
def test_an_allocator_inside_a_method_of_one_piece(family: tiny.Family) -> None:
    model, _, inputs, _ = prefill_truth(family)
    with torch.no_grad(), press(model, "flashvid", allocator="fca", retention=0.4) as report:
        model(**inputs)
    assert [video.kept for video in report.videos] == [round(0.4 * video.tokens) for video in report.videos]


@pytest.mark.needs("contiguous positions")
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("compressor", [Given, GivenMerge])
def test_contiguous_positions(family: tiny.Family, layout: tiny.Rows, cache: str, compressor: type[Given]) -> None:
    inputs = tiny.prompt(family, layout, 4)
    given = compressor(tiny.ragged_keeps(family, layout, 4))
    results = truth.compress(tiny.untouched(family), family, inputs, given)
    check(family, inputs, given, results, positions="contiguous", **CACHES[cache])


@pytest.mark.parametrize("method", ["vidcom2", "average_pool"])
def test_keeping_everything_changes_no_bit(
    family: tiny.Family, layout: tiny.Rows, precision: Precision, method: str
) -> None:
    """retention=1.0 is the identity, bit by bit."""
    inputs = tiny.prompt(family, layout, dtype=precision.dtype)
    model, plain = tiny.build(family, *precision.model), tiny.build(family, *precision.model)
    with torch.no_grad(), press(model, method, retention=1.0) as report:
        logits = model(**inputs).logits
        out = generated(model, inputs)
    with torch.no_grad():
        assert torch.equal(logits, plain(**inputs).logits)
    want = generated(plain, inputs)
    assert torch.equal(out.tokens, want.tokens)
    assert torch.equal(out.logits, want.logits)
    assert report.retention == 1.0


@pytest.mark.parametrize("cache", CACHES)
def test_text_alone_changes_no_bit(family: tiny.Family, cache: str) -> None:
    inputs = tiny.prompt(family, ((tiny.Text(7),), (tiny.Text(4),)))
    model, plain = tiny.build(family), tiny.build(family)
    with torch.no_grad(), press(model, "vidcom2", retention=0.25) as report:
        logits = model(**inputs).logits
        out = generated(model, inputs, **CACHES[cache])
    with torch.no_grad():
        assert torch.equal(logits, plain(**inputs).logits)
    want = generated(plain, inputs, **CACHES[cache])
    assert torch.equal(out.logits, want.logits)
    assert report.videos == []


def test_an_image_alone_changes_no_bit(family: tiny.Family) -> None:
    """Only videos are compressed."""
    inputs = tiny.prompt(family, ((tiny.Text(2), tiny.Image(), tiny.Text(4)),))
    model, plain = tiny.build(family), tiny.build(family)
    with press(model, "vidcom2", retention=0.25) as report:
        out = generated(model, inputs)
    assert torch.equal(out.logits, generated(plain, inputs).logits)
    assert report.videos == []


@pytest.mark.parametrize("cache", CACHES)
def test_calls_do_not_leak_into_each_other(family: tiny.Family, cache: str) -> None:
    """One press, several prompts in turn: each comes out as if it were alone."""
    reference, model = tiny.untouched(family), tiny.build(family)
    names = ("padded", "one", "two", "ragged")
    keeps = {name: tiny.ragged_keeps(family, tiny.LAYOUTS[name], 7) for name in names}
    current = list(keeps["padded"])

    class Switch(Given):
        def chosen(self, tokens: Any) -> Tensor:
            return current[tokens.index]

    with press(model, Switch(())):
        for name in (*names, "text", *names):
            rows = tiny.LAYOUTS.get(name, tiny.TEXT_ONLY)
            current = list(keeps.get(name, ()))
            inputs = tiny.prompt(family, rows, 7)
            results = truth.compress(reference, family, inputs, Given(tuple(current)))
            out = generated(model, inputs, **CACHES[cache])
            for b, row in enumerate(truth.rows(reference, family, inputs)):
                want = truth.greedy(reference, truth.pruned(row, results), STEPS)
                assert torch.equal(out.tokens[b], want.tokens), f"{name}, row {b}"
                close(out.logits[b], want.logits, EAGER)


@pytest.mark.parametrize("name", ["one", "image", "ragged"])
def test_flash_attention_2(family: tiny.Family, name: str) -> None:
    """Run where a GPU and flash-attn are at hand; bfloat16, so only loosely equal."""
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = tiny.build(family, "flash_attention_2", torch.bfloat16).cuda()
    inputs = tiny.prompt(family, tiny.LAYOUTS[name])
    given = Given(tiny.ragged_keeps(family, tiny.LAYOUTS[name]))
    on_gpu = {k: v.cuda().bfloat16() if v.is_floating_point() else v.cuda() for k, v in inputs.items()}
    with press(model, given):
        out = generated(model, on_gpu)
    reference = tiny.untouched(family)
    results = truth.compress(reference, family, inputs, given)
    for b, row in enumerate(truth.rows(reference, family, inputs)):
        want = truth.forced(reference, truth.pruned(row, results), out.tokens[b].cpu())
        close(out.logits[b].float().cpu(), want, Precision("flash_attention_2", torch.bfloat16, 0.1))
