"""`python run.py -m experiment=…`: a preset that sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.experiments.conftest import Command

QUICK = ("task.warmup=false", "task.repeats=1", "max_new_tokens=2", "task.baseline=false")


def results(folder: Path) -> list[dict[str, Any]]:
    """By number of the job."""
    paths = sorted(folder.rglob("result.json"), key=lambda path: int(path.parent.name))
    return [json.loads(path.read_text()) for path in paths]


def test_an_experiment_sweeps(vidpress: Command) -> None:
    code, _, err, folder = vidpress("-m", "experiment=vidcom2_table7", *QUICK)
    assert code == 0, err
    configs = [result["config"] for result in results(folder)]
    assert [config["scorer"]["window"] for config in configs] == [4, 8, 16, None]
    assert [config["allocator"]["frame_scorer"]["window"] for config in configs] == [4, 8, 16, None]


def test_the_command_line_beats_a_swept_key(vidpress: Command) -> None:
    code, _, err, folder = vidpress("-m", "experiment=compression_buys_frames", "auto_retention=0.5", *QUICK)
    assert code == 0, err
    (result,) = results(folder)
    assert (result["video"]["frames"], result["tokens"]["kept"]) == (8, 32)


def test_without_a_sweep_an_experiment_is_one_point(vidpress: Command) -> None:
    code, _, err, folder = vidpress("experiment=vidcom2_table6", *QUICK)
    assert code == 0, err
    assert len(list(folder.rglob("result.json"))) == 1
