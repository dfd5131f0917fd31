"""Which code made a result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from experiments import results


def git(folder: Path, *arguments: str) -> str:
    options = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", folder, *options, *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose code is the running code, as far as `commit` sees."""
    code = tmp_path / "experiments" / "results.py"
    code.parent.mkdir()
    code.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "__file__", str(code))
    return tmp_path


def test_the_commit_of_a_checkout(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    name = results.commit()
    assert name is not None
    assert len(name) >= 7
    assert head.startswith(name)
    (checkout / "outputs").mkdir()
    (checkout / "outputs" / "result.json").write_text("{}")
    assert results.commit() == name, "results are not code"
    (checkout / "experiments" / "new.py").write_text("")
    assert results.commit() == f"{name} with changes"


def test_changed_code(checkout: Path) -> None:
    (checkout / "experiments" / "results.py").write_text("changed")
    assert str(results.commit()).endswith(" with changes")


def test_a_copy_in_another_checkout_has_no_commit(checkout: Path) -> None:
    git(checkout, "rm", "-q", "--cached", "experiments/results.py")
    assert results.commit() is None


def test_outside_a_checkout_and_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert results.commit() is None
    monkeypatch.undo()
    monkeypatch.setattr(results, "ROOT", Path("/"))
    assert results.commit() is None
