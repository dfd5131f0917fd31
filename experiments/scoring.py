"""Whether an answer is right."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from experiments.datasets.sample import LETTERS, Sample

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LETTER = re.compile(r"(?:answer|option|choice)?(?: is)?:?\s*\(?([a-z])\)?(?:[.:,)]|\s|$)", re.IGNORECASE)


def is_right(sample: Sample, answer: str) -> bool:
    """Whether a model's reply answers a sample rightly.

    A free answer counts if it equals the expected one up to case, punctuation, articles and spaces. With options, the
    reply's letter decides ("B", "(b)", "B. The red one", "Answer: B"), or the text of exactly one option; anything else
    is wrong.
    """
    if sample.options is None:
        return normal(answer) == normal(sample.expected)
    return chosen(answer, sample.options) == sample.expected


def chosen(answer: str, options: Sequence[str]) -> str | None:
    """The option that a reply names, or None."""
    for option in options:
        if normal(answer) == normal(option):
            return option
    letter = _LETTER.match(answer.strip())
    article = re.match(r"a\s+\w", answer.strip(), re.IGNORECASE)  # "A red one" does not begin with a letter
    if letter and not article and (number := LETTERS.find(letter[1].upper())) < len(options):
        return options[number]
    words = f" {normal(answer)} "
    named = [option for option in options if f" {normal(option)} " in words]
    return named[0] if len(named) == 1 else None


def normal(text: str) -> str:
    """Lower case, without punctuation, articles and extra spaces."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(_ARTICLES.sub(" ", plain).split()) or " ".join(plain.split())
