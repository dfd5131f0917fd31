"""One row per run: every number recomputed here from the samples."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from compressors.errors import InputError
from experiments.reporting import tables
from experiments.reporting.collect import collect
from experiments.statistics import mcnemar, wilson
from tests.experiments.reporting.synthetic import KINDS, write_run

GROUPS = tables.question_groups(KINDS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        write_run(folder / f"{seed}", retention=0.1, seed=seed, skill=0.9, videos=20, failing=["1/3/scenes"])
    return collect([folder]).samples


def test_kinds_are_pooled_by_what_stands_before_the_underscore() -> None:
    assert GROUPS == {
        "flash": ["flash_color", "flash_shape"],
        "mover": ["mover_color", "mover_shape"],
        "scenes": ["scenes"],
    }
    assert tables.question_groups(KINDS, ["flash_shape", "mover"]) == {
        "flash_shape": ["flash_shape"],
        "mover": ["mover_color", "mover_shape"],
    }
    with pytest.raises(InputError, match=r"task.questions=flsh: no such kind of question. Did you mean flash\?"):
        tables.question_groups(KINDS, ["flsh"])


def test_accuracy_is_of_the_pooled_answers(samples: pd.DataFrame) -> None:
    table = tables.summarise(samples, GROUPS)
    row = table[table["method"] == "vidcom2"].iloc[0]
    own = samples[(samples["method"] == "vidcom2") & samples["error"].isna()]
    right = int(own["right"].sum())
    assert (row["n"], row["failed"], row["right"], row["seeds"]) == (199, 1, right, "0, 1")
    assert (row["low"], row["high"]) == wilson(right, 199)
    flash = own[own["kind"].str.startswith("flash")]["right"]
    assert (row["flash_n"], row["flash_accuracy"]) == (80, flash.mean())
    assert (row["flash_low"], row["flash_high"]) == wilson(int(flash.sum()), 80)
    assert row["retention"] == own["kept"].sum() / own["visual"].sum() == pytest.approx(0.1, abs=0.01)
    assert row["visual"] == own["visual"].mean()
    assert row["total"] == pytest.approx(row[["decode_video", "encode", "compress", "prefill", "decode"]].sum())


def test_differences_are_between_answers_to_the_same_questions(samples: pd.DataFrame) -> None:
    table = tables.summarise(samples, GROUPS).set_index("method")
    by_id = samples.pivot(index="id", columns="method", values="right").dropna()
    for other in ("none", "random"):
        difference = by_id["vidcom2"] - by_id[other]
        row = table.loc["vidcom2"]
        assert row[f"n_{other}"] == 199
        assert row[f"minus_{other}"] == pytest.approx(difference.mean())
        assert row[f"relative_to_{other}"] == by_id["vidcom2"].sum() / by_id[other].sum()
        assert row[f"p_{other}"] == mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
        assert row[f"minus_{other}_low"] < row[f"minus_{other}"] < row[f"minus_{other}_high"]
    assert table.loc["vidcom2", "minus_random_low"] > 0, "0.9 against 0.5 of skill must show"
    assert math.isnan(table.loc["random", "minus_random"])
    assert math.isnan(table.loc["none", "minus_none"])


def test_baselines_are_compared_at_the_same_budget_only(tmp_path: Path) -> None:
    write_run(tmp_path / "0", retention=0.1, videos=4)
    write_run(tmp_path / "1", "evs", retention=0.5, videos=4, against=("none",))
    table = tables.summarise(collect([tmp_path]).samples, GROUPS).set_index("method")
    assert table.loc["vidcom2", "n_random"] == 20
    assert math.isnan(table.loc["evs", "n_random"])
    assert table.loc["evs", "n_none"] == 20


def test_questions_that_are_not_asked_for_are_left_out(samples: pd.DataFrame) -> None:
    table = tables.summarise(samples, tables.question_groups(KINDS, ["scenes"]))
    assert set(table["n"]) == {39, 40}
    assert "scenes_accuracy" not in table.columns  # one group is the whole


def test_the_files_hold_the_same_numbers(samples: pd.DataFrame, tmp_path: Path) -> None:
    table = tables.summarise(samples, GROUPS)
    csv, parquet = tables.write_tables(table, tmp_path)
    read = pd.read_csv(csv).fillna({"settings": ""})
    pd.testing.assert_frame_equal(read, pd.read_parquet(parquet), check_dtype=False)
    assert len(pd.read_parquet(parquet)) == 3


def test_text_for_people(samples: pd.DataFrame) -> None:
    text = tables.readable(tables.summarise(samples, GROUPS), GROUPS)
    row = text[text["method"] == "vidcom2"].iloc[0]
    assert row["n"] == "199"
    assert row["failed"] == "1"
    assert "–" in row["accuracy %"]
    assert row["− random, points"].startswith("+")
    assert row["− random, points"].endswith("p < 0.001, n = 199")
    assert row["− none, points"].startswith("−")
    lines = tables.markdown(text).splitlines()
    assert len(lines) == 2 + 3
    assert {line.count(" | ") for line in lines} == {len(text.columns) - 1}


def test_what_cells_hold_cannot_break_out_of_a_markdown_table() -> None:
    assert tables.markdown(pd.DataFrame({"a": ["x|y\nz"]})).splitlines()[-1] == "| x\\|y z |"


def test_models_and_data_sets_are_not_put_side_by_side(samples: pd.DataFrame) -> None:
    both = pd.concat([samples, samples.assign(model="qwen2vl")])
    parts = tables.sections(tables.summarise(both, GROUPS))
    assert list(parts) == ["Model micro, data micro", "Model qwen2vl, data micro"]
    assert [len(part) for part in parts.values()] == [3, 3]
