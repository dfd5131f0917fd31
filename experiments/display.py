"""What tasks show on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

BAR_WIDTH = 40
MAX_BARS = 32
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
