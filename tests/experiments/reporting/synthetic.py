"""Run folders as `task=evaluate` writes them, with answers drawn at random."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.statistics import wilson

KINDS = ("flash_shape", "flash_color", "mover_shape", "mover_color", "scenes")
PLACES = 16


def write_run(
    folder: Path,
    label: str = "vidcom2",
    retention: float = 0.25,
    *,
    seed: int | None = 0,
    skill: float = 0.8,
    videos: int = 12,
    against: Sequence[str] = ("none", "random"),
    settings: Mapping[str, Any] | None = None,
    failing: Sequence[str] = (),
    written: float | None = None,
    commit: str | None = "abc1234",
) -> Path:
    """A complete job. `skill` in [0, 1] is how little the method loses; `failing` are ids that fail in its run."""
    folder.mkdir(parents=True)
    skills = {label: 1.0 if label == "none" else skill, **{name: 1.0 if name == "none" else 0.5 for name in against}}
    lines: list[dict[str, Any]] = []
    for run, of_run in skills.items():
        for video in range(videos):
            lines += _lines(run, of_run, video, seed, 1.0 if run == "none" else retention)
    for line in lines:
        if line["run"] == label and line["id"] in failing:
            line.update(error="the video could not be decoded", right=None, answer=None, visual=0, kept=0, seconds={})
    summaries = {run: _summary([line for line in lines if line["run"] == run]) for run in skills}
    config = {
        "task": {"name": "evaluate", "against": list(against), "folder": None, "batch": 8},
        "model": {"name": "micro"},
        "data": {"name": "micro", "seed": seed, "clips": videos},
        "compressor": {"name": label.split("+")[0]},
        "retention": retention,
        "frames": None,
        **(settings or {}),
    }
    result = {
        "task": "evaluate",
        "status": "complete",
        "label": label,
        "model": "micro",
        "data": "micro",
        "seed": seed,
        "budget": {"retention": retention},
        "runs": summaries,
        "comparisons": {},
        "config": config,
        "versions": {"python": "3.11.0", "torch": "2.13.0"},
        "commit": commit,
    }
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "result.json").write_text(json.dumps(result))
    if written is not None:
        os.utime(folder / "result.json", (written, written))
    hydra(folder, config, f"compressor={label}", f"retention={retention}")
    return folder


def write_failed(folder: Path, error: str, task: str = "evaluate") -> Path:
    """A job that ended with an error."""
    folder.mkdir(parents=True)
    content = {"task": task, "status": "failed", "error": error, "config": {}, "versions": {}, "commit": None}
    (folder / "error.json").write_text(json.dumps(content))
    hydra(folder, {"task": {"name": task}}, "compressor=vidcom2", "retention=2")
    return folder


def write_stopped(folder: Path, done: int = 7) -> Path:
    """A job that was killed while it wrote a line."""
    folder.mkdir(parents=True)
    lines = [json.dumps(line) for video in range(2) for line in _lines("vidcom2", 0.5, video, 0, 0.25)][:done]
    (folder / "samples.jsonl").write_text("\n".join(lines) + '\n{"run": "vidcom2", "id": "0/1/fl')
    hydra(folder, {"task": {"name": "evaluate"}}, "compressor=vidcom2")
    return folder


def hydra(folder: Path, config: Mapping[str, Any], *overrides: str) -> None:
    """What Hydra writes."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))


def _lines(run: str, skill: float, video: int, seed: int | None, retention: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng((seed or 0, video))
    groups = int(rng.integers(8, 17))
    hard = rng.random(len(KINDS))  # the same for every method: runs agree on easy questions
    own = np.random.default_rng((seed or 0, video, *run.encode()))
    weights = own.dirichlet(np.full(groups, 20.0 if run == "random" else 2.0))
    budgets = np.minimum(PLACES, np.round(weights * retention * groups * PLACES)).astype(int)
    if run == "none":
        budgets[:] = PLACES
    prefix = "" if seed is None else f"{seed}/"
    lines = []
    for index, kind in enumerate(KINDS):
        chance = (
            0.99
            if run == "none"
            else 1 - (1 - skill) * (1.2 if kind.startswith("flash") else 0.4) / (1 + 4 * retention)
        )
        answer = "ring" if hard[index] < chance else "bars"
        share = 0.2 + 0.8 * retention
        line = {
            "run": run,
            "id": f"{prefix}{video}/{kind}",
            "video": f"{prefix}{video}",
            "kind": kind,
            "expected": "ring",
            "answer": answer,
            "right": answer == "ring",
            "visual": groups * PLACES,
            "kept": int(budgets.sum()),
            "seconds": {
                "decode_video": 0.02,
                "encode": 0.05,
                "compress": 0.0 if run == "none" else 0.002 + 0.01 * own.random(),
                "prefill": 0.08 * share,
                "decode": 0.03,
            },
            "error": None,
        }
        if index == 0:
            line |= {"budgets": budgets.tolist(), "places": PLACES}
        lines.append(line)
    return lines


def _summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answered = [line["right"] for line in lines if line["error"] is None]
    right, n = sum(answered), len(answered)
    return {"n": n, "failed": len(lines) - n, "right": right, "accuracy": right / n, "interval": wilson(right, n)}
