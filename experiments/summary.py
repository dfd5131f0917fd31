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
        after, and their ratio; median seconds per question and stage (of a batch, divided evenly).
    """
    done = [line for line in lines if line["error"] is None]
    kinds = sorted({line["kind"] for line in done})
    visual, kept = (sum(line[name] for line in done) for name in ("visual", "kept"))
    stages = done[0]["seconds"] if done else {}
    return {
        **_score(done),
        "failed": len(lines) - len(done),
        "kinds": {kind: _score([line for line in done if line["kind"] == kind]) for kind in kinds},
        "visual": visual / len(done) if done else None,
        "kept": kept / len(done) if done else None,
        "retention": kept / visual if visual else None,
        "seconds": {stage: statistics.median(line["seconds"][stage] for line in done) for stage in stages},
    }


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
