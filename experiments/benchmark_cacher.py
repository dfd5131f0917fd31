"""Time of a vision tower with and without STC-Cacher, beside the operations of both.

    python -m experiments.benchmark_cacher                                # SigLIP-so400m's sizes, random weights
    python -m experiments.benchmark_cacher --layers 3 --rounds 3          # the same ratios on a small or busy machine
    python -m experiments.benchmark_cacher --device cuda --graphs --dtype bfloat16

A stream's frames come one at a time, one call of the tower each, one frame to a chunk; "in one call" hands over all of
them at once, as `press` does with a clip. Dense is the faster of frame by frame and all frames in one batch. Everything
takes turns in every round; ratios are of medians, their intervals (in the JSON) by bootstrap over rounds. The bar: the
time is at most 1.10 times what the share of operations would allow.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from adapters.caching import bind_cacher
from compressors.cachers.operations import LayerSize, tower_operations
from compressors.cachers.stc import STC
from experiments.generate import take_turns
from experiments.results import commit, versions, write_json, write_text
from experiments.statistics import paired_ratio

ALONE, BATCH = "dense, frame by frame", "dense, in one batch"
SLACK = 1.10
PATCH = 14


def tower_of(given: argparse.Namespace) -> nn.Module:
    """A SigLIP tower without its head, with random weights."""
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=given.width,
        intermediate_size=given.mlp,
        num_hidden_layers=given.layers,
        num_attention_heads=given.heads,
        image_size=given.side * PATCH,
        patch_size=PATCH,
        vision_use_head=False,
    )
    tower: nn.Module = SiglipVisionModel(config).to(given.device, getattr(torch, given.dtype)).eval()
    return tower


def operations(given: argparse.Namespace, cacher: STC | None) -> float:
    """Operations of the tower over all frames, patch embedding included."""
    layers = [LayerSize(given.width, 2 * given.width * given.mlp)] * given.layers
    places = given.side**2
    embedding: float = 2 * given.frames * places * 3 * PATCH**2 * given.width
    return embedding + tower_operations(cacher, layers, places, given.frames)


def stream(tower: nn.Module, cacher: STC, pixels: Tensor) -> list[Tensor]:
    """One call per frame."""
    binding = bind_cacher(tower, cacher)
    try:
        with binding.using(binding.new_state()):
            return [tower(frame).last_hidden_state for frame in torch.split(pixels, 1)]
    finally:
        binding.remove()


def clip(tower: nn.Module, cacher: STC, pixels: Tensor) -> list[Tensor]:
    """One call for all frames."""
    binding = bind_cacher(tower, cacher)
    try:
        with binding.using(binding.new_state(keep=False)):
            return [tower(pixels).last_hidden_state]
    finally:
        binding.remove()


def dense(tower: nn.Module, pixels: Tensor, size: int) -> list[Tensor]:
    """The tower as it is, so many frames per call."""
    return [tower(frames).last_hidden_state for frames in torch.split(pixels, size)]


class Replay:
    """A stream through two CUDA graphs, one for full frames and one for the others, on buffers that stay in place.

    Not run on a GPU yet.
    """

    def __init__(self, tower: nn.Module, cacher: STC, pixels: Tensor) -> None:
        self._interval, self._pixels = cacher.interval, pixels
        self._binding = bind_cacher(tower, cacher)
        state, self._input = self._binding.new_state(), pixels[:1].clone()

        def call() -> Tensor:
            with self._binding.using(state):
                return tower(self._input).last_hidden_state  # type: ignore[no-any-return]

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # buffers are allocated here, outside the graphs
            for _ in range(2):
                state.reset()
                call(), call()
        torch.cuda.current_stream().wait_stream(side)
        state.reset()
        self._graphs: list[tuple[Any, Tensor]] = []
        for _ in range(2):  # a stream's first frame is computed in full, its second is not
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = call()
            self._graphs.append((graph, output))

    def __call__(self) -> list[Tensor]:
        outputs = []
        for number, frame in enumerate(torch.split(self._pixels, 1)):
            graph, output = self._graphs[(number if self._interval is None else number % self._interval) > 0]
            self._input.copy_(frame)
            graph.replay()
            outputs.append(output.clone())
        return outputs


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every round of every variant, operations, and ratios to dense."""
    tower = tower_of(given)
    side = given.side * PATCH
    pixels = torch.randn(given.frames, 3, side, side, device=given.device, dtype=getattr(torch, given.dtype))
    cachers = {n: STC(interval=n, update_ratio=given.update_ratio, selection=given.selection) for n in given.intervals}
    runs: dict[str, Callable[[], Any]] = {
        ALONE: partial(dense, tower, pixels, 1),
        BATCH: partial(dense, tower, pixels, given.frames),
    }
    works = {ALONE: operations(given, None), BATCH: operations(given, None)}
    for interval, cacher in cachers.items():
        variants: dict[str, Callable[[], Any]] = {
            f"stc, interval {interval}": partial(stream, tower, cacher, pixels),
            f"stc, interval {interval}, in one call": partial(clip, tower, cacher, pixels),
        }
        if given.graphs:
            variants[f"stc, interval {interval}, CUDA graphs"] = Replay(tower, cacher, pixels)
        runs |= variants
        works |= dict.fromkeys(variants, operations(given, cacher))
    with torch.inference_mode():
        for run in runs.values():
            run()
        seconds = take_turns(
            {name: partial(timed, run, given.device, given.clock) for name, run in runs.items()}, given.rounds
        )
    faster = min((ALONE, BATCH), key=lambda name: statistics.median(seconds[name]))
    rows = {}
    for name, taken in seconds.items():
        share = works[name] / works[ALONE]
        ratio = paired_ratio(taken, seconds[faster])
        rows[name] = {
            "seconds": taken,
            "median": statistics.median(taken),
            "operations": works[name],
            "share": share,
            "ratio": ratio,
            "bar": SLACK * share if name.startswith("stc") else None,
        }
    return {
        "settings": vars(given) | {"json": None, "markdown": None},
        "dense": faster,
        "rows": rows,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "versions": versions(),
        "commit": commit(),
    }


def timed(run: Callable[[], Any], device: str, clock: str) -> float:
    """Seconds of a run: of the clock on the wall, or of this process's time on processors, for busy machines."""
    now = time.process_time if clock == "processor" else time.perf_counter
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.synchronize()
    start = now()
    run()
    if on_gpu:
        torch.cuda.synchronize()
    return now() - start


COLUMNS = ("encoder", "seconds", "10¹² operations", "share of operations", "share of time", "bar", "met")


def cells(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows."""
    found: list[tuple[str, ...]] = []
    for name, row in result["rows"].items():
        ratio, bar = row["ratio"]["ratio"], row["bar"]
        counted = (f"{row['median']:.3f}", f"{row['operations'] / 1e12:.3f}", f"{row['share']:.3f}", f"{ratio:.3f}")
        judged = ("–", "–") if bar is None else (f"≤ {bar:.3f}", "yes" if ratio <= bar else "no")
        found.append((name, *counted, *judged))
    return found


def markdown(result: dict[str, Any]) -> str:
    """The table as Markdown, with the conditions below it."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "--:|" * (len(COLUMNS) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in cells(result)]
    return "\n".join(lines) + f"\n\n{conditions(result)}\n"


def conditions(result: dict[str, Any]) -> str:
    """What was run where, in a line."""
    given, threads = result["settings"], result["machine"]["threads"]
    return (
        f"{given['layers']} layers of width {given['width']}, {given['heads']} heads, MLP {given['mlp']}, "
        f"{given['side'] ** 2} places, {given['frames']} frames, update ratio {given['update_ratio']}; "
        f"{given['dtype']} on {given['device']}, {threads} threads, {given['clock']} clock, {given['rounds']} rounds, "
        f"torch {result['versions']['torch']}."
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"layers": 27, "width": 1152, "heads": 16, "mlp": 4304, "side": 27, "frames": 16}.items():
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--intervals", type=int, nargs="+", default=[2, 4])
    made.add_argument("--update-ratio", type=float, default=0.25)
    made.add_argument("--selection", choices=("layer", "shared"), default="layer")
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--threads", type=int, help="of the processor; torch's own number by default")
    made.add_argument("--clock", default="wall", choices=("wall", "processor"), help="processor: for a busy machine")
    made.add_argument("--device", default="cpu")
    made.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    made.add_argument("--graphs", action="store_true", help="replay CUDA graphs, too (needs a GPU)")
    made.add_argument("--json", type=Path, help="write everything that was measured into this file")
    made.add_argument("--markdown", type=Path, help="write the table into this file")
    return made


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    given = parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.graphs and not given.device.startswith("cuda"):
        parser().error("--graphs needs --device cuda: CUDA graphs exist on a GPU only.")
    if given.clock == "processor" and given.device != "cpu":
        parser().error("--clock processor is for --device cpu.")
    result = measure(given)
    table = Table(title=f"Vision tower, dense is {result['dense']!r}", title_justify="left", caption=conditions(result))
    for column in COLUMNS:
        first = column == COLUMNS[0]
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for row in cells(result):
        table.add_row(*row)
    Console().print(table)
    if given.json:
        write_json(given.json, result)
    if given.markdown:
        write_text(given.markdown, markdown(result))
    return result


if __name__ == "__main__":
    main()
