"""Any set of run folders of `task=evaluate` as one table of samples, and what could not be used with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from yaml import YAMLError

from adapters.errors import LoadError

TASK = "evaluate"
MARKS = ("result.json", "error.json", "samples.jsonl", ".hydra")
# What a session's memory came to, of runs that had one.
STREAM = ("held", "used", "device_bytes", "host_bytes", "disk_bytes", "reuse", "frame_seconds")
STAGES = ("decode_video", "encode", "compress", "prefill", "decode")
WHOLE = "all tokens"  # the budget of `none`, whatever the run's budget was
# Settings that label, budget, seed and sample ids already tell apart, or that decide no answer and no time. Runs that
# differ in anything else stay apart.
SAID = (
    *(
        "retention",
        "tokens",
        "tokens_per_frame",
        "seed",
        "data.seed",
        "data.clips",
        "data.streams",
        "data.questions",
        "data.folder",
    ),
    *("task.against", "task.clock", "task.folder", "task.name", "task.summary"),
)
SAID_GROUPS = ("compressor", "scorer", "allocator", "selector", "merger", "cacher", "experiment", "hydra")
KEYS = ["model", "data", "method", "settings", "budget"]  # what makes two runs the same but for their seed
SAMPLE = ["seed", "id"]


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        samples: one row per run and sample, each sample once: `KEYS`, seed, id, video, kind, right (1, 0, or NaN where
            the sample failed), error, visual, kept, budgets, places, one column per stage in seconds, and those of
            `STREAM` (NaN without a session).
        unused: jobs without a result: folder, settings, status ("failed" or "stopped"), reason.
        notes: what a reader must know about how the table came about.
    """

    samples: pd.DataFrame
    unused: pd.DataFrame
    notes: list[str]


@dataclass
class _Job:
    """One run folder."""

    folder: Path
    status: str = "complete"
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    broken: int = 0
    written: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)


def collect(places: Iterable[Path]) -> Collection:
    """Find run folders under `places`, at any depth, and read them.

    Runs with the same model, data, label and budget are one: samples of several seeds are pooled, and a sample that
    was measured twice counts once, as it was measured last. Baselines that were measured beside a method are runs like
    any other.

    Raises:
        LoadError: a place does not exist, or holds no run folder.
    """
    places = list(places)
    for place in places:
        if not place.is_dir():
            raise LoadError(f"{place}: no such folder; task.runs names folders that `task={TASK}` has written.")
    folders = {folder for place in places for folder in _folders(place)}
    folders |= {other for folder in folders if (other := _taken_up(folder)) and other.is_dir()}
    jobs = [job for folder in sorted(folders) if (job := _read(folder))]
    if not jobs:
        where = ", ".join(map(str, places))
        hint = f"make some with `python run.py -m task={TASK} …`, or name another folder, task.runs=FOLDER."
        raise LoadError(f"{where}: no runs of task={TASK} here; {hint}")
    complete = sorted((job for job in jobs if job.status == "complete"), key=lambda job: job.written)
    notes = [f"{len(complete)} of {len(jobs)} jobs are complete." if len(complete) < len(jobs) else ""]
    notes += [
        f"{job.folder}: {job.broken} unreadable line{'s'[: job.broken > 1]} of samples.jsonl left out."
        for job in jobs
        if job.broken
    ]
    if any(job.settings.get("model.weights") == "random" for job in complete):
        notes.append("Some models have random weights: their answers mean nothing, their times do.")
    notes += [*_provenance(complete), *_differing(complete)]
    samples, more = _pool(pd.DataFrame([row for job in complete for row in _rows(job)]))
    unused = pd.DataFrame(
        [
            {"folder": str(job.folder), "settings": _overrides(job.folder), "status": job.status, "reason": job.reason}
            for job in jobs
            if job.status != "complete"
        ],
        columns=["folder", "settings", "status", "reason"],
    )
    return Collection(samples, unused, [note for note in [*notes, *more] if note])


def errors(samples: pd.DataFrame) -> pd.DataFrame:
    """Samples that failed, counted by run and message."""
    failed = samples[samples["error"].notna()] if len(samples) else pd.DataFrame(columns=[*KEYS, "error"])
    return failed.groupby([*KEYS, "error"], sort=False).size().reset_index(name="samples")


def budget_name(budget: Mapping[str, Any]) -> str:
    """A budget as people write it."""
    ((key, value),) = budget.items()
    return f"{key.replace('_', ' ')} {value:g}"


def _folders(place: Path) -> Iterator[Path]:
    for mark in MARKS:
        for path in place.rglob(mark):
            yield path.parent


def _read(folder: Path) -> _Job | None:
    """A run folder of ours; None if it is another task's."""
    result, error, samples = (folder / name for name in MARKS[:3])
    ended = (_taken_up(folder) or folder) / "result.json"
    job = _Job(folder)
    try:
        if error.exists() and not (ended.exists() and ended.stat().st_mtime >= error.stat().st_mtime):
            content = json.loads(error.read_text(encoding="utf-8"))
            if content.get("task") != TASK:
                return None
            job.status, job.reason = "failed", str(content.get("error"))
        elif result.exists():
            content = json.loads(result.read_text(encoding="utf-8"))
            if content.get("task") != TASK:
                return None
            job.result, job.written = content, result.stat().st_mtime
            job.settings = dict(_flat(content.get("config") or {}))
            job.memory = {key.partition(".")[2]: job.settings.pop(key) for key in list(job.settings) if _of_memory(key)}
        elif _setting(folder, "task.name") != TASK or _taken_up(folder):
            return None
        else:
            job.status = "stopped"
        if samples.exists():
            job.lines, job.broken = _lines(samples)
    except (OSError, ValueError) as problem:  # also what is not JSON, or not text
        return _Job(folder, "failed", f"could not be read: {problem}")
    if job.status == "stopped":
        job.reason = f"stopped after {len(job.lines)} samples, or still running"
    elif job.status == "complete" and not job.lines:
        job.status, job.reason = "failed", "samples.jsonl is missing or empty"
    return job


def _taken_up(folder: Path) -> Path | None:
    """Where a job wrote its results, if not into the folder that Hydra gave it (`task.folder`)."""
    if (folder / "result.json").exists():
        return None
    elsewhere = _setting(folder, "task.folder")
    return Path(elsewhere).expanduser() if elsewhere else None


def _setting(folder: Path, key: str) -> str | None:
    """A setting of a job that has no result; without Hydra's files, samples alone can only be ours."""
    try:
        value = OmegaConf.select(OmegaConf.load(folder / ".hydra" / "config.yaml"), key)
    except (OSError, YAMLError):
        value = TASK if key == "task.name" and (folder / "samples.jsonl").exists() else None
    return None if value is None else str(value)


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a JSONL file, and how many could not be read: a job that was killed leaves half a line."""
    lines: list[dict[str, Any]] = []
    broken = 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if isinstance(content, dict) and {"run", "id"} <= content.keys():
            lines.append(content)
        else:
            broken += 1
    return lines, broken


def _rows(job: _Job) -> Iterator[dict[str, Any]]:
    result = job.result
    shared = {
        "model": result["model"],
        "data": result["data"],
        "seed": -1 if result["seed"] is None else result["seed"],
    }
    named = ", ".join(f"{key}={value}" for key, value in job.settings.items())
    for line in job.lines:
        right, error, seconds = line.get("right"), line.get("error"), line.get("seconds") or {}
        stream = {key: value for key, value in (line.get("stream") or {}).items() if value is not None}
        yield {
            **shared,
            "method": line["run"],
            "settings": named,
            "budget": WHOLE if line["run"].partition("+")[0] == "none" else budget_name(result["budget"]),
            "main": line["run"] == result["label"],
            "folder": str(job.folder),
            **{key: line.get(key) for key in ("id", "video", "answer", "visual", "kept", "budgets", "places")},
            "kind": line.get("kind") or "all",
            "right": float("nan") if error or right is None else float(right),
            "error": error,
            **{stage: seconds.get(stage, float("nan")) for stage in STAGES},
            **{key: stream.get(key, float("nan")) for key in STREAM},
        }


def _pool(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Each sample of each run once, as measured last; and what that left out."""
    if rows.empty:
        return rows, []
    notes = []
    key = [*KEYS, *SAMPLE]
    jobs = rows[rows["main"]].groupby([*KEYS, "seed"])["folder"].agg(lambda folders: list(dict.fromkeys(folders)))
    for (_, _, method, settings, budget, seed), folders in jobs[jobs.map(len) > 1].items():
        name = f"{method} ({settings})" if settings else method
        of = f", seed {seed}" if seed >= 0 else ""
        notes.append(f"{name}, {budget}{of} was measured {len(folders)} times; what {folders[-1]} has counts.")
    groups = rows[rows["error"].isna()].groupby(key)["answer"]
    if changed := int((groups.nunique() > 1).sum()):
        notes.append(f"{changed} of {int((groups.size() > 1).sum())} samples measured more than once changed answers.")
    # Budgets stand once per video, maybe in a line that another run's replaces: they are spread before that.
    spread = ["budgets", "places"]
    rows[spread] = rows.groupby([*KEYS, "seed", "video", "folder"])[spread].transform("first")
    return rows.drop_duplicates(key, keep="last").drop(columns=["main"]).reset_index(drop=True), notes


def _differing(jobs: list[_Job]) -> list[str]:
    """Leave in `settings` what tells runs of one label and budget apart, and say if there is such a thing."""
    _name_memories(jobs)
    keys = dict.fromkeys(key for job in jobs for key in job.settings if not _said(key))
    by_data = {(job.result["model"], job.result["data"]): [] for job in jobs}  # type: ignore[var-annotated]
    for job in jobs:
        by_data[job.result["model"], job.result["data"]].append(job)
    varied: dict[str, None] = {}
    for group in by_data.values():  # models and data sets differ in many settings, and that is no news
        for key in keys:
            if len({json.dumps(job.settings.get(key), sort_keys=True, default=str) for job in group}) > 1:
                varied[key] = None
    for job in jobs:
        job.settings = {key: job.settings.get(key) for key in varied}
    return [f"Runs differ in {', '.join(varied)}, and stay apart where they do."] if varied else []


def _name_memories(jobs: list[_Job]) -> None:
    """One setting for a session's memory: its name, with what differs among the memories of that name."""
    for job in jobs:
        alike = [other.memory for other in jobs if other.memory.get("name") == job.memory.get("name")]
        varied = [key for key, value in job.memory.items() if any(other.get(key) != value for other in alike)]
        params = ", ".join(f"{key}={job.memory[key]}" for key in varied)
        job.settings["memory"] = f"{job.memory.get('name', 'none')}{f'({params})' if params else ''}"


def _of_memory(key: str) -> bool:
    return key.startswith("memory.")


def _said(key: str) -> bool:
    return key in SAID or key.split(".")[0] in SAID_GROUPS


def _provenance(jobs: list[_Job]) -> list[str]:
    notes = []
    commits = dict.fromkeys(str(job.result.get("commit") or "unknown") for job in jobs)
    if len(commits) > 1:
        notes.append(f"Runs come from {len(commits)} states of the code: {', '.join(commits)}.")
    for package in dict.fromkeys(name for job in jobs for name in job.result.get("versions") or {}):
        found = dict.fromkeys(str((job.result.get("versions") or {}).get(package)) for job in jobs)
        if len(found) > 1:
            notes.append(f"Runs used several versions of {package}: {', '.join(found)}.")
    for job in jobs:
        for run, summary in job.result.get("runs", {}).items():
            counted = summary["n"] + summary["failed"]
            there = len({line["id"] for line in job.lines if line["run"] == run})
            if there != counted:
                notes.append(f"{job.folder}: result.json counts {counted} samples of {run}, samples.jsonl has {there}.")
    return notes


def _overrides(folder: Path) -> str:
    path, told = folder / ".hydra" / "overrides.yaml", folder / "run.json"
    if path.exists():
        return " ".join(map(str, OmegaConf.load(path)))
    return json.loads(told.read_text(encoding="utf-8"))["methods"][0] if told.exists() else ""


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
