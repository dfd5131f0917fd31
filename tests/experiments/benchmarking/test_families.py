"""`task=benchmark` as it is by default, in every family: all baselines, all tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.prompting import LayoutProcessor
from compressors.errors import InputError
from experiments import benchmark
from experiments.benchmarking.tables import markdown, sheets
from tests.adapters import tiny
from tests.conf.composing import composed

BYTES = 300  # a vocabulary with room for every byte
SIZES = ("frames=4", "task.height=28", "task.width=42", "max_new_tokens=2", "task.repeats=1", "task.warmup=0")
# Where no grid gives K tokens: a quarter of four frames is one of them, or less than one where it has marks of its own.
KINDS = {"gemma4", "internvl", "llava_onevision", "minicpmv4_6", "molmo2", "perception_lm", "smolvlm", "video_llava"}


def measured(family: tiny.Family, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    model = tiny.build(family, vocabulary=BYTES)
    monkeypatch.setattr(benchmark, "model_from", lambda cfg: (model, LayoutProcessor(model)))
    monkeypatch.setattr(benchmark, "output_folder", lambda: folder)
    cfg = composed("task=benchmark", "model=micro", *SIZES, "task.memory=false", "task.clock=processor", *more)
    return benchmark.measure(cfg)


def test_the_default_benchmark_runs(family: tiny.Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = measured(family, tmp_path, monkeypatch)
    assert list(result["variants"]) == ["uncompressed", "vidcom2", "random", "native"]
    native, sizes = result["native"], result["sizes"]
    assert native["visual"] + native["filled"] == sizes["kept"] < sizes["visual"]
    assert native["kind"] in (("frames", "text") if family.name in KINDS else ("grid", "frames"))
    for name, variant in result["variants"].items():
        assert all(work is not None and work["bytes"] >= 0 for work in variant["work"].values())
        assert ("compress" in variant["work"]) == (name == "vidcom2")
        assert (variant["work"]["encode"]["operations"] > 0) == (name != "native" or native["kind"] != "text")
    works = {name: variant["work"]["prefill"] for name, variant in result["variants"].items()}
    assert works["vidcom2"] == works["random"] == works["native"]
    page = markdown(result, sheets(result), [])
    assert "not counted" not in page
    assert ("without a video" in page) == (native["kind"] == "text")
    assert ("with whole frames" in page) == (native["kind"] == "frames")


def test_what_cannot_be_counted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PerceptionLM's own tower, say, which is timm's."""
    monkeypatch.setattr(benchmark, "countable", lambda model, inputs: (True, False))
    result = measured(tiny.FAMILIES["qwen2_vl"], tmp_path, monkeypatch, "task.against=[uncompressed]")
    page = markdown(result, sheets(result), [])
    assert "| vision encoder: vidcom2 | not counted | not counted | – | – |" in page
    assert "| vision encoder | " in page
    (row,) = [row for row in sheets(result)[1].rows if row[0] == "vision encoder"]
    assert row[2] == "not counted"


def test_stages_before_the_model_have_clock_memory_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, told = tiny.FAMILIES["qwen2_vl"], ("task.memory=true", "task.against=[]", "task.batch=2")
    # No time passes on the wall: what is left is the processor's.
    monkeypatch.setattr("experiments.benchmarking.before.time.perf_counter", lambda: 0.0)
    result = measured(family, tmp_path, monkeypatch, *told)
    assert all(result["shared"][stage]["median"] > 0 for stage in ("decode_video", "preprocess"))
    assert set(result["shared_peak_bytes"]) <= {"decode_video", "preprocess"}
    frames = 4 * 28 * 42 * 3
    (file,) = tmp_path.glob("*.mp4")
    assert result["shared_work"]["decode_video"]["bytes"] == frames + file.stat().st_size
    # Two rows of frames are read; two temporal groups of 2-pixel patches are written, in float32.
    assert result["shared_work"]["preprocess"]["bytes"] > 2 * frames
    features = result["variants"]["vidcom2"]["work"]["compress"]["bytes"]
    assert features == 2 * result["sizes"]["visual"] * 32 * 4


def test_processor_time_on_a_gpu_is_refused_before_a_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "check_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(benchmark, "model_from", lambda cfg: pytest.fail("a model was built"))
    with pytest.raises(InputError, match=r"model\.device=cpu"):
        benchmark.measure(composed("task=benchmark", "model=micro", *SIZES, "task.clock=processor"))
