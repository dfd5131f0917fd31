"""Answers on disk: nothing that was written is lost, and no two runs are mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compressors.errors import InputError
from experiments.journal import Journal


def test_a_stopped_run_is_taken_up(tmp_path: Path) -> None:
    def line(name: str, error: str | None = None) -> dict[str, Any]:
        return {"run": "x", "id": name, "error": error}

    with Journal(tmp_path, {"seed": 1}, "abc") as journal:
        journal.append([line("a"), line("ü", "lost")])
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write(b'{"id": "b", "answ')  # stopped in the middle of a line
    with Journal(tmp_path, {"seed": 1}) as journal:
        assert [line["id"] for line in journal.lines] == ["a", "ü"]
        assert journal.done == {("x", "a")}, "what failed is tried again"
        journal.append([line("b"), line("ü")])
    lines = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "ü", "b", "ü"]
    with Journal(tmp_path, {"seed": 1}, "def") as journal:
        assert [line["error"] for line in journal.lines] == [None, None, None], "the latest line counts"
        assert journal.commits == ["abc", None, "def"]


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path, {}), pytest.raises(InputError, match="another process is writing here"):
        Journal(tmp_path, {})
    Journal(tmp_path, {})


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "file", {})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: not the record of a run"):
        Journal(tmp_path, {})


def test_another_run_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    with Journal(tmp_path, {"config": {"retention": 0.1, "seed": (1, 2)}}) as journal:
        journal.append([{"run": "x", "id": "a", "error": None}])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"another run \(config\.retention: 0\.1 there, 0\.2 here\)"):
        Journal(tmp_path, {"config": {"retention": 0.2, "seed": (1, 2)}})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    Journal(tmp_path, {"config": {"retention": 0.1, "seed": (1, 2)}})


def test_files_that_are_no_journal_are_refused(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("hello\n")
    with pytest.raises(InputError, match=r"without run\.json"):
        Journal(tmp_path, {})
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"samples\.jsonl:1: not a line"):
        Journal(tmp_path, {})
    assert (tmp_path / "samples.jsonl").read_text() == "hello\n"
