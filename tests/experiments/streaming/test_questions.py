"""Questions from settings and files, and the inbox."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from compressors.errors import InputError
from experiments.stream import all_questions, clip_questions
from experiments.streaming.questions import Asked, Inbox, Question, Refused, questions_from, read_questions
from tests.conf.composing import composed

YAML = """
- {at: 12.5, question: "What is happening?"}
- question: At the end?
- {at: 3, question: "First?", expected: 3, max_new_tokens: 8}
"""
LINES = """
{"at": 12.5, "question": "What is happening?"}
{"question": "At the end?"}

{"at": 3, "question": "First?", "expected": "3", "max_new_tokens": 8}
"""
FOUND = [
    Question("First?", 3.0, "file", "3", 8),
    Question("What is happening?", 12.5, "file"),
    Question("At the end?", math.inf, "file"),
]


@pytest.mark.parametrize(("name", "text"), [("q.yaml", YAML), ("q.jsonl", LINES)])
def test_a_file_in_the_order_of_its_times(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_questions(path) == FOUND


def test_questions_at_one_time_stay_in_order() -> None:
    texts = ["b", "a", "c"]
    assert [question.text for question in questions_from([{"at": 1, "question": t} for t in texts], "", "")] == texts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("at: 3", "write a list"),
        ("[]", "write a list"),
        ("- {at: 3, question: [}", "neither YAML nor JSON lines"),
        ("- {at: 3}", "question 1: question must be a text"),
        ("- {question: a}\n- {question: a, when: 3}", "question 2: unknown when; known are at, expected"),
        ("- {question: a, at: -1}", "at=-1 must be seconds"),
        ("- {question: a, at: .inf}", "at=inf must be seconds"),
        ("- {question: a, at: true}", "at=True must be seconds"),
        ("- {question: a, max_new_tokens: 0}", "max_new_tokens=0 must be"),
        ("- just text", "a question is a mapping"),
        (f"- question: {'a' * 5000}", "at most 4000 characters, this one has 5000"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_questions(path)
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read \(No such file"):
        read_questions(tmp_path / "none.yaml")


def asked(*overrides: str, typing: bool = False) -> list[tuple[str, Any]]:
    cfg = composed("task=stream", *overrides)
    return [(question.text, question.at) for question in all_questions(cfg, typing=typing)]


def test_what_is_asked_when_nothing_is_said() -> None:
    assert asked() == [(question.text, question.at) for question in clip_questions()]
    assert all(question.expected for question in clip_questions())
    assert not any(question.expected for question in clip_questions(known=False)), "where it is not shown as it is"
    assert asked("source=file") == [("Describe the video.", math.inf)]
    assert asked("source=file", typing=True) == []
    assert asked("source=file", "serve.port=0") == []


def test_what_is_asked_when_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(YAML)
    assert asked(f"questions={path}", "question=Last?")[-2:] == [("At the end?", math.inf), ("Last?", math.inf)]
    assert asked("questions=[{at: 1, question: One?}]") == [("One?", 1.0)]
    assert asked("question=Only?") == [("Only?", math.inf)]
    with pytest.raises(InputError, match="question 1: question must be a text"):
        asked("question=''")


def test_an_inbox_hands_out_in_order_and_closes() -> None:
    inbox = Inbox(3)
    first, second, third = (Asked(Question(text), time.monotonic()) for text in "abc")
    for one in (first, second, third):
        inbox.put(one)
    with pytest.raises(Refused, match="3 questions wait already"):
        inbox.put(first)
    assert inbox.take() is first
    second.answered.cancel()
    assert inbox.take() is third, "nobody waits for the second"
    assert inbox.take() is None
    fourth = Asked(Question("d"), 0.0)
    inbox.put(fourth)
    inbox.close()
    with pytest.raises(Refused, match="ended before"):
        fourth.answered.result(0)
    with pytest.raises(Refused, match="has ended"):
        inbox.put(first)
