"""Runs through a session: their memories stay apart in tables, and what they cost is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.reporting.collect import collect
from experiments.reporting.plots import write_plots
from experiments.reporting.tables import question_groups, readable, summarise
from tests.experiments.reporting.synthetic import write_run


def with_memory(folder: Path, memory: dict[str, Any], device_bytes: int, **told: Any) -> None:
    """A complete job whose answers came from a session."""
    write_run(folder, "stc_pruner", videos=3, against=["none"], settings={"memory": memory})
    path = folder / "samples.jsonl"
    stream = {"frames": 9, "held": 64, "used": 70, "host_bytes": 0, "disk_bytes": 0, "reuse": None}
    stream |= {"device_bytes": device_bytes, "frame_seconds": 0.02, **told}
    lines = [{**json.loads(line), "stream": stream} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_memories_stay_apart_and_show_what_they_hold(tmp_path: Path) -> None:
    with_memory(tmp_path / "a", {"name": "full", "limit": 99}, 8_000_000)
    with_memory(tmp_path / "b", {"name": "window", "recent": 64, "sink": 1}, 2_000_000, reuse=0.5)
    with_memory(tmp_path / "c", {"name": "window", "recent": 32, "sink": 1}, 1_000_000, host_bytes=3_000_000)
    write_run(tmp_path / "d", "stc_pruner", videos=3, against=[])
    found = collect([tmp_path])
    assert set(found.samples["settings"]) == {
        "memory=full",
        "memory=window(recent=64)",
        "memory=window(recent=32)",
        "memory=none",
    }
    groups = question_groups(found.samples["kind"])
    table = summarise(found.samples, groups, ["none"])
    assert len(table) == 7
    rows = table.set_index(["method", "settings"])
    row = rows.loc[("stc_pruner", "memory=window(recent=32)")]
    assert (row["device_bytes"], row["host_bytes"], row["held"]) == (1e6, 3e6, 64)
    assert row["frame_seconds"] == pytest.approx(0.02)
    text = readable(table, groups, ["none"]).set_index("method")
    assert text.loc["stc_pruner (memory=window(recent=64))", "reuse %"] == "50.0"
    assert text.loc["stc_pruner (memory=full)", "device MB"] == "8.00"
    assert text.loc["stc_pruner (memory=full)", "ms/frame"] == "20.0"
    assert text.loc["stc_pruner (memory=none)", "device MB"] == "–"
    written = write_plots(table, found.samples, groups, tmp_path)
    assert tmp_path / "memory.png" in written.values()


def test_without_sessions_nothing_is_said_of_memory(tmp_path: Path) -> None:
    write_run(tmp_path / "a", videos=3)
    found = collect([tmp_path])
    table = summarise(found.samples, question_groups(found.samples["kind"]))
    assert "device_bytes" not in table.columns
    assert set(found.samples["settings"]) == {""}
