"""A benchmark as tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.table import Table

from experiments.benchmarking.native import SAID
from experiments.benchmarking.variants import NATIVE, RANDOM, STAGES, UNCOMPRESSED

SHARED = {"decode_video": "video decode", "preprocess": "preprocess"}
_OURS = {"llm": "compress + prefill + decode"}
GIVEN = {"encode": "vision encoder", "compress": "compress", "prefill": "prefill", "step": "decode a token"}


@dataclass(frozen=True)
class Sheet:
    """One table; the first column names rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def table(self) -> Padding:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left", title_style="bold", caption=self.note or None)
        table.caption_justify = "left"
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(row[0], *(cell.replace(" (", "\n(") for cell in row[1:]))
        return Padding(table, (1, 0, 0, 0))

    def markdown(self) -> str:
        """As Markdown."""
        lines = [f"**{self.title}**", "", f"| {' | '.join(self.header)} |", "|---|" + "--:|" * (len(self.header) - 1)]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])


def sheets(result: Mapping[str, Any]) -> list[Sheet]:
    """All tables of a result."""
    return list(_sheets(result))


def markdown(result: Mapping[str, Any], shown: Sequence[Sheet], pictures: Sequence[Path]) -> str:
    """The page `benchmark.md`."""
    parts = [f"# Benchmark: `{result['label']}`", setting(result)]
    parts += [f"![stages]({picture.name})" for picture in pictures]
    parts += [sheet.markdown() for sheet in shown]
    told = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n\n".join([*parts, f"Commit {result['commit'] or 'unknown'}; {told}."]) + "\n"


def setting(result: Mapping[str, Any]) -> str:
    """What was measured, in a sentence or three."""
    model, sizes, video, device = (result[key] for key in ("model", "sizes", "video", "device"))
    where = device["name"] or f"{device['type']}, {device['threads']} thread(s)"
    weights = "" if model["weights"] == "published" else f", {model['weights']} weights"
    grid = "×".join(map(str, [sizes["groups"], *sizes["grid"]]))
    text = (
        f"{model['name']}{weights}, {model['dtype'].removeprefix('torch.')}, on {where}; batch {sizes['batch']}, "
        f"{video['frames']} frames of {video['width']}×{video['height']}, {sizes['visual']} visual tokens ({grid}) → "
        f"{sizes['kept']} ({sizes['retention']:.1%}), {sizes['text']} other tokens, {sizes['answer']} answer tokens. "
        f"{result['repeats']} alternating rounds."
    )
    if NATIVE in result["variants"]:
        native = result["native"]
        text += f" `native` is {SAID[native['kind']].format(grid='×'.join(map(str, native['grid'])))}"
        text += f", and {native['filled']} tokens of text for the rest." if native["filled"] else "."
    return text


def _sheets(result: Mapping[str, Any]) -> Iterator[Sheet]:
    name, variants, ratios = result["label"], result["variants"], result["ratios"]
    unit = "processor time" if result["clock"] == "processor" else "time"
    rows = [(title, *[_ms(result["shared"][stage])] * len(variants)) for stage, title in SHARED.items()]
    rows += [
        (title, *(_ms(variant["seconds"][stage]) for variant in variants.values())) for stage, title in STAGES.items()
    ]
    yield Sheet(
        f"Milliseconds ({unit}): median (quartiles)",
        ("stage", *variants),
        tuple(rows),
        "compress: choosing and pruning. decode: begins with the first token's head. decode a token: decode / (answer "
        "tokens - 1), so that head is spread over it. language model: compress, prefill and decode. first token: from "
        "the call of generate until the prompt is through the model, without that head. native: its vision encoder "
        "sees a smaller video, or none.",
    )
    if ratios:
        yield _ratio_sheet(name, variants, ratios)
    yield _work_sheet(result)
    if result["peak_source"]:
        yield _memory_sheet(result)
    yield _throughput_sheet(result)
    if result["mechanism"]:
        yield _mechanism_sheet(result["mechanism"])
    if result["published"]:
        yield _published_sheet(result)


def _ratio_sheet(name: str, variants: Mapping[str, Any], ratios: Mapping[str, Any]) -> Sheet:
    against = UNCOMPRESSED in ratios
    floors = [key for key in (RANDOM, NATIVE) if key in ratios]
    rows = []
    for stage, title in STAGES.items():
        cells = [_times(ratios[UNCOMPRESSED][stage], inverse=True), _limit(variants, name, stage)] if against else []
        cells += [_times(ratios[key][stage]) for key in floors]
        rows.append((title, *cells))
    return Sheet(
        f"{name}: speed-up over the uncompressed model, and cost in multiples of the floors",
        ("stage", *(["speed-up", "limit"] if against else []), *(f"{key} = 1" for key in floors)),
        tuple(rows),
        "Ratios of medians of one run, 95 % bootstrap intervals over rounds. limit: the ratio of operations (decode: "
        "of bytes). random: the same K, chosen at random. native: a plain prompt of K visual tokens.",
    )


def _work_sheet(result: Mapping[str, Any]) -> Sheet:
    variants = result["variants"]
    rows = [
        _work_row(title, result["shared_work"][stage], result["shared"][stage]["median"])
        for stage, title in SHARED.items()
    ]
    for stage, title in GIVEN.items():
        rows += [
            _work_row(f"{title}: {key}", variant["work"][stage], variant["seconds"][stage]["median"])
            for key, variant in variants.items()
            if stage in variant["work"]
        ]
    return Sheet(
        "Counted: what each stage needs, and how fast it was done",
        ("stage: variant", "GFLOP", "GB", "GFLOP/s", "GB/s"),
        tuple(rows),
        "Matrix products, and attention over all pairs (inside a window, where a layer has one); bytes are the least "
        "traffic: weights, keys and values once. compress: the features read once. video decode: the file read, its "
        "kept frames written. preprocess: frames read, the model's pixels written. prefill: with the first token's "
        "head, which is timed with decode.",
    )


def _work_row(title: str, work: Mapping[str, int] | None, seconds: float) -> tuple[str, ...]:
    if work is None:
        return (title, "not counted", "not counted", "–", "–")
    counted = (f"{work['operations'] / 1e9:,.2f}" if work["operations"] else "–", f"{work['bytes'] / 1e9:,.3f}")
    reached = (work[what] / seconds / 1e9 if seconds else 0.0 for what in ("operations", "bytes"))
    return (title, *counted, *(f"{rate:,.{1 if rate >= 10 else 2}f}" if rate else "–" for rate in reached))


def _memory_sheet(result: Mapping[str, Any]) -> Sheet:
    variants, shared = result["variants"], result["shared_peak_bytes"]
    rows = [(SHARED[stage], *[_mb(peak)] * len(variants)) for stage, peak in shared.items()]
    rows += [
        (title, *(_mb(variant["peak_bytes"].get(stage)) for variant in variants.values()))
        for stage, title in STAGES.items()
        if any(stage in variant["peak_bytes"] for variant in variants.values())
    ]
    return Sheet(
        f"Peak memory in MB over what was held before the run ({result['peak_source']})",
        ("stage", *variants),
        tuple(rows),
        "whole generate: outside the other stages. video decode and preprocess: over what was held before each, "
        f"{result['shared_source']}.",
    )


def _throughput_sheet(result: Mapping[str, Any]) -> Sheet:
    throughput = result["throughput"]
    rows = [
        (key, f"{rate['median']:.3g} ({rate['q1']:.3g}–{rate['q3']:.3g})", _times(throughput["ratios"].get(key)))
        for key, rate in throughput["requests_per_second"].items()
    ]
    title = f"Requests per second: batch {result['sizes']['batch']}, {throughput['threads']} thread(s)"
    return Sheet(title, ("variant", "requests/s", f"{result['label']} against it"), tuple(rows))


def _mechanism_sheet(mechanism: Mapping[str, Any]) -> Sheet:
    titles = {"prefill": "prefill", "prefill_and_prune": "prefill + compress", "step": "decode a token"}
    rows = []
    for stage, title in titles.items():
        bar = mechanism["bars"].get(stage)
        rows.append((title, _times(mechanism["ratios"][stage]), *_bar(bar)))
    for what in ("attach", "detach"):
        rows.append((f"{what}, ms", _ms(mechanism[f"{what}_seconds"]), "–", "–"))
    if memory := mechanism["memory"]:
        over, allowed = memory["pressed"] - memory["native"], memory["embeddings"] + memory["features"]
        kept = "met" if over <= allowed else "missed"
        rows.append(("peak behind the encoder, MB over native", f"{over / 1e6:,.1f}", f"{allowed / 1e6:,.1f}", kept))
    return Sheet(
        f"The mechanism's cost: `{mechanism['method']}` over the native prompt of K tokens",
        ("", "measured", "at most", "bar"),
        tuple(rows),
        "Memory may exceed the native prompt's by the embeddings at full length and the features.",
    )


def _bar(bar: Mapping[str, Any] | None) -> tuple[str, str]:
    return ("–", "–") if bar is None else (f"{bar['at_most']:.2f}×", bar["verdict"])


def _published_sheet(result: Mapping[str, Any]) -> Sheet:
    published, ratios = result["published"], result["ratios"]
    columns, unit = published["columns"], published["unit"]
    peaks = any("peak_gb" in row for row in published["rows"])
    rows = []
    for row in published["rows"]:
        times = (f"{row[key]['before']} → {row[key]['after']} {unit}: {row[key]['speed_up']:.2f}×" for key in columns)
        peak = (f"{row['peak_gb']['before']} → {row['peak_gb']['after']}",) if peaks else ()
        rows.append((f"{row['method']} (published)", *times, *peak))
    if UNCOMPRESSED in ratios:
        ours = [_times(ratios[UNCOMPRESSED][column["stage"]], inverse=True) for column in columns.values()]
        rows.append((f"{result['label']} (ours, this run)", *ours, *(["see above"] if peaks else [])))
    stages = ", and ".join(_OURS.get(column["stage"], STAGES[column["stage"]]) for column in columns.values())
    return Sheet(
        f"Beside published speed-ups, not measured here: {published['source']}",
        ("method", *(column["heading"] for column in columns.values()), *(["peak GB"] if peaks else [])),
        tuple(rows),
        f"Published for {published['setting']}. Ours: {stages}.",
    )


def _limit(variants: Mapping[str, Any], name: str, stage: str) -> str:
    what = "bytes" if stage == "step" else "operations"
    before, after = (variants[key]["work"].get(stage) for key in (UNCOMPRESSED, name))
    if stage in variants[UNCOMPRESSED]["work"] and not before:
        return "not counted"
    return f"{before[what] / after[what]:.2f}×" if before and after else "–"


def _ms(values: Mapping[str, float]) -> str:
    middle, low, high = (1000 * values[key] for key in ("median", "q1", "q3"))
    if not middle:
        return "–"
    digits = 0 if middle >= 1000 else 1 if middle >= 10 else 2
    return f"{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def _times(ratio: Mapping[str, Any] | None, *, inverse: bool = False) -> str:
    """`1.02× (1.00–1.03)`."""
    if ratio is None or not ratio["ratio"]:
        return "–"
    values = [ratio["ratio"], *(ratio["interval"] or [])]
    if inverse:
        values = [1 / value if value else float("inf") for value in (values[0], *reversed(values[1:]))]
    digits = 3 if 0.9 < values[0] < 1.1 else 2
    bounds = f" ({values[1]:.{digits}f}–{values[2]:.{digits}f})" if len(values) > 1 else ""
    return f"{values[0]:.{digits}f}×{bounds}"


def _mb(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.1f}"
