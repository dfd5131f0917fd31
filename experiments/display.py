"""What tasks show on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

BAR_WIDTH = 40
MAX_BARS = 32
MAX_REASONS = 5
SPARKS = "▁▂▃▄▅▆▇█"
STAGES = {
    "decode_video": "decode video",
    "encode": "encode",
    "compress": "compress",
    "prefill": "prefill",
    "decode": "decode",
}


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr, as a `progress(done, total)` callback."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def counting_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time still needed, on stderr; call `advance(n)` for every `n` done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, advance=count)


def percent(value: float | None, interval: Sequence[float] | None = None, *, sign: bool = False) -> str:
    """`93.6 (91.5–95.1)`, or a dash where nothing was measured."""
    if value is None:
        return "–"
    form, between = ("{:+.1f}", " to ") if sign else ("{:.1f}", "–")
    bounds = "" if interval is None else f" ({between.join(form.format(100 * bound) for bound in interval)})"
    return form.format(100 * value) + bounds


def evaluation_tables(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The tables of `task=evaluate`: runs, accuracy by kind of question, differences."""
    runs, main = result["runs"], result["label"]
    table = Table(title=f"Accuracy in %, 95 % intervals (Wilson); {result['data']}", title_justify="left")
    table.add_column("method", no_wrap=True)
    for column in ("n", "failed", "accuracy", "tokens kept", "s/question"):
        table.add_column(column, justify="right")
    for name, run in runs.items():
        kept = "–" if run["visual"] is None else f"{run['kept']:.0f} of {run['visual']:.0f}"
        seconds = f"{sum(run['seconds'].values()):.3f}"
        cells = (str(run["n"]), str(run["failed"]), percent(run["accuracy"], run["interval"]), kept, seconds)
        table.add_row(Text(name, "bold" if name == main else ""), *cells)
    yield Padding(table, (1, 0, 0, 0))
    kinds = list(dict.fromkeys(kind for run in runs.values() for kind in run["kinds"]))
    if len(kinds) > 1:
        table = Table(title="By kind of question (intervals are in result.json)", title_justify="left")
        table.add_column("method", no_wrap=True)
        for kind in kinds:
            table.add_column(kind.replace("_", "\n"), justify="right")
        for name, run in runs.items():
            scores = [run["kinds"].get(kind) for kind in kinds]
            table.add_row(Text(name), *(percent(score["accuracy"]) if score else "–" for score in scores))
        yield Padding(table, (1, 0, 0, 0))
    yield from _memory_table(runs)
    yield from _protocol_table(runs, result["data"])
    if result["errors"]:
        table = Table(title="Samples that failed, over all methods", title_justify="left")
        table.add_column("samples", justify="right")
        table.add_column("reason")
        for reason, count in sorted(result["errors"].items(), key=lambda item: -item[1])[:MAX_REASONS]:
            table.add_row(str(count), Text(reason))
        yield Padding(table, (1, 0, 0, 0))
    compared = {name: c for name, c in result["comparisons"].items() if c is not None}
    if compared:
        table = Table(
            title=f"{main} on the same samples; 95 % intervals by bootstrap over videos", title_justify="left"
        )
        table.add_column("against", no_wrap=True)
        for column in ("n", "relative", "difference", "won", "lost", "p (McNemar)"):
            table.add_column(column, justify="right")
        for name, pair in compared.items():
            relative = "–" if pair["relative"] is None else f"{100 * pair['relative']:.1f} %"
            difference = percent(pair["difference"], pair["interval"], sign=True)
            counts = (str(pair["won"]), str(pair["lost"]), f"{pair['p']:.2g}")
            table.add_row(Text(name), str(pair["n"]), relative, difference, *counts)
        yield Padding(table, (1, 0, 0, 0))


def _memory_table(runs: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What the memory of a session came to, where there was one."""
    if not any("stream" in run for run in runs.values()):
        return
    table = Table(title="Memory of the session, means over questions", title_justify="left")
    table.add_column("method", no_wrap=True)
    for column in ("frames", "slots held", "slots used", "device MB", "host MB", "reuse", "ms/frame"):
        table.add_column(column, justify="right")
    for name, run in runs.items():
        if one := run.get("stream"):
            counts = (f"{one[key]:.0f}" for key in ("frames", "held", "used"))
            sizes = (f"{one[key] / 1e6:.2f}" for key in ("device_bytes", "host_bytes"))
            speed = "–" if one["frame_seconds"] is None else f"{1e3 * one['frame_seconds']:.1f}"
            table.add_row(Text(name), *counts, *sizes, percent(one["reuse"]), speed)
    yield Padding(table, (1, 0, 0, 0))


def _protocol_table(runs: Mapping[str, Any], data: str) -> Iterator[RenderableType]:
    """A published benchmark's own score, where the data are one."""
    scores = {name: run["protocol"] for name, run in runs.items() if "protocol" in run}
    if not scores:
        return
    title = f"Score of {data}, in %; what was not answered is wrong"
    table = Table(title=title, title_justify="left")
    table.add_column("method", no_wrap=True)
    groups = list(dict.fromkeys(group for score in scores.values() for group in score.get("groups", ())))
    for column in ("n", "unanswered", *groups, "total"):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        shares = (percent(score["groups"].get(group)) for group in groups)
        table.add_row(Text(name), str(score["n"]), str(score["unanswered"]), *shares, percent(score["total"]))
    yield Padding(table, (1, 0, 0, 0))


def facts(rows: Mapping[str, str]) -> RenderableType:
    """Names and values, one per line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def stage_table(method: str, seconds: Mapping[str, float], baseline: Mapping[str, float] | None) -> RenderableType:
    """Seconds per stage with compression, and beside those without it."""
    table = Table(title="Seconds per stage", title_justify="left", title_style="bold")
    table.add_column("stage")
    if baseline is not None:
        table.add_column("all tokens", justify="right")
    table.add_column(method, justify="right")
    if baseline is not None:
        table.add_column("speed-up", justify="right")
    rows = [(title, stage, seconds[stage]) for stage, title in STAGES.items()]
    for title, stage, spent in [*rows, ("total", None, sum(seconds.values()))]:
        cells = [f"{spent:.4f}"]
        if baseline is not None:
            before = sum(baseline.values()) if stage is None else baseline[stage]
            # Compression has nothing to be compared with.
            ratio = f"{before / spent:.2f}×" if before and spent and stage != "compress" else "–"
            cells = [f"{before:.4f}", *cells, ratio]
        table.add_row(title, *cells, style="bold" if stage is None else None, end_section=stage == "decode")
    return table


def budget_chart(budgets: Sequence[int], places: int) -> RenderableType:
    """Tokens kept in each frame: a bar per frame, or one line of sparks where there are many."""
    title = Text(f"Tokens kept per frame (of {places})", style="bold")
    if len(budgets) > MAX_BARS:
        top = len(SPARKS) - 1
        return Group(title, Text("".join(SPARKS[round(top * kept / places)] for kept in budgets)))
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim")
    table.add_column(justify="right")
    table.add_column()
    for frame, kept in enumerate(budgets):
        table.add_row(str(frame), str(kept), Bar(places, 0, kept, width=BAR_WIDTH, color="cyan"))
    return Group(title, table)
