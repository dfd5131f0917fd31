"""Stages as stacked bars, a bar for each variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.benchmarking.tables import SHARED, setting
from experiments.benchmarking.variants import STAGES

OWN = ("encode", "compress", "prefill", "decode")
REST = "rest of generate"
# Okabe and Ito's colours, apart for colour-blind readers too.
COLOURS = {
    "decode_video": "#999999",
    "preprocess": "#CC79A7",
    "encode": "#E69F00",
    "compress": "#D55E00",
    "prefill": "#0072B2",
    "decode": "#56B4E9",
    REST: "#DDDDDD",
}
DPI = 150
LEAST = 0.045  # share of the longest bar from which on a piece says its number


def pieces(result: Mapping[str, Any], name: str) -> dict[str, float]:
    """Milliseconds of every piece of a variant's bar, from the file to the answer."""
    variant = result["variants"][name]["seconds"]
    found = {stage: result["shared"][stage]["median"] for stage in SHARED}
    found |= {stage: variant[stage]["median"] for stage in OWN}
    found[REST] = max(0.0, variant["generate"]["median"] - sum(found[stage] for stage in OWN))
    return {stage: 1000 * seconds for stage, seconds in found.items()}


def write_picture(result: Mapping[str, Any], path: Path) -> Path:
    """Draw a result of `task=benchmark` as PNG."""
    bars = {name: pieces(result, name) for name in result["variants"]}
    longest = max(sum(bar.values()) for bar in bars.values())
    figure = Figure(figsize=(10, 1.7 + 0.62 * len(bars)), layout="constrained")
    axes = figure.subplots()
    titles = {**SHARED, **STAGES, REST: REST}
    for place, bar in enumerate(bars.values()):
        left = 0.0
        for stage, value in bar.items():
            label = titles[stage] if place == 0 else None
            axes.barh(place, value, left=left, color=COLOURS[stage], edgecolor="white", linewidth=0.6, label=label)
            if value >= LEAST * longest:
                dark = stage in ("prefill", "compress")
                colour = "white" if dark else "black"
                axes.text(left + value / 2, place, _number(value), ha="center", va="center", color=colour, fontsize=9)
            left += value
        axes.text(left + 0.01 * longest, place, _number(left), va="center", fontsize=10, fontweight="bold")
    axes.set_yticks(range(len(bars)), [*bars], fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * longest)
    time = "milliseconds of processor time" if result["clock"] == "processor" else "milliseconds"
    axes.set_xlabel(f"{time} from the file to the answer (medians)")
    axes.spines[["top", "right"]].set_visible(False)
    sizes = result["sizes"]
    what = f"{result['label']}: {sizes['visual']} → {sizes['kept']} visual tokens, batch {sizes['batch']}"
    axes.set_title(f"{what}, {result['model']['name']}", loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=len(COLOURS), frameon=False, fontsize=9, columnspacing=1.2)
    figure.canvas = FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI, metadata={"Description": setting(result)})
    return path


def _number(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"
