"""`data=ovobench`: OVO-Bench (arXiv 2501.05510), questions at a certain second of a stream.

The annotation file is a JSON list. Backward and real-time tasks have one question each (`question`, `options`, `gt`:
the number of the right option, `realtime`: the second at which it is asked). The three forward tasks are asked several
times while the video goes on, once per entry of `test_info` (`realtime` and the right answer at that time): REC counts
a motion, SSR says whether a step is being done, CRR whether enough has been seen to answer. Here every one of those
times is a sample of its own, as in the published scoring. Whatever is asked, the video is shown from 0 to that second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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

GROUPS = {
    "backward": ("EPM", "ASI", "HLD"),
    "realtime": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"),
    "forward": ("REC", "SSR", "CRR"),
}
GROUP_OF = {task: group for group, tasks in GROUPS.items() for task in tasks}

# The benchmark's wording: scores are comparable only with what the models are told word for word, slips included.
_SILENT = "Do not include any additional text or explanation in your response."
_CHOICE = (
    "Question: {question}\nOptions:\n{options}\n"
    f"Respond only with the letter corresponding to your chosen option (e.g., A, B, C).\n{_SILENT}"
)
_REC = (
    "You're watching a video in which people may perform a certain type of action repetively.\n"
    "The person performing this kind of action are referred to as 'they' in the following statement.\n"
    "You're task is to count how many times have different people in the video perform this kind of action in total.\n"
    "One complete motion counts as one.\n"
    "Now, answer the following question: How many times did they {activity}?\n"
    f"Provide your answer as a single number (e.g., 0, 1, 2, 3…) indicating the total count.\n{_SILENT}"
)
_SSR = (
    "You're watching a tutorial video which contain a sequential of steps.\n"
    "The following is one step from the whole procedures:\n{step}\n"
    "Your task is to determine if the man or woman in the video is currently performing this step.\n"
    f"Answer only with “Yes” or “No”.\n{_SILENT}"
)
_CRR = (
    "You're responsible of answering questions based on the video content.\n"
    "The following question are relevant to the latest frames, i.e. the end of the video.\n{question}\n"
    "Decide whether existing visual content, especially latest frames, i.e. frames that near the end of the video, "
    "provide enough information for answering the question.\n"
    f"Answer only with “Yes” or “No”.\n{_SILENT}"
)


class OvoBench(Dataset):
    """The annotations of a file; kinds are `<group>_<task>`, and the questions of one video stand together in time.

    Args:
        path: the annotation file.
        videos: the folder of the videos.
        cut: whether it holds clips that end at the question, named after its id, in place of the source videos.
        tasks: those to ask.
    """

    name = "ovobench"
    protocol = "groups"

    def __init__(self, path: Path, videos: Path, cut: bool, tasks: list[str]) -> None:
        problems = Problems()
        found = [item for item in _asked(_annotations(path), problems) if item[0].kind.partition("_")[2] in tasks]
        problems.tell(path)
        if not found:
            raise InputError(f"{path}: no questions of {', '.join(tasks)}.")
        self._paths: dict[str, Path] = {}
        samples = []
        for sample, source in found:
            file = videos / (f"{sample.id}.mp4" if cut else source)
            if cut:  # the file itself ends at the question
                sample = Sample(sample.id, sample.id, sample.question, sample.expected, kind=sample.kind)
            self._paths[sample.id] = file
            samples.append(sample)
        missing = sorted({str(file) for file in self._paths.values() if not file.is_file()})
        if len(missing) == len(set(self._paths.values())):
            raise InputError(
                f"{missing[0]}: no such file, nor any other of its videos; name their folder: data.videos=…"
            )
        first = {str(file): number for number, file in reversed([*enumerate(self._paths.values())])}
        self.samples = sorted(samples, key=lambda s: (first[str(self._paths[s.id])], s.end or 0.0, s.id))

    def path(self, sample: Sample) -> Path:
        return self._paths[sample.id]

    def is_right(self, sample: Sample, reply: str) -> bool:
        """The benchmark's rule: REC by all digits of the reply, the others if it contains the right letter or word.

        (A reply that names every letter would pass; the prompts ask for one alone.)
        """
        if sample.kind.endswith("_REC"):
            return "".join(re.findall(r"\d+", reply)) == sample.expected
        if sample.kind.startswith("forward_") and reply in ("Y", "N"):
            return sample.expected.startswith(reply)
        return sample.expected in reply


def load(data: DictConfig) -> Dataset:
    """The data set of `conf/data/ovobench.yaml`.

    Raises:
        InputError: no file or folder, an unknown task, or annotations of another form, each named with its id.
    """
    tasks = chosen_tasks(data, GROUP_OF)
    path = annotation_file(data, "ovo_bench_new.json")
    return OvoBench(path, video_folder(data, path), bool(data.cut), tasks)


def _annotations(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, list):
        raise InputError(f"{path}: a list of annotations is expected, as in ovo_bench_new.json.")
    return content


def _asked(annotations: list[Any], problems: Problems) -> Iterator[tuple[Sample, str]]:
    """Every question at every time it is asked, with its video's name; what is wrong is noted."""
    seen: set[str] = set()
    for number, row in enumerate(annotations):
        if not isinstance(row, dict):
            problems.append(f"entry {number}: must be an object, got {type(row).__name__}")
            continue
        name = str(row.get("id", f"entry {number}"))
        task, video = row.get("task"), text_of(row, "video")
        if "id" not in row or name in seen:
            problems.append(f"{name}: id: missing, or not the only one")
        seen.add(name)
        if task not in GROUP_OF:
            problems.append(f"{name}: task: {task!r} is none of {', '.join(GROUP_OF)}")
        elif video is None:
            problems.append(f"{name}: video: missing")
        elif GROUP_OF[task] == "forward":
            yield from ((sample, video) for sample in _forward(name, task, video, row, problems))
        elif sample := _choice(name, task, video, row, problems):
            yield sample, video


def _choice(name: str, task: str, video: str, row: Mapping[str, Any], problems: Problems) -> Sample | None:
    question, options, right = text_of(row, "question"), texts_of(row.get("options")), row.get("gt")
    at = seconds_of(row.get("realtime"))
    if question is None:
        problems.append(f"{name}: question: missing")
    elif options is None:
        problems.append(f"{name}: options: must be a list of 2 to 26 texts, got {row.get('options')!r}")
    elif isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(options):
        problems.append(f"{name}: gt: must be the number of an option, 0 to {len(options) - 1}, got {right!r}")
    elif at is None:
        problems.append(f"{name}: realtime: must be seconds, got {row.get('realtime')!r}")
    else:
        listed = "; ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)) + ";"
        return _sample(name, task, video, _CHOICE.format(question=question, options=listed), LETTERS[right], at)
    return None


def _forward(name: str, task: str, video: str, row: Mapping[str, Any], problems: Problems) -> Iterator[Sample]:
    tests = row.get("test_info")
    if not isinstance(tests, list) or not tests:
        problems.append(f"{name}: test_info: must be a list of the times at which it is asked")
        return
    for number, test in enumerate(tests):
        where = f"{name}: test_info[{number}]"
        at = seconds_of(test.get("realtime")) if isinstance(test, dict) else None
        if at is None:
            problems.append(f"{where}.realtime: must be seconds")
            continue
        asker, key = {"REC": (row, "activity"), "SSR": (test, "step"), "CRR": (row, "question")}[task]
        what, right = text_of(asker, key), test.get("count" if task == "REC" else "type")
        if what is None:
            problems.append(f"{where}: {key}: missing")
        elif isinstance(right, bool) or not isinstance(right, int) or right < 0 or (task != "REC" and right > 1):
            wanted = "count: must be a whole number" if task == "REC" else "type: must be 0 or 1"
            problems.append(f"{where}.{wanted}, got {right!r}")
        else:
            prompt = {"REC": _REC, "SSR": _SSR, "CRR": _CRR}[task].format(**{key: what})
            answer = str(right) if task == "REC" else ("No", "Yes")[right]
            yield _sample(f"{name}_{number}", task, video, prompt, answer, at)


def _sample(name: str, task: str, video: str, prompt: str, answer: str, at: float) -> Sample:
    """The options stand in the prompt, so the answer is a text: a letter, a number, Yes or No."""
    return Sample(name, f"{video}[0-{at}]", prompt, answer, kind=f"{GROUP_OF[task]}_{task}", end=until(at))
