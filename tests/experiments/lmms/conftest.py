"""A stand-in for lmms-eval's few classes that `experiments.lmms.models` builds on, so that its tests run without it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class lmms:
    """The base class."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    def clean(self) -> None:
        self.cleaned = True


@dataclass
class TokenCounts:
    input_tokens: int
    output_tokens: int


@dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`experiments.lmms.models` on the stand-in; `.logged` has what went to the log and the throughput."""
    logged: list[Any] = []

    def write(text: str, *values: Any) -> None:
        logged.append(text.format(*values))

    contents: dict[str, dict[str, Any]] = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.api.instance": {"GenerationResult": GenerationResult, "TokenCounts": TokenCounts},
        "lmms_eval.models": {},
        "lmms_eval.models.model_utils": {},
        "lmms_eval.models.model_utils.gen_metrics": {"log_metrics": lambda *values: logged.append(values)},
        "loguru": {"logger": SimpleNamespace(info=write, warning=write)},
    }
    for name, attributes in contents.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "experiments.lmms.models", raising=False)
    module = importlib.import_module("experiments.lmms.models")
    monkeypatch.setitem(sys.modules, "experiments.lmms.models", module)  # and away with it afterwards
    module.logged = logged  # type: ignore[attr-defined]
    return module
