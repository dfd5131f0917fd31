"""Pictures of a report: accuracy against retention, against latency, and budgets per frame.

They stay readable with many methods: a panel holds few lines, or one point per method with its name beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from experiments.reporting.collect import STAGES, WHOLE
from experiments.reporting.tables import Groups, display_name

DPI = 150
PER_PANEL = 7  # lines in one panel, besides the two references
COLUMNS = 4  # panels side by side
# Okabe and Ito's colours, apart for colour-blind readers too; yellow is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REFERENCES: Mapping[str, dict[str, Any]] = {
    "none": {"color": "black", "linestyle": "--"},
    "random": {"color": "0.55", "linestyle": ":"},
}
LABEL = 0.17  # inches between names under one another
BINS = 24  # relative positions in a video at which budgets are averaged
STYLE: dict[str, Any] = {"capsize": 2, "elinewidth": 0.9, "markersize": 5, "linewidth": 1.6}


def write_plots(table: pd.DataFrame, samples: pd.DataFrame, groups: Groups, folder: Path) -> dict[str, Path]:
    """All pictures of one section (one model, one data set) as PNG.

    Args:
        table: rows of `tables.summarise`.
        samples: of the same runs.
        groups: of questions.
        folder: where they go; names start with what they show.

    Returns:
        caption -> path.
    """
    table = table.assign(name=[display_name(*pair) for pair in zip(table["method"], table["settings"], strict=True)])
    budgets = [budget for budget in table["budget"].unique() if budget != WHOLE]
    panels = {"all questions": ""} | {group: f"{group}_" for group in (groups if len(groups) > 1 else ())}
    written: dict[str, Path] = {}

    def keep(name: str, caption: str, figure: Figure) -> None:
        path = folder / f"{name}.png"
        FigureCanvasAgg(figure).print_figure(path, dpi=DPI, bbox_inches="tight", facecolor="white")
        written[caption] = path

    for part, chosen in enumerate(_chunks(list(panels), COLUMNS)):
        shown, suffix = {name: panels[name] for name in chosen}, f"_{part + 1}" if part else ""
        more = "" if len(panels) <= COLUMNS else f" ({', '.join(chosen)})"
        if len(budgets) > 1:
            caption = f"Accuracy against retention{more}. Bars: Wilson's 95 % interval; methods stand a little apart"
            keep(f"accuracy{suffix}", f"{caption} sideways where budgets are equal.", _curves(table, shown))
        else:
            caption = f"Accuracy at {''.join(budgets) or WHOLE}{more}. Bars: Wilson's 95 % interval."
            keep(f"accuracy{suffix}", caption, _ranking(table, shown))
    table["seconds"] = table[list(STAGES[1:])].sum(axis=1)
    if table["seconds"].gt(0).any():
        caption = "Accuracy against seconds per question: encode, compress, prefill and decode; decoding the video,"
        caption += " which compression does not change, is not counted."
        keep("latency", f"{caption} Bars: Wilson's 95 % interval.", _latency(table, budgets or [WHOLE]))
    if "device_bytes" in table.columns and table["device_bytes"].notna().any():
        caption = "Accuracy against the bytes of the session's memory, on device, host and disk together: mean over"
        keep("memory", f"{caption} questions. Bars: Wilson's 95 % interval.", _memory(table, panels))
    runs = _budgets_of(samples)
    if len(runs):
        budget = _common_budget(runs)
        runs = runs[runs["budget"] == budget]
        names = [name for name in _by_accuracy(table) if name in set(runs["name"])]
        caption = (
            f"Budget per frame at {budget}: share of a frame's tokens kept, over the video. Line: mean over videos;"
        )
        caption += " band: 10th to 90th percentile; dotted: what every frame would get if all got the same."
        keep("budgets", caption, _budgets(runs, names))
        common = runs.assign(length=runs["shares"].map(len)).groupby("video").agg({"name": "nunique", "length": "max"})
        video = common.sort_values(["name", "length"], ascending=False, kind="stable").index[0]
        shares = dict(zip(*(runs[runs["video"] == video][column] for column in ("name", "shares")), strict=True))
        caption = f"Budget per frame of one video, {video}, at {budget}: share of each frame's tokens kept."
        keep("budgets_of_one_video", caption, _heat_map({name: shares[name] for name in names if name in shares}))
    return written


def _curves(table: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """A row of panels per few methods, a column per group of questions; the references stand in every panel."""
    rows = _rows(table) or [[]]
    figure = Figure(figsize=(3.1 * len(panels) + 2, 3.0 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True, sharey=True)
    ticks = _retention_ticks(table)
    for shown, line in zip(rows, axes, strict=True):
        for ax, (title, prefix) in zip(line, panels.items(), strict=True):
            for name, style in REFERENCES.items():
                _reference(ax, table[table["name"] == name], prefix, name, style)
            for index, name in enumerate(shown):
                apart = 1.018 ** (index - (len(shown) - 1) / 2)
                points = table[table["name"] == name].sort_values("retention")
                look = {"color": COLOURS[index], "marker": MARKERS[index], "label": name}
                _errorbar(ax, points["retention"] * apart, points, prefix, **look)
            _tidy(ax, title, ticks)
        line[0].set_ylabel("accuracy, %")
        line[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    for ax in axes.flat:
        ax.tick_params(labelbottom=True)
    for ax in axes[-1]:
        ax.set_xlabel("visual tokens kept")
    return figure


def _reference(ax: Axes, points: pd.DataFrame, prefix: str, name: str, style: Mapping[str, Any]) -> None:
    """`none` as a level with its interval, anything else as a line."""
    if points.empty:
        return
    if name == "none":
        share, low, high = (100 * points[f"{prefix}{column}"].iloc[0] for column in ("accuracy", "low", "high"))
        ax.axhspan(low, high, color="0.9", linewidth=0, zorder=0)
        ax.axhline(share, linewidth=1.2, label="none (all tokens)", **style)
    else:
        points = points.sort_values("retention")
        _errorbar(ax, points["retention"], points, prefix, label=name, marker=".", **style)


def _errorbar(ax: Axes, x: Any, points: pd.DataFrame, prefix: str, **look: Any) -> None:
    share, low, high = (100 * points[f"{prefix}{column}"] for column in ("accuracy", "low", "high"))
    ax.errorbar(x, share, yerr=[share - low, high - share], **STYLE, **look)


def _tidy(ax: Axes, title: str, ticks: Sequence[float]) -> None:
    ax.set_title(title, fontsize=10)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if ticks:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(FixedFormatter([f"{100 * tick:.2g} %" for tick in ticks]))
        ax.xaxis.set_minor_locator(NullLocator())


def _ranking(table: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """With one budget: methods under each other, best first."""
    names = _by_accuracy(table)
    figure = Figure(figsize=(2.6 * len(panels) + 2, 0.27 * len(names) + 1.1), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (title, prefix) in zip(axes, panels.items(), strict=True):
        for place, name in enumerate(names):
            row = table[table["name"] == name].iloc[0]
            share, low, high = (100 * row[f"{prefix}{column}"] for column in ("accuracy", "low", "high"))
            colour = REFERENCES[name]["color"] if name in REFERENCES else COLOURS[0]
            bounds = [[share - low], [high - share]]
            ax.errorbar(share, place, xerr=bounds, fmt="o", color=colour, **STYLE)
            if name in REFERENCES:
                ax.axvline(share, linewidth=1, zorder=0, **REFERENCES[name])
        _tidy(ax, title, [])
        ax.grid(axis="x", color="0.92")
        ax.set_xlabel("accuracy, %")
        ax.set_yticks(range(len(names)), names, fontsize=9)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _latency(table: pd.DataFrame, budgets: Sequence[str]) -> Figure:
    """A panel per budget; names stand in a column beside it, so that they cover neither points nor one another."""
    rows = list(_chunks(budgets, 3))
    most = max(int(table["budget"].isin([budget, WHOLE]).sum()) for budget in budgets)
    height = max(2.6, LABEL * most + 0.4)
    figure = Figure(figsize=(4.6 * len(rows[0]), (height + 0.8) * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex=True, sharey=True)
    colours = {name: COLOURS[index] for names in _rows(table) for index, name in enumerate(names)}
    colours |= {name: style["color"] for name, style in REFERENCES.items()}
    bottom, top = 100 * table["low"].min() - 2, 100 * table["high"].max() + 2
    for ax in axes.flat[len(budgets) :]:
        ax.set_visible(False)
    for ax, budget in zip(axes.flat, budgets, strict=False):
        points = table[table["budget"].isin([budget, WHOLE])].sort_values("accuracy", ascending=False)
        labels = _spread([(100 * share - bottom) / (top - bottom) for share in points["accuracy"]], LABEL / height)
        for (_, row), label in zip(points.iterrows(), labels, strict=True):
            share, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
            colour = colours[row["name"]]
            ax.vlines(row["seconds"], low, high, color=colour, linewidth=1, alpha=0.4)
            ax.plot(row["seconds"], share, "o", color=colour, markersize=5)
            ax.annotate(
                row["name"],
                (row["seconds"], share),
                xytext=(1.08, label),
                textcoords="axes fraction",
                va="center",
                fontsize=8,
                color=colour,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "relpos": (0, 0.5)},
                annotation_clip=False,
            )
        _tidy(ax, budget, [])
        ax.grid(axis="x", color="0.92")
        ax.set_ylim(bottom, top)
        ax.margins(x=0.06)
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("seconds per question")
    for line in axes:
        line[0].set_ylabel("accuracy, %")
    return figure


def _memory(table: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """A panel per group of questions, a point per run; runs without a session are not shown."""
    runs = table[table["device_bytes"].notna()].sort_values("accuracy", ascending=False)
    figure = Figure(figsize=(3.1 * len(panels) + 3, max(3.2, 0.2 * len(runs) + 0.6)), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (title, prefix) in zip(axes, panels.items(), strict=True):
        for index, (_, row) in enumerate(runs.iterrows()):
            size = (row["device_bytes"] + row["host_bytes"] + row["disk_bytes"]) / 1e6
            share, low, high = (100 * row[f"{prefix}{column}"] for column in ("accuracy", "low", "high"))
            marker, colour = MARKERS[index // len(COLOURS) % len(MARKERS)], COLOURS[index % len(COLOURS)]
            look = {"color": colour, "marker": marker, "linestyle": "none", "label": row["name"]}
            ax.errorbar(size, share, yerr=[[share - low], [high - share]], **STYLE, **look)
        _tidy(ax, title, [])
        ax.grid(axis="x", color="0.92")
        ax.set_xlim(left=0)
        ax.set_xlabel("memory, MB")
    axes[0].set_ylabel("accuracy, %")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
    return figure


def _spread(heights: Sequence[float], apart: float) -> list[float]:
    """Falling heights in [0, 1], moved as little as it takes to be `apart`: down first, then up from the bottom."""
    places: list[float] = []
    for height in heights:
        places.append(min(height, places[-1] - apart) if places else height)
    lowest = 0.0
    for index in reversed(range(len(places))):
        places[index] = max(places[index], lowest)
        lowest = places[index] + apart
    return places


def _budgets_of(samples: pd.DataFrame) -> pd.DataFrame:
    """Share kept of each temporal group (`shares`, `[T]`) of every run (name, budget) and video, `none` left out."""
    known = samples[samples["budgets"].notna() & (samples["method"] != "none")]
    rows = [
        (display_name(row.method, row.settings), row.budget, row.video, np.array(row.budgets) / row.places)
        for row in known.drop_duplicates(["method", "settings", "budget", "seed", "video"]).itertuples()
        if row.budgets
    ]
    return pd.DataFrame(rows, columns=["name", "budget", "video", "shares"])


def _common_budget(runs: pd.DataFrame) -> str:
    """The smallest budget that most methods share: there, how it is spent matters most."""
    kept = runs.assign(kept=runs["shares"].map(np.mean)).groupby("budget")
    return str(
        kept.agg(names=("name", "nunique"), kept=("kept", "mean"))
        .sort_values(["names", "kept"], ascending=[False, True])
        .index[0]
    )


def _budgets(runs: pd.DataFrame, names: Sequence[str]) -> Figure:
    """A small panel per method: mean and spread over videos along the video, and the even share."""
    columns = min(5, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(5.0, 2.4 * columns), 1.6 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    middle = (np.arange(BINS) + 0.5) / BINS
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, names, strict=False):
        mine = runs[runs["name"] == name]["shares"]
        at = [np.interp(middle * len(shares) - 0.5, np.arange(len(shares)), shares) for shares in mine]
        shares = 100 * np.stack(at)
        low, high = np.percentile(shares, [10, 90], axis=0)
        ax.fill_between(middle, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        ax.plot(middle, shares.mean(axis=0), color=COLOURS[0], linewidth=1.6)
        ax.axhline(shares.mean(), color="0.4", linestyle=":", linewidth=1)
        _tidy(ax, name, [])
        ax.set_title(name, fontsize=8.5)
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1], [])
        ax.tick_params(labelsize=8)
    axes[0, 0].set_ylim(bottom=0)  # shared; only now, since it ends the scaling to what is drawn
    figure.supxlabel("start to end of the video", fontsize=9)
    figure.supylabel("tokens kept, % of the frame", fontsize=9)
    return figure


def _heat_map(rows: Mapping[str, np.ndarray]) -> Figure:
    """A row per method, a column per frame."""
    length = max(map(len, rows.values()))
    shares = np.full((len(rows), length), np.nan)
    for line, values in zip(shares, rows.values(), strict=True):
        line[: len(values)] = 100 * values
    figure = Figure(figsize=(max(4.5, 0.3 * length + 2.6), 0.25 * len(rows) + 1.1), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(shares, aspect="auto", cmap="cividis", vmin=0, interpolation="nearest")
    for between in range(1, len(rows)):
        ax.axhline(between - 0.5, color="white", linewidth=1.5)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=8.5)
    ax.set_xlabel("temporal group (frame, or pair of frames)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=ax, label="% kept", pad=0.02)
    return figure


def _by_accuracy(table: pd.DataFrame) -> list[str]:
    """Names, best first."""
    return list(table.groupby("name")["accuracy"].mean().sort_values(ascending=False, kind="stable").index)


def _rows(table: pd.DataFrame) -> list[list[str]]:
    """Methods that share a panel, best first; a method's place among them is its colour in every picture."""
    return list(_chunks([name for name in _by_accuracy(table) if name not in REFERENCES], PER_PANEL))


def _retention_ticks(table: pd.DataFrame) -> list[float]:
    """One tick per budget, where it really lies, without those that would touch."""
    places = sorted(table[table["budget"] != WHOLE].groupby("budget")["retention"].median())
    return places[:1] + [place for before, place in pairwise(places) if place > 1.15 * before]


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Pieces of about equal length, none longer than `size`."""
    pieces = math.ceil(len(items) / size)
    for piece in np.array_split(np.arange(len(items)), pieces) if pieces else ():
        yield [items[index] for index in piece]
