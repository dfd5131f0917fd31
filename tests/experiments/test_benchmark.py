"""`task=benchmark` through the command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.micro import clip_path
from experiments.benchmarking.picture import pieces
from experiments.benchmarking.tables import markdown, sheets
from experiments.benchmarking.variants import STAGES
from experiments.generate import take_turns
from tests.experiments.conftest import Command

QUICK = ("task=benchmark", "task.repeats=2", "max_new_tokens=3", "frames=8", "task.height=112", "task.width=112")
PLAIN = (*QUICK, "task.picture=false", "task.memory=false")
TINY = Path(__file__).parent / "tiny_qwen2vl.json"


def only_result(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("result.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_everything_is_measured_beside_its_baselines(vidpress: Command) -> None:
    pytest.importorskip("matplotlib")
    code, out, err, folder = vidpress(*QUICK, "task.batch=2")
    assert code == 0, err
    result = only_result(folder)
    assert list(result["variants"]) == ["uncompressed", "vidcom2", "random", "native"]
    assert list(result["ratios"]) == ["uncompressed", "random", "native"]
    sizes = result["sizes"]
    assert (sizes["batch"], sizes["kept"]) == (2, round(0.25 * sizes["visual"]))
    assert sizes["prompt_pressed"] == sizes["prompt"] - sizes["visual"] + sizes["kept"]
    for name, variant in result["variants"].items():
        for stage in STAGES:
            spent = variant["seconds"][stage]
            assert spent["q1"] <= spent["median"] <= spent["q3"]
            assert (spent["median"] > 0) == (stage != "compress" or name in ("vidcom2", "random"))
            assert len(variant["rounds"][stage]) == 2
        assert variant["work"]["prefill"]["operations"] > variant["work"]["step"]["operations"]
        assert result["throughput"]["requests_per_second"][name]["median"] > 0
    assert result["native"]["visual"] == sizes["kept"]
    works = {name: variant["work"]["prefill"] for name, variant in result["variants"].items()}
    assert works["vidcom2"] == works["random"] == works["native"]
    assert works["uncompressed"]["operations"] > works["vidcom2"]["operations"]
    assert result["shared"]["decode_video"]["median"] > 0 < result["shared"]["preprocess"]["median"]
    assert result["mechanism"]["method"] == "random"
    assert 0 < result["mechanism"]["attach_seconds"]["median"] < 0.1
    assert result["variants"]["vidcom2"]["peak_bytes"]["encode"] >= 0
    for shown in ("vision", "speed-up", "native = 1", "requests/s", "mechanism", "GFLOP/s", "Peak memory"):
        assert shown in out
    for name in ("benchmark.md", "stages.png"):
        assert len(list(folder.rglob(name))) == 1
    (page,) = folder.rglob("benchmark.md")
    assert "| stage | uncompressed | vidcom2 | random | native |" in page.read_text()
    bar = pieces(result, "vidcom2")
    assert bar["prefill"] == 1000 * result["variants"]["vidcom2"]["seconds"]["prefill"]["median"]
    assert min(bar.values()) >= 0


def test_a_chosen_baseline_alone(vidpress: Command) -> None:
    code, out, err, folder = vidpress(*PLAIN, "compressor=random", "task.against=[native]")
    assert code == 0, err
    result = only_result(folder)
    assert list(result["variants"]) == ["random", "native"]
    assert result["variants"]["random"]["peak_bytes"] is None
    assert "no picture" in out
    assert not list(folder.rglob("*.png"))
    assert result["mechanism"]["method"] == "random"


def test_without_baselines(vidpress: Command) -> None:
    code, _, err, folder = vidpress(*PLAIN, "task.against=[]", "retention=0.5", "positions=contiguous")
    assert code == 0, err
    result = only_result(folder)
    assert list(result["variants"]) == ["vidcom2"]
    assert (result["ratios"], result["mechanism"]) == ({}, None)


def test_another_architecture_a_prompt_length_and_processor_time(vidpress: Command) -> None:
    model = ("model=qwen2vl", "model.weights=random", f"model.architecture={TINY}", "model.dtype=float32")
    code, out, err, folder = vidpress(*PLAIN, *model, "task.prompt_length=50", "task.clock=processor")
    assert code == 0, err
    result = only_result(folder)
    assert result["sizes"]["text"] == 50
    assert result["sizes"]["answer"] == 3
    assert "processor time" in out


def test_threads_under_one_press(vidpress: Command) -> None:
    code, _, err, folder = vidpress(*PLAIN, "task.threads=2", "task.against=[uncompressed]")
    assert code == 0, err
    throughput = only_result(folder)["throughput"]
    assert throughput["threads"] == 2
    assert set(throughput["requests_per_second"]) == {"uncompressed", "vidcom2"}


def test_a_method_that_chooses_its_number_is_compared_at_that(vidpress: Command) -> None:
    code, _, err, folder = vidpress(
        *PLAIN, "compressor=fastvid_qwen_released", "retention=0.3", "task.against=[random,native]"
    )
    assert code == 0, err
    result = only_result(folder)
    assert result["sizes"]["kept"] != round(0.3 * result["sizes"]["visual"])
    prompts = {variant["work"]["prefill"]["operations"] for variant in result["variants"].values()}
    assert len(prompts) == 1


def test_a_video_of_ones_own(vidpress: Command) -> None:
    code, _, err, folder = vidpress(*PLAIN, f"video='{clip_path()}'", "task.against=[]")
    assert code == 0, err
    assert only_result(folder)["video"]["path"] == str(clip_path())


def test_published_speed_ups_are_called_published(vidpress: Command) -> None:
    code, out, err, folder = vidpress(*PLAIN, "task.published=vidcom2_table4", "retention=0.25")
    assert code == 0, err
    rows = {row["method"]: row for row in only_result(folder)["published"]["rows"]}
    assert rows["VidCom2"]["llm"]["speed_up"] == pytest.approx(618.0 / 180.7)
    assert "(published)" in out
    assert "not measured here" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("task.against=[nothing]",), "task.against=nothing"),
        (("task.clock=sun",), "write wall or processor"),
        (("task.repeats=0",), "task.repeats=0"),
        (("task.height=57",), "must be even"),
        (("task.published=table9",), "table9"),
        (("task.prompt_length=2",), "shortest prompt"),
        (("task.prompt_length=90", "question=What?"), "keep one"),
        (("frames=auto", "tokens=32"), "needs a number of frames"),
    ],
)
def test_what_cannot_be_is_said(vidpress: Command, arguments: tuple[str, ...], said: str) -> None:
    code, _, err, _ = vidpress(*PLAIN, *arguments)
    assert code == 2
    assert said in err


def test_a_missing_matplotlib_is_said_before_anything_slow(vidpress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else real(name, *a))
    code, _, err, _ = vidpress(*QUICK)
    assert code == 2
    assert "pip install 'vidpress[report]'" in err
    assert "task.picture=false" in err


def test_turns_begin_with_another_one_each_round() -> None:
    seen: list[str] = []
    outcomes = take_turns({name: lambda name=name: seen.append(name) or name for name in "abc"}, 4)
    assert "".join(seen) == "abcbcacababc"
    assert outcomes == {name: [name] * 4 for name in "abc"}


def test_tables_of_one_round_have_no_intervals(vidpress: Command) -> None:
    code, _, err, folder = vidpress(*PLAIN, "task.repeats=1", "task.warmup=0")
    assert code == 0, err
    result = only_result(folder)
    assert result["ratios"]["random"]["prefill"]["interval"] is None
    assert "not measured" in markdown(result, sheets(result), [])
    assert torch.get_num_threads() == result["device"]["threads"]
