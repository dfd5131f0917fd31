"""VidCom2's cost on a GPU: the plain operations, the fused kernels, and their replay from a CUDA graph, in floors.

    python -m experiments.benchmark_kernels [--sizes 32x196x3584 384x180x3584] [--dtypes float32 bfloat16]

A floor is one read of the features (`vector_norm`). Every round times each form once, in turn, by CUDA events, the
second-level cache overwritten before each; figures are ratios of medians with 95 % intervals. Before that, each form
runs with synchronisation forbidden (`torch.cuda.set_sync_debug_mode("error")`) and is captured in a CUDA graph: both
fail if a value is read on the host. What is kept must be the same in all forms.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from compressors import Compression, build, compress, kernels
from experiments.benchmark_compressor import RETENTION, SIZES, video
from experiments.results import versions, write_json
from experiments.statistics import paired_ratio, spread

V = TypeVar("V")
FORMS: tuple[kernels.Mode, ...] = ("plain", "fused")
_CACHE_BYTES = 256 << 20  # more than any second-level cache holds


def forms(features: Tensor, method: str, validate: bool = False) -> dict[str, Callable[[], Compression]]:
    """The same compression by the plain operations and by the fused kernels."""
    compressor = build(method)

    def call(mode: kernels.Mode) -> Callable[[], Compression]:
        def run() -> Compression:
            with kernels.using(mode):
                return compress(features, compressor, retention=RETENTION, validate=validate)

        return run

    return {mode: call(mode) for mode in FORMS}


def without_synchronising(call: Callable[[], V]) -> V:
    """The call's result; an error if it waits for the device."""
    call()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        return call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def captured(call: Callable[[], V]) -> tuple[Callable[[], None], V]:
    """The call as a CUDA graph to be replayed, and the result that a replay writes into."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result


def measure(features: Tensor, method: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the floor and of every form, round by round.

    Raises:
        RuntimeError: a form synchronises, cannot be captured, or keeps other tokens than the plain one.
    """
    calls: dict[str, Callable[[], object]] = {"floor": lambda: torch.linalg.vector_norm(features, dim=-1)}
    kept: dict[str, Tensor] = {}
    for name, call in forms(features, method).items():
        kept[name] = without_synchronising(call).keep
        replay, result = captured(call)
        replay()
        calls |= {name: call, f"{name}, CUDA graph": replay}
        kept[f"{name}, CUDA graph"] = result.keep
    for name, keep in kept.items():
        same = torch.isin(keep, kept["plain"]).float().mean().item()
        # Two scores closer than rounding may change places; anything else is a mistake.
        if same < 0.999:
            raise RuntimeError(f"{name} keeps {same:.2%} of the tokens that the plain operations keep.")
    scratch = torch.empty(_CACHE_BYTES, dtype=torch.int8, device=features.device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 3):
        for name, run in calls.items():
            scratch.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            run()
            end.record()
            end.synchronize()
            if number >= 3:
                times[name].append(start.elapsed_time(end))
    return times


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="vidcom2")
    parser.add_argument("--sizes", nargs="+", default=[*SIZES, "64x169x3584"], help="frames x tokens x channels")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--json", type=Path, help="write all times into this file")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("This needs a CUDA GPU; on a processor run python -m experiments.benchmark_compressor.")
    if not kernels.installed():
        raise SystemExit("This needs Triton 3.3 or newer: pip install 'vidpress[kernels]'.")
    table = Table(title=f"{given.method} on {torch.cuda.get_device_name()}, in floors", title_justify="left")
    rows: dict[str, dict[str, list[float]]] = {}
    for size in given.sizes:
        for dtype in given.dtypes:
            frames, places, channels = (int(number) for number in size.split("x"))
            features = video(frames, places, channels, getattr(torch, dtype)).features.cuda()
            times = rows[f"{size} {dtype}"] = measure(features, given.method, given.rounds)
            if not table.columns:
                for title in ("size", "floor, ms", *(name for name in times if name != "floor")):
                    table.add_column(title, justify="left" if title == "size" else "right")
            cells = [_cell(paired_ratio(times[name], times["floor"])) for name in times if name != "floor"]
            table.add_row(f"{size} {dtype}", f"{spread(times['floor'])['median']:.3f}", *cells)
    Console().print(table)
    if given.json:
        write_json(given.json, {"method": given.method, "milliseconds": rows, "versions": versions()})


def _cell(ratio: dict[str, object] | None) -> str:
    if ratio is None:
        return "–"
    value, interval = ratio["ratio"], ratio.get("interval")
    return f"{value:.2f}" if not interval else f"{value:.2f} ({interval[0]:.2f}–{interval[1]:.2f})"  # type: ignore[index]


if __name__ == "__main__":
    main()
