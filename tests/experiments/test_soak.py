"""`python -m experiments.soak`: the curve and its verdict."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from experiments import soak
from experiments.soak import Point, verdict


def curve(*rows: tuple[float, float], held: float = 1.0) -> list[Point]:
    """Points of (megabytes, milliseconds); the session's memory grows by `held` per row."""
    return [
        Point(
            10 * n, int(1e6 * size), int(1e6 * size), 1e-3 * spent, 1e-3 * spent, 0.1, 5, int(1e6 * held**n), 0, 0, None
        )
        for n, (size, spent) in enumerate(rows)
    ]


def test_what_grows_is_told() -> None:
    steady = verdict(curve((900, 90), *[(500, 10)] * 5, *[(510, 10.2)] * 5), 0.2)
    assert steady["steady"]
    assert not steady["filling"]
    assert steady["growth"]["resident"] == pytest.approx(0.02)
    assert not verdict(curve(*[(500 + 10 * n, 10) for n in range(10)]), 0.2)["steady"]
    assert not verdict(curve(*[(500, 10 + n) for n in range(10)]), 0.2)["steady"]
    assert verdict(curve(*[(500, 10)] * 10, held=1.1), 0.2)["filling"]


def test_a_short_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        sys, "argv", ["soak", "--frames=40", "--every=4", f"--output={tmp_path}", "memory=window", "memory.recent=40"]
    )
    with pytest.raises(SystemExit) as ended:
        soak.main()
    result = json.loads((tmp_path / "soak.json").read_text())
    assert ended.value.code == int(not result["steady"])
    assert [point["frames"] for point in result["curve"]] == list(range(4, 41, 4))
    assert all(point["resident"] > 1e7 for point in result["curve"])
    assert all(point["anonymous"] > 1e7 for point in result["curve"])
    assert max(point["held"] for point in result["curve"]) <= 60
    assert result["curve"][-1]["reuse"] > 0, "the cacher is in"
    with (tmp_path / "soak.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["frame_seconds"]) for row in rows] == [p["frame_seconds"] for p in result["curve"]]
    assert (tmp_path / "soak.png").stat().st_size > 1000
    assert "resident memory" in capsys.readouterr().out


def test_what_a_soak_cannot_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["--frames=10"], "--frames must be at least 10 times --every"),
        (["--every=3"], "a multiple of --chunk"),
        (["--frames=40", "--every=4", "memory=none"], "a soak needs a session: write memory=retrieval"),
    ):
        monkeypatch.setattr(sys, "argv", ["soak", *arguments])
        with pytest.raises(SystemExit) as ended:
            soak.main()
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
