"""The samples of a run, appended as they are answered, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from compressors.errors import InputError
from experiments.results import write_json


class Journal:
    """`samples.jsonl` of a folder, and beside it `run.json`, which says what is being run.

    Args:
        folder: made if it is not there.
        identity: whatever decides the answers; a folder with another identity is refused.

    Attributes:
        lines: what was answered before, in order.

    Raises:
        InputError: the folder holds another run, or a file that is no journal.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.path = folder / "samples.jsonl"
        self.lines: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        told = folder / "run.json"
        if told.exists():
            _refuse_another(folder, json.loads(told.read_text(encoding="utf-8")), json.loads(json.dumps(identity)))
        elif self.path.exists():
            raise InputError(f"{self.path} exists without run.json: give another folder.")
        write_json(told, identity)
        self._file = self.path.open("a+b")
        self._take_up()

    def _take_up(self) -> None:
        """Read what is there; a last line that was being written when the run was stopped is cut off."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            try:
                if not line.endswith(b"\n"):
                    break
                self.lines.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{self.path}:{number}: not a line of a journal ({error}).") from error
            whole += len(line)
        self._file.truncate(whole)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write lines; when this returns they survive the end of the process."""
        new = [dict(line) for line in lines]
        self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in new).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines += new

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


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
