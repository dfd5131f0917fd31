"""From answered samples to numbers: accuracy with its interval, tokens, seconds, and pairwise differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.statistics import mcnemar, paired_interval, wilson

Line = Mapping[str, Any]


def summarise(lines: Sequence[Line]) -> dict[str, Any]:
    """The numbers of one run. Failed samples are counted, and are in nothing else.

    Returns:
        n, failed, right, accuracy, interval (Wilson, 95 %), the same by kind; mean visual tokens of a video before and
        after, and their ratio; median seconds per question and stage (of a batch, divided evenly); of a session also
        what its memory held.
    """
    done = [line for line in lines if line["error"] is None]
    kinds = _kinds(done)
    visual, kept = (sum(line[name] for line in done) for name in ("visual", "kept"))
    stages = dict.fromkeys(stage for line in done for stage in line["seconds"])
    return {
        **_score(done),
        "failed": len(lines) - len(done),
        "kinds": {kind: _score([line for line in done if line["kind"] == kind]) for kind in kinds},
        "visual": visual / len(done) if done else None,
        "kept": kept / len(done) if done else None,
        "retention": kept / visual if visual else None,
        "seconds": {stage: statistics.median(line["seconds"].get(stage, 0.0) for line in done) for stage in stages},
        **({"stream": _stream(done)} if any("stream" in line for line in done) else {}),
    }


def _stream(done: Sequence[Line]) -> dict[str, Any]:
    """What a session's memory came to: means over questions, the largest where it says so, medians of seconds."""
    told = [line["stream"] for line in done]
    reuse = [one["reuse"] for one in told if one["reuse"] is not None]
    seconds = [one["frame_seconds"] for one in told if one["frame_seconds"] is not None]
    sizes = ("device_bytes", "host_bytes", "disk_bytes", "held", "used", "frames")
    return {
        **{name: statistics.fmean(one[name] for one in told) for name in sizes},
        **{f"largest_{name}": max(one[name] for one in told) for name in sizes},
        "reuse": statistics.fmean(reuse) if reuse else None,
        "frame_seconds": statistics.median(seconds) if seconds else None,
    }


def protocol_scores(lines: Sequence[Line], how: str | None) -> dict[str, Any] | None:
    """A published benchmark's own score; a question that was not answered counts as wrong.

    Args:
        lines: of one run, failed ones too.
        how: `groups`: kinds are `<group>_<task>`, a group is the mean of its tasks, the total the mean of the groups;
            `questions`: the total is the share of all questions. None for data without a protocol.

    Returns:
        n, unanswered, total; share of right answers by task; with groups also groups, and `mean_of_tasks` (some print
        that as the total). None without a protocol or lines.
    """
    if how is None or not lines:
        return None
    tasks = {kind: [line["right"] is True for line in lines if line["kind"] == kind] for kind in _kinds(lines)}
    shares = {kind: statistics.fmean(right) for kind, right in tasks.items()}
    scores: dict[str, Any] = {
        "n": len(lines),
        "unanswered": sum(line["error"] is not None for line in lines),
        "total": statistics.fmean(line["right"] is True for line in lines),
        "tasks": shares,
    }
    if how == "groups":
        names = dict.fromkeys(kind.partition("_")[0] for kind in shares)
        groups = {
            name: statistics.fmean(share for kind, share in shares.items() if kind.partition("_")[0] == name)
            for name in names
        }
        scores |= {"total": statistics.fmean(groups.values()), "groups": groups}
        scores["mean_of_tasks"] = statistics.fmean(shares.values())
    return scores


def _kinds(lines: Iterable[Line]) -> list[str]:
    return sorted({line["kind"] for line in lines})


def compare(lines: Iterable[Line], others: Iterable[Line]) -> dict[str, Any] | None:
    """One run against another on the samples that both answered; None if there are none.

    Returns:
        n, difference of accuracies, its 95 % interval (bootstrap over videos), McNemar's exact p, samples that only the
        first (won) or only the second (lost) got right, and the ratio of accuracies.
    """
    right = {line["id"]: line for line in lines if line["error"] is None}
    pairs = [(right[o["id"]], o) for o in others if o["error"] is None and o["id"] in right]
    if not pairs:
        return None
    differences = np.array([int(mine["right"]) - int(theirs["right"]) for mine, theirs in pairs])
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    low, high = paired_interval(differences, [mine["video"] for mine, _ in pairs])
    theirs_right = sum(theirs["right"] for _, theirs in pairs)
    return {
        "n": len(pairs),
        "difference": float(differences.mean()),
        "interval": None if math.isnan(low) else [low, high],  # of a single video there is none
        "p": mcnemar(won, lost),
        "won": won,
        "lost": lost,
        "relative": sum(mine["right"] for mine, _ in pairs) / theirs_right if theirs_right else None,
    }


def _score(done: Sequence[Line]) -> dict[str, Any]:
    right, n = sum(line["right"] for line in done), len(done)
    return {"n": n, "right": right, "accuracy": right / n if n else None, "interval": list(wilson(right, n))}
