"""The real lmms-eval, its command line and ours, on the example task and the embedded model."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from adapters.micro import load_micro
from adapters.prompting import answer, prompt
from adapters.video import read_video
from vidpress import press

ROOT = Path(__file__).parents[3]
RUN = str(ROOT / "run.py")
TASK = Path("examples") / "lmms_task"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="the `eval` extra is not installed"),
    pytest.mark.skipif(
        "vidpress" not in entry_points(group="lmms_eval.models").names,
        reason="vidpress is not installed, so lmms-eval does not find its entry point",
    ),
]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example task and its clips."""
    folder = tmp_path_factory.mktemp("lmms")
    shutil.copytree(ROOT / TASK, folder / TASK, ignore=shutil.ignore_patterns("data", "__pycache__"))
    command = [sys.executable, str(TASK / "make_clips.py")]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """`run(*arguments)` is `python *arguments` in that folder, without a network."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return call


@pytest.fixture(scope="module")
def theirs(folder: Path, run: Run) -> Callable[..., tuple[float, dict[int, dict[str, Any]], dict[str, Any]]]:
    """`lmms-eval --model vidpress_micro`: accuracy, samples by document, and everything it wrote."""

    def call(arguments: str, *options: str) -> tuple[float, dict[int, dict[str, Any]], dict[str, Any]]:
        output = folder / arguments.replace(",", "_").replace("=", "-")
        common = (
            "--tasks",
            "vidpress_clips",
            "--include_path",
            str(TASK),
            "--log_samples",
            "--output_path",
            str(output),
        )
        done = run("-m", "lmms_eval", "--model", "vidpress_micro", "--model_args", arguments, *common, *options)
        found, logged = list(output.rglob("*results.json")), list(output.rglob("*samples*.jsonl"))
        assert len(found) == len(logged) == 1, done.stdout + done.stderr
        samples = [json.loads(line) for line in logged[0].read_text().splitlines()]
        results = json.loads(found[0].read_text())
        accuracy = results["results"]["vidpress_clips"]["accuracy,none"]
        return accuracy, {sample["doc_id"]: sample for sample in samples}, results

    return call


@pytest.fixture(scope="module")
def documents(folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((folder / TASK / "data" / "questions.json").read_text())
    return found


def ours(folder: Path, run: Run, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`python run.py task=lmms_eval`: result and answers."""
    common = ("task=lmms_eval", "task.tasks=[vidpress_clips]", f"task.include_path={TASK}")
    output = folder / "-".join(arguments)
    done = run(RUN, *common, *arguments, f"hydra.run.dir='{output}'")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy" in done.stdout
    result, answers = (json.loads((output / name).read_text()) for name in ("result.json", "answers.json"))
    return result, answers["vidpress_clips"]


def test_without_compression_everything_is_right(theirs: Any, documents: list[dict[str, str]]) -> None:
    accuracy, samples, results = theirs("compressor=none", "--batch_size", "4")
    assert accuracy == 1.0
    assert len(documents) == 36
    assert [samples[i]["filtered_resps"] for i in range(36)] == [document["answer"] for document in documents]
    assert results["throughput"]["avg_retention"] == 1.0


def test_every_answer_is_that_of_press_and_generate(
    folder: Path, run: Run, theirs: Any, documents: list[dict[str, str]]
) -> None:
    """By lmms-eval's command line, by ours, and by hand on the same files."""
    model, processor = load_micro()
    by_hand, kept, visual = [], 0, 0
    for document in documents:
        inputs = prompt(processor, document["question"], read_video(folder / TASK / "data" / document["video"]))
        with press(model, "random", retention=0.1) as report:
            output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        by_hand.append(answer(processor, inputs, output))
        kept, visual = kept + report.kept, visual + report.visual
    right = [text == document["answer"] for text, document in zip(by_hand, documents, strict=True)]
    assert 0.2 < sum(right) / 36 < 0.95, "the comparison would say little"

    accuracy, samples, results = theirs("compressor=random,retention=0.1")
    assert [samples[i]["filtered_resps"] for i in range(36)] == by_hand
    assert accuracy == pytest.approx(sum(right) / 36)
    assert results["throughput"]["avg_retention"] == pytest.approx(kept / visual)

    result, answers = ours(folder, run, "compressor=random", "retention=0.1")
    assert [item["answer"] for item in answers] == by_hand
    assert result["tasks"]["vidpress_clips"]["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / 36)
    assert result["tasks"]["vidpress_clips"]["documents"] == 36
    assert result["tokens"] == {"visual": visual, "kept": kept, "retention": pytest.approx(kept / visual)}
    assert result["versions"]["lmms-eval"].startswith("0.7")


def test_settings_of_ours(folder: Path, run: Run, documents: list[dict[str, str]]) -> None:
    """A limit, a batch, and a generation setting that beats the task's."""
    result, answers = ours(
        folder, run, "compressor=none", "task.limit=3", "task.batch=2", "+task.generation.max_new_tokens=1"
    )
    assert [item["answer"] for item in answers] == [document["answer"] for document in documents[:3]]
    assert (result["requests"], result["generated"], result["tokens"]["retention"]) == (3, 3, 1.0)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("task.tasks=[vidpress_clip]", "Did you mean vidpress_clips"),
        ("task.tasks=[videomme]", "the data of videomme could not be loaded"),
        ("+task.generation.until=[a]", "numbers, true, false and plain words"),
    ],
)
def test_mistakes_of_ours_end_in_one_line(run: Run, setting: str, text: str) -> None:
    common = ("task=lmms_eval", f"task.include_path={TASK}")
    tasks = () if "tasks" in setting else ("task.tasks=[vidpress_clips]",)
    done = run(RUN, *common, *tasks, setting)
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in done.stderr.splitlines()[-1]


def test_a_mistyped_model_argument_is_named(run: Run) -> None:
    common = ("--tasks", "vidpress_clips", "--include_path", str(TASK))
    done = run("-m", "lmms_eval", "--model", "vidpress_micro", "--model_args", "retenton=0.1", *common)
    assert "Did you mean 'retention'?" in done.stdout + done.stderr
