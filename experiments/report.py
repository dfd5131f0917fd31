"""`task=report`: collect runs of `task=evaluate` into one table, pictures and a page."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from adapters.errors import LoadError
from compressors.errors import InputError
from experiments.results import output_folder, write_text

if TYPE_CHECKING:
    import pandas as pd

NEEDS = ("pandas", "pyarrow", "matplotlib", "jinja2")
DEFAULT_RUNS = ("outputs", "multirun")
SHOWN = ("method", "budget", "n", "accuracy %", "of none %", "total s")
SHOWN_OF_SESSIONS = ("method", "budget", "accuracy %", "device MB", "host MB", "ms/frame")
REMARKS = {
    "micro": "micro is the embedded model: small, trained on generated clips. "
    "It is a test bed: a ranking on it is a ranking on it, no more."
}


def run(cfg: DictConfig) -> None:
    """Collect, compare, draw, and write `report.csv`, `.parquet`, `.md`, `.html` and the pictures.

    Raises:
        LoadError: a package is missing, a folder does not exist, or there are no runs in any.
        InputError: no question is of a kind that was asked for.
        UnknownNameError: no published table has that name.
    """
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise LoadError(f"task=report needs {', '.join(missing)}: pip install 'vidpress[report]'.")
    # After that check, as they need the extra packages.
    import pandas as pd

    from experiments.reporting import collect, page, pairs, plots, published, tables

    beside = published.published(_list(cfg.task.published))
    found = collect.collect(places_from(cfg))
    folder = Path(cfg.task.folder) if cfg.task.folder else output_folder()
    folder.mkdir(parents=True, exist_ok=True)
    sections, written, errors = [], [], collect.errors(found.samples)
    console, compared = Console(), pd.DataFrame()
    if len(found.samples):
        against = _list(cfg.task.against)
        groups = tables.question_groups(found.samples["kind"], _list(cfg.task.questions) or None)
        table = tables.summarise(found.samples, groups, against)
        written += tables.write_tables(table, folder)
        if cfg.task.pairs:
            wanted: Any = OmegaConf.to_container(cfg.task.pairs)
            numbers = pairs.differences(found.samples, groups, wanted)
            numbers.to_csv(folder / "pairs.csv", index=False)
            written.append(folder / "pairs.csv")
            compared = pairs.readable(numbers, groups)
        parts = tables.sections(table)
        for title, part in parts.items():
            model, data = part.iloc[0][["model", "data"]]
            own = found.samples[(found.samples["model"] == model) & (found.samples["data"] == data)]
            where = folder / f"{model}_{data}" if len(parts) > 1 else folder
            where.mkdir(exist_ok=True)
            pictures = plots.write_plots(part, own, groups, where)
            written += pictures.values()
            text = tables.readable(part, groups, against)
            sections.append(page.Section(title, REMARKS.get(model, ""), text, pictures))
            show(console, title, text)
    content = page.Content(
        cfg.task.title or "vidpress report", found.notes, sections, found.unused, errors, beside, compared
    )
    written.append(write_text(folder / "report.md", page.markdown_page(content, folder)))
    written.append(write_text(folder / "report.html", page.html(content)))
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True, highlight=False, markup=False)
    for job in found.unused.itertuples():
        console.print(f"{job.status}: {job.folder}: {job.reason}", soft_wrap=True, highlight=False, markup=False)
    for path in written:
        Console(stderr=True).print(f"written: {path}", soft_wrap=True, highlight=False)


def places_from(cfg: DictConfig) -> list[Path]:
    """The folders to search; what is not there is for `collect` to say."""
    given = [Path(place) for place in _list(cfg.task.runs)]
    return given or [Path(name) for name in DEFAULT_RUNS if Path(name).is_dir()] or [Path(DEFAULT_RUNS[0])]


def show(console: Console, title: str, text: pd.DataFrame) -> None:
    """The columns that fit a terminal; the files have all."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    columns = SHOWN_OF_SESSIONS if "device MB" in text.columns else SHOWN
    names = [name for name in columns if name in text.columns]
    for name in names:
        shown.add_column(name, justify="left" if name in SHOWN[:2] else "right", overflow="fold")
    for row in text[names].itertuples(index=False, name=None):
        shown.add_row(*row)
    console.print(shown)


def _list(value: Any) -> list[str]:
    """One name, several, or none."""
    if value is None:
        return []
    if isinstance(value, ListConfig):
        return [str(item) for item in value]
    if isinstance(value, str):
        return [value]
    raise InputError(f"{value}: write a name, or several as [one, two].")
