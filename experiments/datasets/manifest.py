"""`data=manifest`: questions of one's own, in a JSONL or CSV file with one question per row.

Fields: `video` (path, from the manifest's folder if relative), `question`, `answer`; and if wanted `options` (JSON: a
list; CSV: separated by `|`), `kind`, `start` and `end` (seconds), `id`. With options the answer is one of them, or its
letter. Every bad row is named before anything runs.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from compressors.errors import InputError
from experiments.datasets.sample import Dataset, Sample
from experiments.scoring import LETTERS, normal

REQUIRED = ("video", "question", "answer")
FIELDS = (*REQUIRED, "options", "kind", "start", "end", "id")
SHOWN = 20  # bad rows spelled out in an error


class Manifest(Dataset):
    """The rows of a file, those of one video together."""

    name = "manifest"

    def __init__(self, path: Path) -> None:
        self.file = path
        problems: list[str] = []
        found: list[tuple[Sample, Path]] = []
        for line, row in _rows(path, problems):
            sample = _sample(row, line, path, problems)
            if sample is not None:
                found.append(sample)
        for name, times in Counter(sample.id for sample, _ in found).items():
            if times > 1:
                problems.append(f"{path}: id: {name!r} stands {times} times; ids must differ")
        if problems:
            more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise InputError("the manifest cannot be used:\n" + "\n".join(problems[:SHOWN]) + more)
        if not found:
            raise InputError(f"{path}: no rows; write one question per row with the fields {', '.join(REQUIRED)}.")
        first = {video: number for number, video in reversed([*enumerate(sample.video for sample, _ in found)])}
        self.samples = sorted((sample for sample, _ in found), key=lambda sample: first[sample.video])
        self._paths = {sample.video: file for sample, file in found}

    def path(self, sample: Sample) -> Path:
        return self._paths[sample.video]


def load(data: DictConfig) -> Dataset:
    """The data set of `conf/data/manifest.yaml`.

    Raises:
        InputError: no file, or bad rows, each named with file, line and field.
    """
    if not data.path:
        raise InputError("data=manifest needs a file: data.path=questions.jsonl (or .csv).")
    path = Path(str(data.path)).expanduser()
    if not path.is_file():
        raise InputError(f"data.path={data.path}: no such file.")
    if path.suffix.lower() not in (".jsonl", ".csv"):
        raise InputError(f"data.path={data.path}: write a .jsonl or a .csv file.")
    return Manifest(path)


def _rows(path: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers and fields; lines that cannot be read are noted."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file)
                missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
                if missing:
                    problems.append(f"{path}:1: {', '.join(missing)}: no such column; the first line names the columns")
                    return
                for row in reader:
                    if None in row:
                        problems.append(f"{path}:{reader.line_num}: more cells than columns (quote cells with commas)")
                    else:
                        yield reader.line_num, {name: value for name, value in row.items() if value not in ("", None)}
                return
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    content = json.loads(text)
                except json.JSONDecodeError as error:
                    problems.append(f"{path}:{line}: not JSON ({error.msg} at column {error.colno})")
                    continue
                if isinstance(content, dict):
                    yield line, {name: value for name, value in content.items() if value is not None}
                else:
                    problems.append(f"{path}:{line}: a row must be an object with fields, not {type(content).__name__}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8 text (byte {error.start})")
    except csv.Error as error:
        problems.append(f"{path}: not CSV ({error})")


def _sample(row: Mapping[str, Any], line: int, path: Path, problems: list[str]) -> tuple[Sample, Path] | None:
    """A row as a sample with its video's file; None if something is wrong, which is noted."""
    before = len(problems)

    def bad(field: str, what: str) -> None:
        problems.append(f"{path}:{line}: {field}: {what}")

    def text(field: str) -> str:
        value = row.get(field)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            bad(field, "missing" if value is None else f"must be a text that is not empty, got {value!r}")
            return ""
        return value.strip()

    unknown = sorted(set(row) - set(FIELDS))
    for name in unknown:
        bad(name, f"no such field; fields are {', '.join(FIELDS)}")
    video, question, answer = (text(name) for name in REQUIRED)
    file = Path(video).expanduser()
    file = file if file.is_absolute() else path.parent / file
    if video and not file.is_file():
        bad("video", f"{video}: no such file")
    options = _options(row.get("options"), bad)
    if options is not None and answer:
        number = LETTERS.find(answer.upper()) if len(answer) == 1 else -1
        by_letter = options[number] if 0 <= number < len(options) else None
        if answer not in options and by_letter is None:
            bad("answer", f"{answer!r} is none of the options {list(options)}")
        elif answer in options and by_letter not in (None, answer):
            bad("answer", f"{answer!r} is both an option and the letter of another, {by_letter!r}; write it in full")
        elif by_letter is not None:
            answer = by_letter
    start, end = (_seconds(row.get(name), name, bad) for name in ("start", "end"))
    if (start or 0) >= (math.inf if end is None else end):
        bad("end", f"{end} is not after the start ({start or 0})")
    if len(problems) > before:
        return None
    span = "" if start is None and end is None else f"[{start or 0}-{'' if end is None else end}]"
    name = str(row.get("id", f"{path.name}:{line}"))
    kind = str(row.get("kind", "all"))
    return Sample(name, f"{file.resolve()}{span}", question, answer, options, kind, start, end), file


def _options(value: Any, bad: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    items = value.split("|") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, (str, int, float)) for item in items):
        bad("options", f"must be a list of texts (in CSV separated by |), got {value!r}")
        return None
    options = tuple(str(item).strip() for item in items)
    if not 2 <= len(options) <= len(LETTERS) or len(set(map(normal, options))) < len(options) or not all(options):
        bad(
            "options",
            f"must be 2 to {len(LETTERS)} texts that differ in more than case and articles, got {list(options)}",
        )
        return None
    return options


def _seconds(value: Any, field: str, bad: Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not (math.isfinite(seconds) and seconds >= 0):
        bad(field, f"must be seconds, 0 or more, got {value!r}")
        return None
    return seconds
