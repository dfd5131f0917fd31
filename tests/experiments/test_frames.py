"""`frames=auto`: a token budget decides how many frames of a video are looked at."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.micro import clip_path
from compressors import build
from experiments import frames
from experiments.frames import AutoFrames
from tests.experiments.conftest import Command

QUICK = ("task.warmup=false", "task.repeats=1", "max_new_tokens=4", "task.baseline=false")


def only_result(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("result.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize(
    ("settings", "sampled", "kept", "retention"),  # the embedded clip has 32 frames, its model 16 tokens per two
    [
        (["tokens=32"], 16, 32, 0.25),
        (["tokens=32", "auto_retention=1"], 4, 32, 1.0),
        (["tokens=32", "auto_retention=0.125"], 32, 32, 0.125),
        (["tokens=40"], 20, 40, 0.25),
        (["tokens=128"], 32, 128, 0.5),
        (["tokens=3000"], 32, 256, 1.0),
        (["tokens=2"], 2, 2, 0.125),
    ],
)
def test_a_budget_pays_for_frames(
    vidpress: Command, settings: list[str], sampled: int, kept: int, retention: float
) -> None:
    code, out, err, folder = vidpress("frames=auto", *settings, *QUICK)
    assert code == 0, err
    result = only_result(folder)
    assert result["video"]["frames"] == result["frames_auto"]["frames"] == sampled
    assert result["tokens"]["kept"] == result["frames_auto"]["tokens"] == kept
    assert result["tokens"]["retention"] == result["frames_auto"]["retention"] == retention
    assert len(result["budgets"]) == result["frames_auto"]["groups"] == sampled // 2
    assert f"{sampled} of 32 (auto: {kept} tokens are {retention:.1%} of {sampled // 2} × 16)" in " ".join(out.split())


def test_a_models_default_may_be_auto(vidpress: Command) -> None:
    code, _, err, folder = vidpress("model.frames=auto", "tokens=24", *QUICK)
    assert code == 0, err
    assert only_result(folder)["video"]["frames"] == 12


def test_a_number_of_frames_chooses_nothing(vidpress: Command) -> None:
    code, _, err, folder = vidpress("frames=8", "tokens=24", *QUICK)
    assert code == 0, err
    assert only_result(folder)["frames_auto"] is None


def test_places_are_measured_again_where_they_depend_on_the_number_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def places(model: Any, processor: Any, count: int, height: int, width: int) -> int:
        asked.append(count)
        return 16 if count < 8 else 10

    monkeypatch.setattr(frames, "places_per_group", places)
    monkeypatch.setattr(frames, "family_of", lambda _: SimpleNamespace(frames_per_group=lambda _: 2))
    choose = AutoFrames(None, None, build("vidcom2"), 30, 0.25)
    chosen = choose(clip_path())
    assert (chosen.places, chosen.plan.groups, chosen.plan.frames) == (10, 12, 24)
    assert chosen.plan.retention == 0.25
    choose(clip_path())
    assert asked == [2, 14, 24], "once per size"
