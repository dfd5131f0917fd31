"""Generation settings of tasks."""

from __future__ import annotations

import pytest

from compressors.errors import InputError, UnknownNameError
from experiments.lmms.generation import cut, generation_options, stop_strings

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1}


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({}, {**GREEDY, "max_new_tokens": 128}),
        ({"max_new_tokens": 16, "until": ["\n\n"]}, {**GREEDY, "max_new_tokens": 16}),
        # as Video-MME and others write it
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
            {**GREEDY, "max_new_tokens": 16},
        ),
        ({"temperature": 0.0, "do_sample": True}, {**GREEDY, "max_new_tokens": 128}),
        ({"temperature": 0.7, "do_sample": False}, {**GREEDY, "max_new_tokens": 128}),
        ({"num_beams": 3, "top_p": None}, {**GREEDY, "max_new_tokens": 128, "num_beams": 3}),
        (
            {"temperature": 0.7, "top_p": 0.9},
            {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "num_beams": 1, "max_new_tokens": 128},
        ),
        ({"do_sample": True, "top_k": 5}, {"do_sample": True, "top_k": 5, "num_beams": 1, "max_new_tokens": 128}),
        ({"repetition_penalty": 1.2}, {**GREEDY, "max_new_tokens": 128, "repetition_penalty": 1.2}),
        ({"image_aspect_ratio": "original", "max_new_tokens": 8.0}, {**GREEDY, "max_new_tokens": 8}),
    ],
    ids=str,
)
def test_options(asked: dict[str, object], options: dict[str, object]) -> None:
    assert generation_options(asked) == options


def test_length_where_the_task_states_none() -> None:
    assert generation_options({}, 7)["max_new_tokens"] == 7
    assert generation_options({"max_new_tokens": 3}, 7)["max_new_tokens"] == 3


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"max_new_token": 3}, UnknownNameError, "Did you mean 'max_new_tokens'"),
        ({"image_aspect_ratio": "pad"}, InputError, "shown as they are"),
        ({"max_new_tokens": 0}, InputError, "1 or more"),
        ({"num_beams": 1.5}, InputError, "whole number"),
        ({"temperature": -1}, InputError, "0 or more"),
        ({"temperature": "hot"}, InputError, "must be a number"),
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_refused(asked: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        generation_options(asked)


def test_stop_strings() -> None:
    assert stop_strings({}) == stop_strings({"until": None}) == ()
    assert stop_strings({"until": "###"}) == ("###",)
    assert stop_strings({"until": ["\n\n", "Q:"], "stop_sequences": ["\n"]}) == ("\n\n", "Q:", "\n")
    assert stop_strings({"until": ["\n\n", "Q:"]}, blank_line=False) == ("Q:",)
    for wrong in (3, [3], [""]):
        with pytest.raises(InputError, match="list of texts"):
            stop_strings({"until": wrong})


def test_an_answer_ends_at_the_first_stop_string() -> None:
    assert cut(" a red disc. Q: and\n\nthen", ("\n\n", "Q:")) == "a red disc."
    assert cut(" a red disc ", ()) == cut(" a red disc ", ("Q:",)) == "a red disc"
