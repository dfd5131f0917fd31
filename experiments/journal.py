"""The samples of a run, appended as they are answered, so that a stopped run goes on where it was."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from compressors.errors import InputError
from experiments.datasets.sample import Sample
from experiments.results import write_json


class Journal:
    """`samples.jsonl` of a folder, and beside it `run.json`, which says what is being run.

    Args:
        folder: made if it is not there.
        identity: whatever decides the answers; a folder with another identity is refused.
        commit: of the code that goes on now; all that had a part in the run are in `commits`.

    Raises:
        InputError: the folder cannot be written, holds another run or a file that is no journal, or another process is
            writing into it.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], commit: str | None = None) -> None:
        self.path = folder / "samples.jsonl"
        self._latest: dict[tuple[str, str], dict[str, Any]] = {}
        self.commits: list[str | None] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("ab")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another process is writing here; wait for it, or give another folder."
            ) from None
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}): give another folder.") from error
        self._lock = lock  # held as long as it is open
        try:
            self._open(folder, identity, commit)
        except BaseException:
            lock.close()
            raise

    def _open(self, folder: Path, identity: Mapping[str, Any], commit: str | None) -> None:
        told = folder / "run.json"
        if told.exists():
            try:
                before = json.loads(told.read_text(encoding="utf-8"))
                self.commits = before.pop("commits", [])
            except (ValueError, AttributeError) as error:
                raise InputError(f"{told}: not the record of a run ({error}): give another folder.") from error
            _refuse_another(folder, before, json.loads(json.dumps(identity)))
        elif self.path.exists():
            raise InputError(f"{self.path} exists without run.json: give another folder.")
        self.commits += [commit] if commit not in self.commits else []
        write_json(told, {**identity, "commits": self.commits})
        self._file = self.path.open("a+b")
        try:
            self._take_up()
        except BaseException:
            self._file.close()
            raise

    def _take_up(self) -> None:
        """Read what is there; a last line that was being written when the run was stopped is cut off."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            try:
                if not line.endswith(b"\n"):
                    break
                self._note(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f"{self.path}:{number}: not a line of a journal ({error}).") from error
            whole += len(line)
        self._file.truncate(whole)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write lines; when this returns they survive the end of the process."""
        new = [dict(line) for line in lines]
        self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in new).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        for line in new:
            self._note(line)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """One line per run and sample, the latest: a sample that failed may have been tried again."""
        return list(self._latest.values())

    @property
    def done(self) -> set[tuple[str, str]]:
        """(run, id) of every sample that was answered; those that failed are tried again."""
        return {key for key, line in self._latest.items() if line["error"] is None}

    def _note(self, line: dict[str, Any]) -> None:
        self._latest[line["run"], line["id"]] = line

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.close()


def line_of(run: str, sample: Sample, video: str | None = None) -> dict[str, Any]:
    """What every line begins with: the run and the sample.

    Args:
        run: the method's name.
        sample: the question.
        video: what is shown, if that is not the sample's own clip: questions about one video are not independent.
    """
    shown = sample.video if video is None else video
    return {"run": run, "id": sample.id, "video": shown, "kind": sample.kind, "expected": sample.expected}


def failed_line(run: str, sample: Sample, error: Exception, video: str | None = None) -> dict[str, Any]:
    """The line of a sample that could not be answered."""
    nothing: dict[str, Any] = {"answer": None, "right": None, "visual": 0, "kept": 0, "seconds": {}}
    return {**line_of(run, sample, video), **nothing, "error": str(error)}


def _refuse_another(folder: Path, before: Any, now: Any) -> None:
    differing = list(_differences(before, now, ""))
    if differing:
        raise InputError(
            f"{folder} holds another run ({'; '.join(differing[:3])}): give another folder, or repeat that run's "
            f"settings to go on with it."
        )


def _differences(before: Any, now: Any, key: str) -> Iterable[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}".strip("."))
    elif before != now:
        yield f"{key}: {before} there, {now} here"
