"""One method minus another on the same samples, for the pairs that were asked for."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from compressors.errors import InputError
from experiments.reporting.tables import Groups, difference, display_name, points

SCOPE = ["model", "data", "settings", "budget"]


def differences(samples: pd.DataFrame, groups: Groups, pairs: Sequence[Sequence[str]]) -> pd.DataFrame:
    """One row per pair and budget that both were run at.

    Args:
        samples: of `collect`.
        groups: of `question_groups`.
        pairs: names of methods, as tables show them: (first, second). With its settings behind it, "vidcom2
            (auto_retention=0.25)", a name stands for those runs alone, and is compared whatever the other's are.

    Returns:
        model, data, settings, budget, method, other; and of `all` questions and each group g: g_n, g_minus, g_low,
        g_high (bootstrap over videos, 95 %), g_p (McNemar, exact).

    Raises:
        InputError: a pair that is none, or a name that no run has.
    """
    shown = samples[["method", "settings"]].agg(lambda row: display_name(*row), axis=1)
    known = sorted({*samples["method"], *shown})
    rows = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"task.pairs: {pair} is no pair; write [[random+fca,random+uniform],…].")
        for name in pair:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise InputError(f"task.pairs: no run is called {name!r}.{hint} Known: {', '.join(known)}.")
        first, second = (samples[(samples["method"] == name) | (shown == name)] for name in pair)
        plain = all(name in set(samples["method"]) for name in pair)
        scope = SCOPE if plain else [key for key in SCOPE if key != "settings"]
        for values, mine in first.groupby(scope, sort=False):
            theirs = second[(second[scope] == pd.Series(values, scope)).all(axis=1)]
            if len(theirs):
                row: dict[str, Any] = {"settings": "", **dict(zip(scope, values, strict=True))}
                rows.append(row | {"method": pair[0], "other": pair[1]} | _by_group(mine, theirs, groups))
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """The table as text for people: differences in points with p."""
    columns = {
        "method": [display_name(*names) for names in zip(table["method"], table["settings"], strict=True)],
        "minus": list(table["other"]),
        "budget": list(table["budget"]),
    }
    for group in _names(groups):
        columns[f"{group}, points"] = [
            points(*values)
            for values in zip(*(table[f"{group}_{key}"] for key in ("minus", "low", "high", "p", "n")), strict=True)
        ]
    return pd.DataFrame(columns)


def _names(groups: Groups) -> list[str]:
    return ["all", *(groups if len(groups) > 1 else ())]


def _by_group(mine: pd.DataFrame, theirs: pd.DataFrame, groups: Groups) -> dict[str, Any]:
    row: dict[str, Any] = {}
    every = [kind for kinds in groups.values() for kind in kinds]
    for group in _names(groups):
        kinds = every if group == "all" else list(groups[group])
        found = difference(mine[mine["kind"].isin(kinds)], theirs)
        row |= {f"{group}_{key}": found.get(key, math.nan) for key in ("n", "minus", "low", "high", "p")}
    return row
