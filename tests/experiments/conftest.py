"""Running the command line in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    folder: Path


Command = Callable[..., Outcome]


@pytest.fixture
def vidpress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """`vidpress(*arguments)` is `python run.py *arguments` in an empty folder."""
    import run

    monkeypatch.chdir(tmp_path)
    for variable in ("HYDRA_FULL_ERROR", "VIDPRESS_ONE_LINE_ERRORS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(variable, "")  # so that what the command line sets is undone
        monkeypatch.delenv(variable)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        code = 0
        try:
            run.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return Outcome(code, out, err, tmp_path)

    yield call
    root.handlers[:] = handlers  # Hydra configures logging for the whole process
    root.setLevel(level)
