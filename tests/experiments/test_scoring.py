"""When an answer counts as right."""

from __future__ import annotations

import pytest

from experiments.datasets import Sample
from experiments.scoring import is_right

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
    "answer", ["B", "b", "B.", "(B)", "B: a cross", "b) a cross", "Answer: B", "The cross", "It is a cross, I think."]
)
def test_options_by_letter_or_text(answer: str) -> None:
    assert is_right(Sample("1", "v", "Which?", "a cross", OPTIONS), answer)


@pytest.mark.parametrize("answer", ["A", "C", "E", "", "Both a cross and red", "I do not know", "crossing", "Bring it"])
def test_everything_else_is_wrong(answer: str) -> None:
    assert not is_right(Sample("1", "v", "Which?", "a cross", OPTIONS), answer)


def test_an_article_is_no_letter() -> None:
    options = ("blue", "a red one")
    assert is_right(Sample("1", "v", "Which?", "a red one", options), "A red one")
