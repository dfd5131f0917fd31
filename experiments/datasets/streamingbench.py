"""`data=streamingbench`: StreamingBench's real-time visual understanding (arXiv 2411.03628), 2500 questions.

The CSV has one question per row: `question_id` (`…_sample_<n>_<m>`: question m about `sample_<n>/video.mp4`),
`task_type`, `question`, `time_stamp` (`H:M:S`: when it is asked), `answer` (a letter), `options` (a list written as in
Python, with or without letters). The video is shown from 0, or from `context` seconds before, to that time.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from compressors.errors import InputError
from experiments.datasets.published import (
    Problems,
    annotation_file,
    chosen_tasks,
    seconds_of,
    text_of,
    texts_of,
    until,
    video_folder,
)
from experiments.datasets.sample import Dataset, Sample
from experiments.scoring import LETTERS

COLUMNS = ("question_id", "task_type", "question", "time_stamp", "answer", "options")

# The benchmark's wording: scores are comparable only with what the models are told word for word.
_PROMPT = (
    "You are an advanced video question-answering AI assistant. You have been provided with some frames from the video "
    "and a multiple-choice question related to the video. Your task is to carefully analyze the video and provide the "
    "best answer to question, choosing from the four options provided. Respond with only the letter (A, B, C, or D) of "
    "the correct option.\n\nQuestion: {question}\n\nOptions:\n{options}\n\nThe best option is:"
)


class StreamingBench(Dataset):
    """The rows of the CSV; kinds are the task types, and the questions of one video stand together in time.

    Args:
        path: the CSV.
        videos: the folder with `sample_<n>/video.mp4`.
        context: seconds shown before a question; None is all from the start.
        data: the settings, for the choice of tasks.
    """

    name = "streamingbench"
    protocol = "questions"

    def __init__(self, path: Path, videos: Path, context: float | None, data: DictConfig) -> None:
        problems = Problems()
        found = [sample for line, row in _rows(path) if (sample := _sample(row, line, context, problems))]
        problems.tell(path)
        if not found:
            raise InputError(f"{path}: no rows.")
        if len({sample.id for sample in found}) < len(found):
            raise InputError(f"{path}: question_id: some stand more than once; ids must differ.")
        tasks = chosen_tasks(data, list(dict.fromkeys(sample.kind for sample in found)))
        self._folder = videos
        if not any(self.path(sample).is_file() for sample in found):
            raise InputError(
                f"{self.path(found[0])}: no such file, nor any other video; name their folder: data.videos=…"
            )
        order = {name: number for number, name in enumerate(dict.fromkeys(map(_number, found)))}
        asked = (sample for sample in found if sample.kind in tasks)
        self.samples = sorted(asked, key=lambda sample: (order[_number(sample)], sample.end or 0.0))

    def path(self, sample: Sample) -> Path:
        return self._folder / f"sample_{_number(sample)}" / "video.mp4"

    def is_right(self, sample: Sample, reply: str) -> bool:
        """The benchmark's rule: the reply's first character is the right letter."""
        return reply.strip()[:1] == sample.expected


def load(data: DictConfig) -> Dataset:
    """The data set of `conf/data/streamingbench.yaml`.

    Raises:
        InputError: no file or folder, an unknown task, a wrong number, or rows of another form, named with their lines.
    """
    path = annotation_file(data, "Real_Time_Visual_Understanding.csv")
    context: Any = data.context
    if context is not None and (isinstance(context, bool) or not isinstance(context, (int, float)) or context <= 0):
        raise InputError(f"data.context={context} must be seconds, above 0; null shows all from the start.")
    return StreamingBench(path, video_folder(data, path), context, data)


def _rows(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise InputError(f"{path}: no column {', '.join(missing)}, as Real_Time_Visual_Understanding.csv has.")
            return [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}).") from error


def _sample(row: Mapping[str, Any], line: int, context: float | None, problems: Problems) -> Sample | None:
    """A row as a sample; None if something is wrong, which is noted."""
    name, kind, question = (text_of(row, key) or "" for key in ("question_id", "task_type", "question"))
    at, answer = seconds_of(row.get("time_stamp")), text_of(row, "answer")
    try:
        options = texts_of(ast.literal_eval(row.get("options") or ""))
    except (ValueError, SyntaxError):
        options = None
    if not re.search(r"sample_\d+_\d+$", name):
        problems.append(f"{line}: question_id: {name!r} does not end in sample_<video>_<question>")
    elif not kind or not question:
        problems.append(f"{line}: {'task_type' if not kind else 'question'}: missing")
    elif at is None:
        problems.append(f"{line}: time_stamp: {row.get('time_stamp')!r} is not hours:minutes:seconds")
    elif options is None:
        problems.append(f"{line}: options: must be a list of texts as Python writes it, got {row.get('options')!r}")
    elif answer is None or answer not in LETTERS[: len(options)]:
        problems.append(f"{line}: answer: {answer!r} is not the letter of an option")
    else:
        if not options[0].startswith("A."):
            options = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
        prompt = _PROMPT.format(question=question, options="\n".join(options))
        sample = Sample(name, f"{name.rpartition('_')[0]}[0-{at}]", prompt, answer, kind=kind, end=until(at))
        if context is None or context >= at:
            return sample
        return dataclasses.replace(sample, video=f"{name.rpartition('_')[0]}[{at - context}-{at}]", start=at - context)
    return None


def _number(sample: Sample) -> str:
    """The number of a sample's video."""
    return sample.id.split("_")[-2]
