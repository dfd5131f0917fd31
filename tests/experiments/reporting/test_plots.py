"""Pictures: all of them for few and many methods, of a size a screen can show. How they look is for eyes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from experiments.reporting import plots
from experiments.reporting.collect import collect
from experiments.reporting.tables import question_groups, summarise
from tests.experiments.reporting.synthetic import write_run

PICTURES = ["accuracy", "budgets", "budgets_of_one_video", "latency"]


def samples_of(folder: Path, methods: int, *retentions: float) -> pd.DataFrame:
    for index in range(methods):
        for retention in retentions:
            write_run(folder / f"{index}-{retention}", f"method_{index:02}", retention, skill=index / methods, videos=3)
    return collect([folder]).samples


@pytest.mark.parametrize(("methods", "retentions"), [(3, (0.1, 0.25)), (20, (0.1, 0.5)), (20, (0.1,)), (1, (0.1,))])
def test_every_picture_for_few_and_many(tmp_path: Path, methods: int, retentions: tuple[float, ...]) -> None:
    samples = samples_of(tmp_path, methods, *retentions)
    groups = question_groups(samples["kind"])
    written = plots.write_plots(summarise(samples, groups), samples, groups, tmp_path)
    assert sorted(path.stem for path in written.values()) == PICTURES
    for path in written.values():
        height, width, _ = (picture := imread(path)).shape
        assert 500 < width < 2600
        assert 150 < height < 2600
        assert picture[..., :3].std() > 0.03, "next to nothing is drawn"


def test_many_kinds_of_questions_go_on_in_another_picture(tmp_path: Path) -> None:
    samples = samples_of(tmp_path, 2, 0.1, 0.25)
    kinds = sorted(set(samples["kind"]))
    groups = question_groups(kinds, kinds)
    written = plots.write_plots(summarise(samples, groups), samples, groups, tmp_path)
    assert {"accuracy", "accuracy_2"} < {path.stem for path in written.values()}


def test_only_the_uncompressed_model(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "none", 1.0, against=(), videos=3)
    samples = collect([tmp_path]).samples
    groups = question_groups(samples["kind"])
    written = plots.write_plots(summarise(samples, groups), samples, groups, tmp_path)
    assert {path.stem for path in written.values()} == {"accuracy", "latency"}


def test_no_panel_holds_more_lines_than_can_be_told_apart(tmp_path: Path) -> None:
    samples = samples_of(tmp_path, 20, 0.1, 0.5)
    table = summarise(samples, question_groups(samples["kind"]))
    figure = plots._curves(table.assign(name=table["method"]), {"all questions": ""})
    drawn = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in figure.axes]
    assert all(names[:2] == ["none (all tokens)", "random"] for names in drawn)
    assert sorted(name for names in drawn for name in names[2:]) == [f"method_{index:02}" for index in range(20)]
    assert max(map(len, drawn)) <= plots.PER_PANEL + 2


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_names_beside_points_do_not_touch(heights: list[float]) -> None:
    heights.sort(reverse=True)
    places = plots._spread(heights, 0.05)
    assert all(above - below > 0.05 - 1e-9 for above, below in pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 1 + 1e-9
    if all(above - below > 0.05 for above, below in pairwise(heights)):
        assert places == heights  # nothing moves without need
