"""`task=lmms_eval`: settings that cannot be followed are refused before lmms-eval is looked for."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from experiments.lmms_eval import _scores
from tests.experiments.conftest import Command


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ((), "write a list of lmms-eval's tasks"),
        (("task.tasks=videomme",), "write a list of lmms-eval's tasks"),
        (("video=a.mp4",), "a benchmark brings its own"),
        (("question=what?",), "a benchmark brings its own"),
        (("frames=8", "fps=1"), "give one of them"),
        (("task.tasks=[a]", "task.batch=0"), "task.batch=0 must be a whole number"),
        (("task.tasks=[a]", "task.limit=0"), "task.limit=0 must be a number above 0"),
        (("task.tasks=[a]", "+task.generation.max_tokens=8"), "Did you mean 'max_new_tokens'"),
        (("task.tasks=[a]", "model=qwen2vl", "model.weights=random"), "random answers no benchmark"),
        (("task.tasks=[a]", "retention=2"), "outside (0, 1]"),
    ],
    ids=str,
)
def test_refused(vidpress: Command, settings: tuple[str, ...], text: str) -> None:
    code, _, err, _ = vidpress("task=lmms_eval", *settings)
    assert code == 2
    assert text in err


def test_without_lmms_eval_an_error_names_the_extra(vidpress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "util", SimpleNamespace(find_spec=lambda _: None))
    code, _, err, _ = vidpress("task=lmms_eval", "task.tasks=[videomme]")
    assert code == 2
    assert "pip install 'vidpress[eval]'" in err


def test_scores_of_lmms_eval_by_metric() -> None:
    scores = {
        "alias": "a",
        "acc,none": 0.5,
        "acc_stderr,none": 0.1,
        "acc_stderr_clt,none": 0.2,
        "acc,strict": 0.25,
        "f1,none": 1,
        "f1_stderr,none": "N/A",
    }
    found = {"results": {"a": scores}, "n-samples": {"a": {"effective": 4}}}
    assert _scores(found, "a") == {
        "metrics": {
            "acc": {"value": 0.5, "stderr": 0.1},
            "acc,strict": {"value": 0.25, "stderr": None},
            "f1": {"value": 1, "stderr": None},
        },
        "documents": 4,
    }
