"""Every way of driving a pressed model: beams, sampling, assisted decoding, forward loops, later turns, threads."""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import Any

import pytest
import torch
import torch._dynamo
import transformers
from torch import Tensor

from adapters.errors import UnsupportedError
from compressors.tokens import VideoTokens
from tests.adapters import tiny, truth
from tests.adapters.given import Chosen, Given
from tests.adapters.harness import (
    AGAIN,
    EAGER,
    STEPS,
    Generated,
    Precision,
    beams_work,
    close,
    generated,
    manual_loop,
    second_turn,
    seeds,
)
from vidpress import press


def wanted(
    family: tiny.Family,
    inputs: dict[str, Tensor],
    given: Given,
    precision: Precision = EAGER,
    positions: str = "original",
) -> list[truth.Row]:
    """The compressed rows of a call."""
    reference = tiny.untouched(family, *precision.model)
    results = truth.compress(reference, family, inputs, given)
    rows = [truth.pruned(row, results) for row in truth.rows(reference, family, inputs)]
    return [truth.contiguous(row) for row in rows] if positions == "contiguous" else rows


def new_text(rows: int, n: int = 3, seed: int = 5) -> Tensor:
    """`[rows, n]` ids of a follow-up question."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([tiny.text_ids(n, generator) for _ in range(rows)])


def check_second_turn(
    family: tiny.Family, rows: list[truth.Row], more: Tensor, second: Generated, steps: int = STEPS
) -> None:
    reference = tiny.untouched(family)
    for b, row in enumerate(rows):
        turn = truth.greedy(reference, row, steps)
        want = truth.greedy(reference, truth.next_turn(reference, turn, more[b]), STEPS)
        assert second.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(second.logits[b], want.logits, EAGER)


@pytest.mark.needs("beams")
@pytest.mark.parametrize("seed", seeds(2))
@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str)
def test_beams(family: tiny.Family, layout: tiny.Rows, cache: dict[str, Any], seed: int) -> None:
    """The returned sequence and its score are those of a beam search over the truth."""
    beams_work(family, layout)
    inputs, given = tiny.prompt(family, layout, seed), Given(tiny.ragged_keeps(family, layout, seed + 1))
    model, reference = tiny.build(family), tiny.untouched(family)
    with press(model, given):
        out = generated(model, inputs, num_beams=3, **cache)
    for b, row in enumerate(wanted(family, inputs, given)):
        tokens, score = truth.beam_search(reference, row, STEPS, beams=3)
        assert out.tokens[b].tolist() == tokens.tolist(), f"row {b}"
        assert float(out.scores[b]) == pytest.approx(score, rel=1e-4)


@pytest.mark.needs("beams")
def test_a_video_is_compressed_once_for_all_its_beams(family: tiny.Family) -> None:
    rows = tiny.LAYOUTS["padded"]
    inputs, keeps = tiny.prompt(family, rows), tiny.ragged_keeps(family, rows)
    seen = []

    def choose(tokens: VideoTokens) -> Tensor:
        seen.append(tokens.index)
        return keeps[tokens.index]

    model = tiny.build(family)
    with press(model, Chosen(choose)) as report:
        generated(model, inputs, num_beams=3)
    assert seen == [0, 1]
    assert [video.kept for video in report.videos] == [len(keep) for keep in keeps]


@pytest.mark.needs("beams")
def test_several_samples_of_one_prompt(family: tiny.Family, layout: tiny.Rows) -> None:
    """num_return_sequences with sampling: every step's logits are the truth for the tokens drawn before it."""
    beams_work(family, layout)
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, reference = tiny.build(family), tiny.untouched(family)
    torch.manual_seed(3)
    with press(model, given):
        out = generated(model, inputs, do_sample=True, num_return_sequences=3)
    assert len({tuple(row) for row in out.tokens.tolist()}) > 1
    for b, row in enumerate(wanted(family, inputs, given)):
        for i in range(3 * b, 3 * b + 3):
            close(out.logits[i], truth.forced(reference, row, out.tokens[i]), EAGER)


@pytest.mark.needs("assisted decoding")
@pytest.mark.parametrize("pressed", [False, True])
def test_an_assistant_model(family: tiny.Family, pressed: bool) -> None:
    """A second model proposes tokens, from the same features; it may be pressed or not."""
    layout = tiny.LAYOUTS["one"]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, assistant = tiny.build(family), tiny.build(family)
    with press(model, given), press(assistant, given) if pressed else contextlib.nullcontext():
        out = generated(model, inputs, 8, assistant_model=assistant)
    (row,) = wanted(family, inputs, given)
    want = truth.greedy(tiny.untouched(family), row, 8)
    assert out.tokens[0].tolist() == want.tokens.tolist()
    close(out.logits[0], want.logits, EAGER)


@pytest.mark.needs("assisted decoding")
@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.parametrize("name", ["one", "two", "image"])
def test_prompt_lookup(family: tiny.Family, name: str, seed: int) -> None:
    """Candidates copied from the prompt are accepted or cropped away without a trace in what follows."""
    layout, steps = tiny.LAYOUTS[name], 12
    inputs, given = tiny.prompt(family, layout, seed), Given(tiny.ragged_keeps(family, layout, seed))
    model, reference = tiny.build(family), tiny.untouched(family)
    with press(model, given):
        out = generated(model, inputs, steps, prompt_lookup_num_tokens=3)
    (row,) = wanted(family, inputs, given)
    want = truth.greedy(reference, row, steps)
    assert out.tokens[0].tolist() == want.tokens.tolist()
    close(out.logits[0], want.logits, EAGER)


@pytest.mark.parametrize("positions", ["original", "contiguous"])
@pytest.mark.parametrize("masks", [True, False])
def test_a_forward_loop(family: tiny.Family, layout: tiny.Rows, masks: bool, positions: str) -> None:
    """Calling the model itself step by step, without position ids, with or without the full-length mask."""
    if not masks and len(layout) > 1:
        pytest.skip("a padded batch needs its mask")
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, reference = tiny.build(family), tiny.untouched(family)
    with press(model, given, positions=positions):
        tokens, logits = manual_loop(model, inputs, STEPS, masks)
    for b, row in enumerate(wanted(family, inputs, given, positions=positions)):
        want = truth.greedy(reference, row, STEPS, from_extent=True)
        assert tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(logits[b], want.logits, EAGER)


@pytest.mark.parametrize("positions", ["original", "contiguous"])
@pytest.mark.parametrize("again", AGAIN)
def test_a_second_turn(family: tiny.Family, layout: tiny.Rows, again: str, positions: str) -> None:
    """A follow-up question on the same cache, with grids and token types passed again or not."""
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, more = tiny.build(family), new_text(len(layout))
    with press(model, given, positions=positions):
        first = generated(model, inputs)
        second = generated(model, second_turn(inputs, first, more, again), past_key_values=first.cache)
    check_second_turn(family, wanted(family, inputs, given, positions=positions), more, second)


def test_a_second_turn_with_several_answers(family: tiny.Family) -> None:
    """The cache of one turn is repeated by hand, and every copy of a row draws its own answer."""
    layout = tiny.LAYOUTS["even"]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, reference, more = tiny.build(family), tiny.untouched(family), new_text(2)
    with press(model, given):
        first = generated(model, inputs)
        first.cache.batch_repeat_interleave(2)
        turn = second_turn(inputs, first, more, "nothing")
        out = generated(model, turn, past_key_values=first.cache, do_sample=True, num_return_sequences=2)
    for b, row in enumerate(wanted(family, inputs, given)):
        longer = truth.next_turn(reference, truth.greedy(reference, row, STEPS), more[b])
        for i in (2 * b, 2 * b + 1):
            close(out.logits[i], truth.forced(reference, longer, out.tokens[i]), EAGER)


@pytest.mark.parametrize("name", ["one", "even", "padded"])
def test_a_question_on_a_prefilled_cache(family: tiny.Family, name: str) -> None:
    """A forward fills the cache once; `generate` then answers different questions on copies of it."""
    if name == "padded" and not family.mrope:
        pytest.skip("the library counts padding in a forward's positions and not in generate's, unpressed too")
    layout = tiny.LAYOUTS[name]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, reference = tiny.build(family), tiny.untouched(family)
    with press(model, given):
        with torch.no_grad():
            cache = model(**inputs, use_cache=True).past_key_values
        answers = []
        for seed in range(2):
            more = new_text(len(layout), 2 + seed, seed)
            prompt = {
                "input_ids": torch.cat([inputs["input_ids"], more], dim=1),
                "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, more.shape[1]), value=1),
            }
            answers.append((more, generated(model, prompt, past_key_values=copy.deepcopy(cache))))
    for b, row in enumerate(wanted(family, inputs, given)):
        for more, answer in answers:
            want = truth.greedy(reference, truth.extended(reference, row, more[b], row.extent), STEPS)
            assert answer.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
            close(answer.logits[b], want.logits, EAGER)


@pytest.mark.parametrize("positions", ["original", "contiguous"])
@pytest.mark.parametrize("name", ["one", "even"])
def test_a_video_after_a_cached_prefix(family: tiny.Family, name: str, positions: str) -> None:
    """A system prompt is in the cache already, uncompressed, when the video comes."""
    layout, prefix = tiny.LAYOUTS[name], 2
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, reference = tiny.build(family), tiny.untouched(family)
    with press(model, given, positions=positions):
        with torch.no_grad():
            cache = model(input_ids=inputs["input_ids"][:, :prefix], use_cache=True).past_key_values
        if len(layout) > 1 and not family.known.masking:  # rows keep different counts: padding behind the prefix
            with pytest.raises(UnsupportedError, match="would stand between the turns"):
                generated(model, inputs, past_key_values=cache)
            return
        out = generated(model, inputs, past_key_values=cache)
    for b, row in enumerate(wanted(family, inputs, given, positions=positions)):
        want = truth.greedy(reference, row, STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(out.logits[b], want.logits, EAGER)


def test_a_second_turn_after_a_first_without_press(family: tiny.Family) -> None:
    """A cache filled at full length stays what it is."""
    layout = tiny.LAYOUTS["padded"]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, more = tiny.build(family), new_text(2)
    first = generated(model, inputs)
    with press(model, given):
        second = generated(model, second_turn(inputs, first, more), past_key_values=first.cache)
    check_second_turn(family, truth.rows(tiny.untouched(family), family, inputs), more, second)


@pytest.mark.parametrize("positions", ["original", "contiguous"])
def test_a_video_in_a_later_turn(positions: str) -> None:
    """LLaVA-OneVision: every turn may bring a video of its own. (M-RoPE families need grids the library ties to the
    whole prompt, so there it does not work unpressed either.)"""
    family = tiny.FAMILIES["llava_onevision"]
    layouts = [tiny.LAYOUTS["one"], ((tiny.Text(2), tiny.Video(3), tiny.Text(3)),)]
    prompts = [tiny.prompt(family, layout, i) for i, layout in enumerate(layouts)]
    keeps = [tiny.ragged_keeps(family, layout, i) for i, layout in enumerate(layouts)]
    current: list[Tensor] = list(keeps[0])
    model, reference = tiny.build(family), tiny.untouched(family)
    with press(model, Chosen(lambda tokens: current[tokens.index]), positions=positions):
        first = generated(model, prompts[0])
        current = list(keeps[1])
        turn = second_turn(prompts[0], first, prompts[1]["input_ids"], "nothing")
        turn["pixel_values_videos"] = prompts[1]["pixel_values_videos"]
        second = generated(model, turn, past_key_values=first.cache)
    parts = [wanted(family, prompt, Given(keep))[0] for prompt, keep in zip(prompts, keeps, strict=True)]
    row = truth.joined(truth.extended(reference, parts[0], first.tokens[0], parts[0].last), parts[1])
    want = truth.greedy(reference, truth.contiguous(row) if positions == "contiguous" else row, STEPS)
    assert second.tokens[0].tolist() == want.tokens.tolist()
    close(second.logits[0], want.logits, EAGER)


def test_a_third_turn(family: tiny.Family) -> None:
    layout = tiny.LAYOUTS["padded"]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, reference = tiny.build(family), tiny.untouched(family)
    more, again = new_text(2), new_text(2, 2, seed=6)
    with press(model, given):
        first = generated(model, inputs)
        second = generated(model, second_turn(inputs, first, more), past_key_values=first.cache)
        third = generated(model, second_turn(inputs, second, again), past_key_values=second.cache)
    for b, row in enumerate(wanted(family, inputs, given)):
        turn = truth.greedy(reference, row, STEPS)
        turn = truth.greedy(reference, truth.next_turn(reference, turn, more[b]), STEPS)
        want = truth.greedy(reference, truth.next_turn(reference, turn, again[b]), STEPS)
        assert third.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(third.logits[b], want.logits, EAGER)


@pytest.mark.parametrize("name", ["one", "padded"])
def test_a_second_turn_on_a_static_cache(family: tiny.Family, name: str) -> None:
    layout = tiny.LAYOUTS[name]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, more = tiny.build(family), new_text(len(layout))
    cache = transformers.StaticCache(config=model.config.get_text_config(decoder=True), max_cache_len=160)
    with press(model, given):
        first = generated(model, inputs, past_key_values=cache)
        second = generated(model, second_turn(inputs, first, more), past_key_values=cache)
    check_second_turn(family, wanted(family, inputs, given), more, second)


def test_a_report_counts_what_a_static_cache_keeps_empty() -> None:
    family, keeps = tiny.FAMILIES["llava_onevision"], [torch.arange(15), torch.arange(2)]
    layout = ((tiny.Text(3), tiny.Video(4), tiny.Text(3)), (tiny.Text(30), tiny.Video(4), tiny.Text(3)))
    model, inputs = tiny.build(family), tiny.prompt(family, layout)
    cache = transformers.StaticCache(config=model.config.get_text_config(decoder=True), max_cache_len=160)
    with press(model, Chosen(lambda tokens: keeps[tokens.index])) as report:
        for want in (keeps, keeps[::-1], [torch.arange(16), torch.arange(16)]):  # what the long row keeps counts
            keeps = want
            generated(model, inputs, 1, past_key_values=cache)
            assert report.spare_slots == inputs["input_ids"].shape[1] - int(cache.get_seq_length())
            assert f"{report.spare_slots} of its slots" in str(report)
            cache.reset()


def test_a_static_cache_used_again_after_reset(family: tiny.Family) -> None:
    """What a cache remembers about dropped tokens goes with its contents."""
    model, reference = tiny.build(family), tiny.untouched(family)
    cache = transformers.StaticCache(config=model.config.get_text_config(decoder=True), max_cache_len=160)
    keeps: list[Tensor] = []
    with press(model, Chosen(lambda tokens: keeps[tokens.index])):
        for name in ("two", "one", "text", "image"):
            layout = tiny.LAYOUTS.get(name, tiny.TEXT_ONLY)
            if family.unfit(layout):
                continue
            keeps = list(tiny.ragged_keeps(family, layout, 8))
            inputs = tiny.prompt(family, layout)
            out = generated(model, inputs, past_key_values=cache)
            cache.reset()
            (row,) = wanted(family, inputs, Given(tuple(keeps)))
            assert out.tokens[0].tolist() == truth.greedy(reference, row, STEPS).tokens.tolist(), name


COMPILED = {"qwen2_vl": "padded", "qwen3_vl": "one", "llava_onevision": "padded"}  # tracing takes seconds


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_decoding(name: str) -> None:
    """With a static cache the library compiles decoding: the press adds nothing to the graph and does not break it."""
    family, layout = tiny.FAMILIES[name], tiny.LAYOUTS[COMPILED[name]]
    counters = torch._dynamo.utils.counters
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    options = transformers.CompileConfig(backend="eager", mode=None, fullgraph=True, dynamic=None)
    options._compile_all_devices = True  # on a GPU the library does this by itself
    graphs = []
    for compressor in (None, given):
        torch._dynamo.reset()
        counters.clear()
        model = tiny.build(family)
        with press(model, compressor) if compressor else contextlib.nullcontext():
            out = generated(model, inputs, cache_implementation="static", compile_config=options)
        graphs.append((dict(counters["stats"]), dict(counters["graph_break"])))
    torch._dynamo.reset()
    assert graphs[0] == graphs[1]
    assert graphs[1][0]["unique_graphs"] == 1
    reference = tiny.untouched(family)
    for b, row in enumerate(wanted(family, inputs, given)):
        want = truth.greedy(reference, row, STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(out.logits[b], want.logits, EAGER)


def test_interleaved_conversations(family: tiny.Family) -> None:
    """Two conversations with caches of their own, taking turns; equal layouts, different videos and keep sets."""
    layout = tiny.LAYOUTS["one"]
    keeps: list[Tensor] = []
    talks = []
    model = tiny.build(family)
    with press(model, Chosen(lambda tokens: keeps[tokens.index])):
        for seed in range(2):
            inputs, given = tiny.prompt(family, layout, seed), Given(tiny.ragged_keeps(family, layout, 4 + seed))
            keeps = list(given.keeps)
            talks.append((inputs, given, generated(model, inputs), new_text(1, 2 + seed, seed)))
        assert len({len(given.keeps[0]) for _, given, _, _ in talks}) == 2
        seconds = [
            generated(model, second_turn(inputs, first, more), past_key_values=first.cache)
            for inputs, _, first, more in talks
        ]
    for (inputs, given, _, more), second in zip(talks, seconds, strict=True):
        check_second_turn(family, wanted(family, inputs, given), more, second)


@pytest.mark.parametrize("name", ["one", "padded"])
def test_a_copied_cache_goes_its_own_way(family: tiny.Family, name: str) -> None:
    """`copy.deepcopy` of a cache keeps what it knows, so that one prompt can serve several questions."""
    layout = tiny.LAYOUTS[name]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model = tiny.build(family)
    with press(model, given):
        first = generated(model, inputs)
        for seed in range(3):
            more = new_text(len(layout), 2 + seed, seed)
            turn = second_turn(inputs, first, more)
            second = generated(model, turn, past_key_values=copy.deepcopy(first.cache))
            check_second_turn(family, wanted(family, inputs, given), more, second)


def test_threads_share_one_press(family: tiny.Family) -> None:
    """Two threads in `generate` at once each get their own result.

    They are made to meet where one could take the other's plan: when both are about to enter the decoder, and inside
    the compressor. Their batches are ragged, so that the wrong mask or none moves the logits.
    """
    layouts: list[tiny.Rows] = [
        ((tiny.Text(1), tiny.Video(3), tiny.Text(1)), (tiny.Text(6), tiny.Video(3), tiny.Text(5))),
        ((tiny.Text(2), tiny.Video(5), tiny.Text(3)), (tiny.Text(4), tiny.Video(5), tiny.Text(7))),
    ]
    prompts = [tiny.prompt(family, layout, i) for i, layout in enumerate(layouts)]
    keeps = [tiny.ragged_keeps(family, layout, i) for i, layout in enumerate(layouts)]
    by_frames = {3: keeps[0], 5: keeps[1]}
    meeting = threading.Barrier(2, timeout=60)

    def meet(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["inputs_embeds"].shape[1] > 1:
            meeting.wait()

    def choose(tokens: VideoTokens) -> Tensor:
        meeting.wait()
        return by_frames[tokens.frames][tokens.index]

    model, results = tiny.build(family), {}
    model.get_decoder().register_forward_pre_hook(meet, with_kwargs=True)

    def work(i: int) -> None:
        try:
            results[i] = generated(model, prompts[i])
        finally:
            if i not in results:
                meeting.abort()  # or the other thread waits in vain

    with press(model, Chosen(choose)) as report:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(video.kept for video in report.videos) == sorted(len(k) for keep in keeps for k in keep)
    reference = tiny.untouched(family)
    for i in range(2):
        for b, row in enumerate(wanted(family, prompts[i], Given(keeps[i]))):
            want = truth.greedy(reference, row, STEPS)
            assert results[i].tokens[b].tolist() == want.tokens.tolist(), f"thread {i}, row {b}"
            close(results[i].logits[b], want.logits, EAGER)
