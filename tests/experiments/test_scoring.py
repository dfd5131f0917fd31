"""When an answer counts as right."""

from __future__ import annotations

import pytest

from experiments.datasets import Sample
from experiments.scoring import chosen, is_right

OPTIONS = ("a red ring", "a cross", "red", "beginning of the clip")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("ring", True), ("Ring.", True), ("the ring", True), (" RING\n", True), ("rings", False), ("", False)],
)
def test_free_answers(answer: str, right: bool) -> None:
    assert is_right(Sample("1", "v", "Which?", "ring"), answer) is right


def test_an_article_may_be_the_answer() -> None:
    assert is_right(Sample("1", "v", "Which word?", "the"), "The")
    assert not is_right(Sample("1", "v", "Which word?", "the"), "an")


@pytest.mark.parametrize(
    "answer",
    [
        *("B", "b", "B.", "(B)", "B: a cross", "b) a cross", "Answer: B", "The cross", "It is a cross, I think."),
        *("The answer is B", "The correct answer is B.", "Final answer: B", "**B**", "[B]", "'B'", "B is correct"),
        *("Option B", "Answer: **B**. A cross", "I would say option B, because"),
    ],
)
def test_options_by_letter_or_text(answer: str) -> None:
    assert is_right(Sample("1", "v", "Which?", "a cross", OPTIONS), answer)


@pytest.mark.parametrize(
    "answer",
    ["A", "C", "E", "", "Both a cross and red", "I do not know", "crossing", "B or C", "I see B", "A cat"],
)
def test_everything_else_is_wrong(answer: str) -> None:
    assert not is_right(Sample("1", "v", "Which?", "a cross", OPTIONS), answer)


@pytest.mark.parametrize(
    ("answer", "options", "expected"),
    [
        ("It is dark red", ("red", "dark red"), "dark red"),
        ("1", ("-1", "1"), "1"),
        ("-5", ("5", "-5"), "-5"),
        ("3.5", ("35", "3.5"), "3.5"),
        ("2:30", ("23:0", "2:30"), "2:30"),
        ("Answer is a cat", ("a dog", "a cat"), "a cat"),
        ("A", ("B", "A"), "B"),
        ("C++", ("D", "C++", "E"), "C++"),
    ],
)
def test_options_that_are_nearly_the_same(answer: str, options: tuple[str, ...], expected: str) -> None:
    assert chosen(answer, options) == expected


def test_free_answers_keep_their_numbers() -> None:
    for asked, said in (("5", "-5"), ("3.5", "35"), ("vitamin a", "vitamin")):
        assert not is_right(Sample("1", "v", "?", asked), said)
        assert is_right(Sample("1", "v", "?", asked), asked.upper() + ".")


def test_an_article_is_no_letter() -> None:
    options = ("blue", "a red one")
    assert is_right(Sample("1", "v", "Which?", "a red one", options), "A red one")
