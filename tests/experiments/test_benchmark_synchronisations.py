"""Counting synchronisations, as far as a machine without a GPU can go: PyTorch's warnings are given by a fake."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.overrides import TorchFunctionMode

from experiments import benchmark_synchronisations as benchmark
from experiments.benchmark_synchronisations import Waits, counting, main, verdict
from tests.adapters import tiny

READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__iter__", "nonzero"}
GIVEN = {"layers": 1, "frames": 2, "side": 56, "batch": 2, "caches": ["dynamic", "static"], "compressor": "vidcom2"}


class WarningDevice(TorchFunctionMode):
    """What a GPU's debug mode does at every read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = 0

    def set(self, mode: int | str) -> None:
        self.mode = {"default": 0, "warn": 1, "error": 2}.get(mode, mode)  # type: ignore[call-overload]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.mode == 1 and getattr(function, "__name__", "") in READS:
            warnings.warn(f"{benchmark.SAID} (Triggered internally at …)", UserWarning, stacklevel=2)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[WarningDevice]:
    """A machine that seems to have one, for what the script asks of it."""
    fake = WarningDevice()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", fake.set)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: fake.mode)
    with fake:
        yield fake


def test_without_a_gpu_it_says_so_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 1
    assert "needs a CUDA GPU" in capsys.readouterr().err


def test_each_wait_is_counted_at_its_line_and_other_warnings_are_shown(gpu: WarningDevice) -> None:
    values = torch.arange(3)
    with warnings.catch_warnings(record=True) as shown, counting() as places:
        for _ in range(5):
            values.sum().item()
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["something else"]
    assert places.total() == 5
    (line,) = places
    assert line.startswith(__file__)
    assert gpu.mode == 0


def test_the_mode_is_set_back_after_an_error(gpu: WarningDevice) -> None:
    with pytest.raises(RuntimeError), counting():
        raise RuntimeError
    assert gpu.mode == 0


@pytest.mark.parametrize("cache", benchmark.CACHES)
def test_a_press_waits_once_more_per_prompt_and_never_per_step(gpu: WarningDevice, cache: str) -> None:
    model, inputs = tiny.build(tiny.FAMILIES["qwen2_vl"]), tiny.prompt(tiny.FAMILIES["qwen2_vl"], tiny.LAYOUTS["one"])
    plain, pressed = benchmark.compared(model, inputs, benchmark.CACHES[cache], "random")
    assert pressed.prompt == plain.prompt + 1
    assert pressed.step == plain.step > 0, "generation looks at every token whether it is the last"
    assert verdict(plain, pressed) == "met"
    more = {place for place, count in pressed.places.items() if count > plain.places.get(place, 0)}
    assert more, "the line of the read more is named"


def test_the_bar() -> None:
    plain = Waits(5, 1)
    assert verdict(plain, Waits(6, 1)) == "met"
    assert verdict(plain, Waits(7, 1)) == verdict(plain, Waits(5, 1.125)) == "missed"


def test_everything_is_shown_and_written(
    gpu: WarningDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = benchmark.load_random
    monkeypatch.setattr(benchmark, "load_random", lambda path, **options: real(path, **{**options, "device": "cpu"}))
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "waits.json"
    small = str(Path(__file__).parent / "tiny_qwen2vl.json")
    main(
        [
            "--architectures",
            small,
            "--dtype",
            "float32",
            "--frames",
            "2",
            "--side",
            "56",
            "--batch",
            "2",
            "--json",
            str(file),
        ]
    )
    rows = json.loads(file.read_text())["rows"]
    ran = [row for row in rows if "not_run" not in row]
    assert [(row["attention"], row["cache"]) for row in ran] == [
        (attention, cache) for attention in ("eager", "sdpa") for cache in benchmark.CACHES
    ]
    assert all(row["plain"]["prompt"] > 0 for row in ran)
    (refused,) = (row for row in rows if "not_run" in row)
    assert refused["attention"] == "flash_attention_2"
    out = capsys.readouterr().out
    assert "tiny_qwen2vl" in out
    assert "not run" in out
    assert "flash_attention_2" in out


def test_what_the_library_cannot_do_is_a_row_that_says_so(gpu: WarningDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise ValueError("no such cache with this attention\nand more")

    real = benchmark.load_random
    monkeypatch.setattr(benchmark, "load_random", lambda path, **options: real(path, **{**options, "device": "cpu"}))
    monkeypatch.setattr(benchmark, "compared", refuse)
    small = str(Path(__file__).parent / "tiny_qwen2vl.json")
    rows = benchmark.measured(small, "eager", argparse.Namespace(**GIVEN, dtype="float32"))
    assert {row["not_run"] for row in rows} == {"no such cache with this attention"}
    console = Console(width=200, record=True, quiet=True)
    console.print(benchmark.table(rows, "vidcom2"))
