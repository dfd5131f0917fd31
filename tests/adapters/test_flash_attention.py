"""The library's path to FlashAttention, from masks and position ids to lengths of sequences, without a GPU.

Its functions are plain operations here (`flash.py`); what they compute on a GPU is theirs. Truth is eager attention.
"""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
import transformers

from adapters.attention import check_jumps, one_sequence
from adapters.errors import UnsupportedError
from tests.adapters import flash, tiny, truth
from tests.adapters.given import Given
from tests.adapters.harness import EAGER, STEPS, close, generated
from tests.adapters.streaming.streams import QUESTION, fed, frames, processor_for, session
from tests.adapters.test_generation_modes import (  # collected here once more
    test_a_question_on_a_prefilled_cache,  # noqa: F401
    test_a_third_turn,  # noqa: F401
    test_a_video_after_a_cached_prefix,  # noqa: F401
    test_a_video_in_a_later_turn,  # noqa: F401
)
from vidpress import press

pytestmark = pytest.mark.core("internvl", "video_llava", "qwen3_5")


@pytest.fixture(autouse=True)
def _flash(monkeypatch: pytest.MonkeyPatch) -> None:
    flash.stand_in(monkeypatch)
    plain = tiny.build
    monkeypatch.setattr(tiny, "build", lambda *args, **options: flash.with_flash(plain(*args, **options)))


@pytest.mark.parametrize("positions", ["original", "contiguous"])
def test_prompts(family: tiny.Family, layout: tiny.Rows, positions: Any) -> None:
    model, reference = tiny.build(family), tiny.untouched(family)
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    with press(model, given, positions=positions):
        out = generated(model, inputs)
    results = truth.compress(reference, family, inputs, given)
    for b, row in enumerate(truth.rows(reference, family, inputs)):
        pruned = truth.pruned(row, results)
        want = truth.greedy(reference, truth.contiguous(pruned) if positions == "contiguous" else pruned, STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist()
        close(out.logits[b], want.logits, EAGER)


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_onevision"])
@pytest.mark.parametrize("memory", ["full", {"name": "window", "recent": 80}], ids=["full", "window"])
def test_a_pruned_stream(name: str, memory: Any) -> None:
    """Every chunk leaves gaps in the positions, behind a cache that grows."""
    family, answers = tiny.FAMILIES[name], []
    for model in (tiny.untouched(family, vocabulary=260), tiny.build(family, vocabulary=260)):
        stream = session(model, processor_for(model), memory=memory, pruner="stc_pruner", retention=0.5, chunk=4)
        answers.append(fed(stream, frames(12), (12,)).ask(QUESTION, logits=True, max_new_tokens=3))
    close(answers[1].logits, answers[0].logits, EAGER)


def test_a_static_cache_in_a_forward() -> None:
    """Its empty slots are cut off by the mask, which a forward of one's own does not bring along."""
    family, layout = tiny.FAMILIES["llava_onevision"], tiny.LAYOUTS["one"]
    inputs, given = tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))
    model, reference = tiny.build(family), tiny.untouched(family)
    cache = transformers.StaticCache(config=model.config.get_text_config(), max_cache_len=80)
    del inputs["attention_mask"]
    with torch.no_grad(), press(model, given, positions="contiguous"):
        got = model(**inputs, past_key_values=cache).logits[0, -1]
    results = truth.compress(reference, family, inputs, given)
    row = truth.contiguous(truth.pruned(truth.rows(reference, family, inputs)[0], results))
    close(got, truth.greedy(reference, row, 1).logits[0], EAGER)


def test_a_stream_of_layers_that_do_not_see_all_keys() -> None:
    family = tiny.FAMILIES["llava_onevision"]
    model = tiny.build(family, vocabulary=260)
    model.config.text_config.layer_types = ["sliding_attention", "full_attention"]
    model.config.text_config.sliding_window = 100
    model.get_decoder().has_sliding_layers = True
    for settings in ({}, {"pruner": "stc_pruner", "positions": "contiguous"}):
        fed(session(model, processor_for(model), chunk=4, **settings), frames(8), (8,)).ask(QUESTION, max_new_tokens=1)
    with pytest.raises(UnsupportedError, match="attn_implementation='sdpa'"):
        session(model, processor_for(model), pruner="stc_pruner")


def test_windows_that_a_configuration_names_without_layers() -> None:
    decoder = types.SimpleNamespace(config=transformers.MistralConfig(sliding_window=8))
    decoder.config._attn_implementation = flash.NAME
    assert not one_sequence(decoder, 3, 5, torch.device("cpu"))
    with pytest.raises(UnsupportedError, match="windows"):
        check_jumps(decoder)
    decoder.config.sliding_window = None
    assert one_sequence(decoder, 3, 5, torch.device("cpu"))["cu_seq_lens_k"].tolist() == [0, 8]
    check_jumps(decoder)


@pytest.mark.parametrize("name", ["gemma4", "minicpmv4_6"])
def test_layers_that_would_be_told_a_wrong_length(name: str) -> None:
    family, layout = tiny.FAMILIES[name], tiny.LAYOUTS["one"]
    model, inputs = tiny.build(family), tiny.prompt(family, layout)
    with press(model, Given(tiny.ragged_keeps(family, layout))):
        cache = model(input_ids=inputs["input_ids"][:, :2], use_cache=True).past_key_values
        with pytest.raises(UnsupportedError, match="positions='contiguous'"):
            generated(model, inputs, past_key_values=cache)
