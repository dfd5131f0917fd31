"""Whether an answer is right."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.datasets.sample import Sample

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ARTICLE = re.compile(r"^(a|an|the)\s+(?=\w)")
_QUOTES = "\"'`*_“”‘’ \n\t"
_BEFORE = r"^(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:answer|option|choice)?\s*(?:is|:)?\s*"
_STATED = re.compile(rf"{_BEFORE}[*\"'`(\[]*([a-z])[*\"'`)\]]*(?=$|[.:,;)\]])", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:answer|option|choice)\s*(?:is|:)?\s*[*\"'`(\[]*([b-z])\b(?!['’])", re.IGNORECASE)
_LETTER_IS = re.compile(r"^\(?([b-z])\)? is (?:correct|right)|^\(?(a)\)? is (?:correct|right)", re.IGNORECASE)


def is_right(sample: Sample, answer: str) -> bool:
    """Whether a model's reply answers a sample rightly.

    A free answer counts if it equals the expected one up to case, punctuation around words, a leading article and
    spaces. With options, a letter that is stated as the answer decides ("B", "(b)", "**B.** The red one", "The answer
    is B"), else the text of exactly one option; several letters, several options and anything else are wrong.
    """
    if sample.options is None:
        return normal(answer) == normal(sample.expected)
    return chosen(answer, sample.options) == sample.expected


def chosen(answer: str, options: Sequence[str]) -> str | None:
    """The option that a reply names, or None."""
    plain = answer.strip(_QUOTES)
    letter = _STATED.search(plain) or _LETTER_IS.search(plain) or _NAMED.search(plain)
    if letter and len(plain.strip("().[] ")) == 1:  # a letter alone was asked for, whatever the options say
        return _at(letter, options)
    for option in options:
        if plain.casefold() == option.casefold():
            return option
    for option in options:
        if normal(plain) == normal(option):
            return option
    if letter:
        return _at(letter, options)
    words = f" {normal(plain)} "
    named = [option for option in options if f" {normal(option)} " in words]
    # "dark red" names "dark red", not "red".
    longest = [o for o in named if not any(o is not p and f" {normal(o)} " in f" {normal(p)} " for p in named)]
    return longest[0] if len(longest) == 1 else None


def normal(text: str) -> str:
    """Lower case, without punctuation around words, a leading article and extra spaces; numbers keep sign and point."""
    words = (_bare(word) for word in text.lower().split())
    return _ARTICLE.sub("", " ".join(word for word in words if word))


def _bare(word: str) -> str:
    kept = word.strip(string.punctuation + "“”‘’")
    return f"-{kept}" if kept[:1].isdigit() and re.match(r"^[^\w]*[-−–]", word) else kept


def _at(letter: re.Match[str], options: Sequence[str]) -> str | None:
    number = LETTERS.find(next(group for group in letter.groups() if group).upper())
    return options[number] if number < len(options) else None
