"""Run folders, whole and broken, as one table of samples."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from adapters.errors import LoadError
from experiments.reporting.collect import WHOLE, Collection, collect, errors
from tests.experiments.reporting.synthetic import KINDS, hydra, write_failed, write_run, write_stopped


def count(found: Collection, method: str, budget: str = "retention 0.25") -> int:
    samples = found.samples
    return int(((samples["method"] == method) & (samples["budget"] == budget)).sum())


def test_runs_are_found_at_any_depth_and_baselines_are_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "multirun" / "day" / "0", videos=4)
    write_run(tmp_path / "one", "evs", videos=4)
    found = collect([tmp_path, tmp_path / "one"])  # a folder given twice is read once
    assert [count(found, name) for name in ("vidcom2", "evs", "random")] == [20, 20, 20]
    assert count(found, "none", WHOLE) == 20  # whatever the budget of the run it was measured in
    assert not found.notes
    assert found.unused.empty


def test_seeds_are_pooled_but_nothing_counts_twice(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0, videos=4)
    write_run(tmp_path / "1", seed=1, videos=4)
    write_run(tmp_path / "2", retention=0.5, seed=0, videos=4)
    found = collect([tmp_path])
    assert [count(found, "vidcom2"), count(found, "random"), count(found, "none", WHOLE)] == [40, 40, 40]
    assert not found.notes


def test_the_newest_measurement_wins_and_the_report_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", skill=0.0, videos=40, written=2000)
    write_run(tmp_path / "b", skill=1.0, videos=40, written=1000)
    found = collect([tmp_path])
    own = found.samples[found.samples["method"] == "vidcom2"]
    assert len(own) == 200
    assert set(own["folder"]) == {str(tmp_path / "a")}
    assert found.notes[0] == (
        f"vidcom2, retention 0.25, seed 0 was measured 2 times; what {tmp_path / 'a'} has counts."
    )
    assert "of 600 samples measured more than once changed answers" in found.notes[1]


def test_a_shorter_new_run_leaves_the_rest_of_an_old_one(tmp_path: Path) -> None:
    write_run(tmp_path / "old", videos=10, written=1000)
    write_run(tmp_path / "new", videos=2, written=2000)
    own = collect([tmp_path]).samples.query("method == 'vidcom2'")
    assert len(own) == 50
    assert (own["folder"] == str(tmp_path / "new")).sum() == 10


def test_runs_that_differ_in_a_setting_stay_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "0", settings={"frames": 16}, videos=4)
    write_run(tmp_path / "1", settings={"frames": 32}, videos=4)
    found = collect([tmp_path])
    assert set(found.samples["settings"]) == {"frames=16", "frames=32"}
    assert found.notes == ["Runs differ in frames, and stay apart where they do."]


def test_what_failed_or_stopped_is_listed_with_its_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "0", videos=4)
    write_failed(tmp_path / "1", "retention=2 is outside (0, 1]")
    write_failed(tmp_path / "2", "not ours", task="generate")
    write_stopped(tmp_path / "3", done=7)
    found = collect([tmp_path])
    rows = found.unused[["settings", "status", "reason"]].to_numpy().tolist()
    assert rows == [
        ["compressor=vidcom2 retention=2", "failed", "retention=2 is outside (0, 1]"],
        ["compressor=vidcom2", "stopped", "stopped after 7 samples, or still running"],
    ]
    assert "1 of 3 jobs are complete." in found.notes
    assert f"{tmp_path / '3'}: 1 unreadable line of samples.jsonl left out." in found.notes
    assert count(found, "vidcom2") == 20  # the stopped job's samples are not among them


def test_only_failures_are_a_report_too(tmp_path: Path) -> None:
    write_failed(tmp_path / "1", "no such file")
    found = collect([tmp_path])
    assert found.samples.empty
    assert len(found.unused) == 1


def test_half_a_line_is_left_out_and_missed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0", videos=4)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    (folder / "samples.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:30])
    notes = collect([tmp_path]).notes
    assert notes == [
        f"{folder}: 1 unreadable line of samples.jsonl left out.",
        f"{folder}: result.json counts 20 samples of random, samples.jsonl has 19.",
    ]


@pytest.mark.parametrize("broken", ["result.json", "error.json"])
def test_an_unreadable_job_fails_alone(tmp_path: Path, broken: str) -> None:
    write_run(tmp_path / "0", videos=4)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / broken).write_text("{")
    found = collect([tmp_path])
    assert count(found, "vidcom2") == 20
    assert "could not be read" in found.unused["reason"].item()


def test_a_result_without_its_samples(tmp_path: Path) -> None:
    write_run(tmp_path / "0", videos=4)
    (tmp_path / "0" / "samples.jsonl").unlink()
    assert collect([tmp_path]).unused["reason"].item() == "samples.jsonl is missing or empty"


def test_a_job_repeated_in_its_folder_is_as_it_ended_last(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0", videos=4, written=2000)
    error = folder / "error.json"
    error.write_text(json.dumps({"task": "evaluate", "error": "out of memory"}))
    assert collect([tmp_path]).unused["reason"].item() == "out of memory"
    write_run(tmp_path / "1", "evs", videos=4)
    (folder / "result.json").touch()
    assert collect([tmp_path]).unused.empty


def test_a_job_that_was_taken_up_elsewhere_is_read_there(tmp_path: Path) -> None:
    elsewhere = write_run(tmp_path / "elsewhere", videos=4, written=2000)
    stopped = tmp_path / "multirun" / "0"
    hydra(stopped, {"task": {"name": "evaluate", "folder": str(elsewhere)}})
    failed = write_failed(tmp_path / "multirun" / "1", "out of memory")
    (failed / ".hydra" / "config.yaml").write_text((stopped / ".hydra" / "config.yaml").read_text())
    os.utime(failed / "error.json", (1000, 1000))
    found = collect([tmp_path / "multirun"])
    assert count(found, "vidcom2") == 20
    assert found.unused.empty
    os.utime(failed / "error.json", (3000, 3000))
    assert collect([tmp_path / "multirun"]).unused["reason"].item() == "out of memory"


def test_a_job_that_was_killed_before_its_first_sample(tmp_path: Path) -> None:
    hydra(tmp_path / "0", {"task": {"name": "evaluate", "folder": None}}, "retention=0.1")
    hydra(tmp_path / "1", {"task": {"name": "generate"}})
    (tmp_path / "2" / ".hydra").mkdir(parents=True)
    (tmp_path / "2" / ".hydra" / "config.yaml").write_text("task: {name: [")
    (row,) = collect([tmp_path]).unused.to_dict("records")
    assert (row["settings"], row["reason"]) == ("retention=0.1", "stopped after 0 samples, or still running")


def test_failed_samples_are_counted_with_their_message(tmp_path: Path) -> None:
    write_run(tmp_path / "0", videos=4, failing=["0/1/scenes", "0/2/scenes"])
    samples = collect([tmp_path]).samples
    assert samples.query("method == 'vidcom2'")["right"].isna().sum() == 2
    (row,) = errors(samples).to_dict("records")
    assert (row["method"], row["error"], row["samples"]) == ("vidcom2", "the video could not be decoded", 2)


def test_budgets_stand_once_per_video_and_count_for_all_its_questions(tmp_path: Path) -> None:
    write_run(tmp_path / "0", videos=4)
    samples = collect([tmp_path]).samples
    assert samples["budgets"].map(len).gt(0).all()
    assert samples["places"].eq(16).all()
    assert samples.groupby(["method", "video"])["budgets"].agg(lambda all_of: len(set(map(tuple, all_of)))).eq(1).all()
    assert set(samples["kind"]) == set(KINDS)


def test_states_of_the_code_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "0", videos=4)
    write_run(tmp_path / "1", "evs", videos=4, commit="def5678 with changes")
    assert collect([tmp_path]).notes == ["Runs come from 2 states of the code: abc1234, def5678 with changes."]


def test_no_folder_and_no_runs(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=f"{tmp_path}/nowhere: no such folder"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "result.json").write_text('{"question": "of task=generate"}')
    with pytest.raises(LoadError, match=f"{tmp_path}: no runs of task=evaluate"):
        collect([tmp_path])
