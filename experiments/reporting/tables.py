"""Samples as a table of runs: accuracies with intervals, paired differences, tokens, seconds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from compressors.errors import InputError
from experiments.reporting.collect import KEYS, SAMPLE, STAGES, STREAM, WHOLE
from experiments.statistics import mcnemar, paired_interval, wilson

Groups = Mapping[str, Sequence[str]]
# Of sessions: heading -> column, how it is written, and in which unit.
MEMORY = {
    "slots held": ("held", "{:.0f}", 1.0),
    "slots used": ("used", "{:.0f}", 1.0),
    "device MB": ("device_bytes", "{:.2f}", 1e-6),
    "host MB": ("host_bytes", "{:.2f}", 1e-6),
    "disk MB": ("disk_bytes", "{:.2f}", 1e-6),
    "reuse %": ("reuse", "{:.1f}", 100.0),
    "ms/frame": ("frame_seconds", "{:.1f}", 1e3),
}


def question_groups(kinds: Iterable[str], wanted: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Which kinds of questions are pooled under one heading.

    Args:
        kinds: all there are.
        wanted: kinds, or what stands before the first underscore of several: `flash` pools every `flash_…`. None pools
            all kinds that way.

    Raises:
        InputError: no kind is called so.
    """
    kinds = sorted(set(kinds))
    prefixes = {kind.split("_")[0]: None for kind in kinds}
    groups: dict[str, list[str]] = {}
    for name in prefixes if wanted is None else wanted:
        groups[name] = [kind for kind in kinds if kind == name or kind.startswith(f"{name}_")]
        if not groups[name]:
            close = difflib.get_close_matches(name, [*prefixes, *kinds], n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(f"task.questions={name}: no such kind of question.{hint} Known: {', '.join(kinds)}.")
    return groups


def summarise(samples: pd.DataFrame, groups: Groups, against: Sequence[str] = ("none", "random")) -> pd.DataFrame:
    """One row per model, data, method, settings and budget.

    Args:
        samples: of `collect`.
        groups: of `question_groups`; other questions are left out.
        against: methods that every other is compared with, on the samples both answered, at the same budget (`none`
            at its only one).

    Returns:
        `KEYS`; seeds; n, failed (not in n), right, accuracy, low, high (Wilson, 95 %); per group g: g_accuracy, g_low,
        g_high, g_n; per method m of `against`: relative_to_m (ratio of accuracies), minus_m, minus_m_low, minus_m_high
        (bootstrap over videos, 95 %), p_m (McNemar, exact), n_m; visual, kept (mean tokens of a question's video),
        retention (their ratio); median seconds per question of each stage, and total, their sum; of sessions the mean
        of each of `STREAM` over questions, of frame_seconds the median.
    """
    chosen = {kind for kinds in groups.values() for kind in kinds}
    samples = samples[samples["kind"].isin(chosen)]
    runs = {key: run for key, run in samples.groupby(KEYS, sort=False)}
    rows = []
    for key, run in runs.items():
        model, data, method, settings, budget = key
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        row["seeds"] = ", ".join(str(seed) for seed in sorted(run["seed"].unique()) if seed >= 0)
        row |= _accuracy(run, groups)
        for other in against:
            beside = runs.get((model, data, other, settings, WHOLE if other.partition("+")[0] == "none" else budget))
            if beside is not None and other != method:
                found = difference(run, beside)
                row |= {_against(key, other): value for key, value in found.items()}
        rows.append(row | _cost(run[run["right"].notna()]))
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    for other in against:  # a column also where there is nothing to compare with
        for name in (f"n_{other}", f"relative_to_{other}", f"minus_{other}", f"p_{other}"):
            table[name] = table.get(name, math.nan)
    table["_retention"] = table.groupby("budget")["retention"].transform("median")
    order = ["model", "data", "_retention", "budget", "accuracy", "method"]
    table = table.sort_values(order, ascending=[True, True, False, True, False, True], ignore_index=True)
    return table.drop(columns="_retention")


def display_name(method: str, settings: str) -> str:
    """A run's name for people."""
    return f"{method} ({settings})" if settings else method


def sections(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table by model and data: what was measured on other questions is not put side by side."""
    return {f"Model {model}, data {data}": part for (model, data), part in table.groupby(["model", "data"], sort=False)}


def readable(table: pd.DataFrame, groups: Groups, against: Sequence[str] = ("none", "random")) -> pd.DataFrame:
    """The table as text for people: percentages with intervals, differences in points with p."""
    columns: dict[str, list[str]] = {
        "method": [display_name(*names) for names in zip(table["method"], table["settings"], strict=True)],
        "budget": list(table["budget"]),
        "n": [str(n) for n in table["n"]],
        "failed": [str(n) for n in table["failed"]],
        "accuracy %": _percentages(table, "accuracy", "low", "high"),
    }
    for group in groups if len(groups) > 1 else ():
        columns[f"{group} %"] = _percentages(table, f"{group}_accuracy", f"{group}_low", f"{group}_high")
    for other in against:
        if table[f"n_{other}"].notna().any():
            columns[f"of {other} %"] = [_text(value, "{:.1f}", 100) for value in table[f"relative_to_{other}"]]
            columns[f"− {other}, points"] = _points(table, other)
    columns["tokens kept"] = [
        f"{kept:.1f} of {visual:.0f} ({_text(kept / visual, '{:.1f}', 100)} %)" if kept == kept else "–"
        for kept, visual in zip(table["kept"], table["visual"], strict=True)
    ]
    for heading, (key, form, scale) in MEMORY.items():
        if key in table.columns:
            columns[heading] = [_text(value, form, scale) for value in table[key]]
    for stage in (*STAGES, "total"):
        columns[f"{stage.replace('_', ' ')} s"] = [_text(value, "{:.3f}") for value in table[stage]]
    columns["seeds"] = [seeds or "–" for seeds in table["seeds"]]
    return pd.DataFrame(columns)


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown; what the cells hold cannot break out of them."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False, name=None)]
    return "\n".join(
        "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in line) + " |" for line in lines
    )


def write_tables(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`report.csv` and `report.parquet`, the same numbers in both."""
    paths = [folder / "report.csv", folder / "report.parquet"]
    table.to_csv(paths[0], index=False)
    table.to_parquet(paths[1], index=False)
    return paths


def _accuracy(run: pd.DataFrame, groups: Groups) -> dict[str, Any]:
    answered = run[run["right"].notna()]
    right, n = int(answered["right"].sum()), len(answered)
    low, high = wilson(right, n)
    row = {"n": n, "failed": len(run) - n, "right": right, "accuracy": _ratio(right, n), "low": low, "high": high}
    for group, kinds in groups.items() if len(groups) > 1 else ():
        part = answered[answered["kind"].isin(list(kinds))]["right"]
        low, high = wilson(int(part.sum()), len(part))
        names = (f"{group}_accuracy", f"{group}_low", f"{group}_high", f"{group}_n")
        row |= dict(zip(names, (_ratio(part.sum(), len(part)), low, high, len(part)), strict=True))
    return row


def difference(run: pd.DataFrame, beside: pd.DataFrame) -> dict[str, Any]:
    """One run minus another on the samples both answered: n, relative, minus, low, high, p; n = 0 alone if none."""
    pairs = run.merge(beside, on=SAMPLE, suffixes=("", "_other"))
    pairs = pairs[pairs["right"].notna() & pairs["right_other"].notna()]
    first, second = pairs["right"].to_numpy(float), pairs["right_other"].to_numpy(float)
    if not len(pairs):
        return {"n": 0}
    low, high = paired_interval(first - second, list(zip(pairs["seed"], pairs["video"], strict=True)))
    return {
        "n": len(pairs),
        "relative": _ratio(first.sum(), second.sum()),
        "minus": float(np.mean(first - second)),
        "low": low,
        "high": high,
        "p": mcnemar(int((first > second).sum()), int((first < second).sum())),
    }


def points(minus: float, low: float, high: float, p: float, n: float) -> str:
    """A difference in percentage points with its interval, p and n."""
    if math.isnan(minus):
        return "–"
    between = "" if math.isnan(low) else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{100 * minus:+.1f}{between}".replace("-", "−") + f", {chance}, n = {n:.0f}"


def _cost(run: pd.DataFrame) -> dict[str, Any]:
    """Visual tokens and seconds per question, as in `result.json`."""
    seconds = {stage: float(run[stage].median()) for stage in STAGES}
    return {
        "visual": float(run["visual"].mean()),
        "kept": float(run["kept"].mean()),
        "retention": _ratio(run["kept"].sum(), run["visual"].sum()),
        **seconds,
        "total": sum(spent for spent in seconds.values() if not math.isnan(spent)),
        **{key: float(run[key].mean()) for key in STREAM if run[key].notna().any()},
        **({"frame_seconds": float(run["frame_seconds"].median())} if run["frame_seconds"].notna().any() else {}),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _text(value: float, form: str, scale: float = 1) -> str:
    return "–" if math.isnan(value) else form.format(scale * value)


def _percentages(table: pd.DataFrame, *names: str) -> list[str]:
    return [
        "–" if math.isnan(share) else f"{100 * share:.1f} ({100 * low:.1f}–{100 * high:.1f})"
        for share, low, high in zip(*(table[name] for name in names), strict=True)
    ]


def _points(table: pd.DataFrame, other: str) -> list[str]:
    columns = [table[_against(key, other)] for key in ("minus", "low", "high", "p", "n")]
    return [points(*values) for values in zip(*columns, strict=True)]


def _against(key: str, other: str) -> str:
    """The column of a value of `difference`."""
    names = {"relative": "relative_to_{}", "low": "minus_{}_low", "high": "minus_{}_high"}
    return names.get(key, f"{key}_{{}}").format(other)
