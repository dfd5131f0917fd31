"""Time and memory of the compressors alone.

    python -m experiments.benchmark_compressor [--only vidcom2,random] [--sizes 32x196x3584 384x180x3584]
    python -m experiments.benchmark_compressor --only vidcom2 --dtype float32 bfloat16      # both in turn, in one run
    python -m experiments.benchmark_compressor --markdown docs/methods.md     # every exact method, and the table there

Every method and size runs in a process of its own, one thread, a quarter of the tokens kept. Times are processor time,
medians over the rounds; in a round the method and the floor (one read of the features: `vector_norm`) take turns, dtype
by dtype. Memory is told twice. "Held" is counted, as in `tests/compressors/test_cost.py`: the most bytes that the
tensors made while choosing hold at one time, in percent of the features. "The process" is what its peak grew by once
the input was there, by choosing or by mixing less the output, the libraries' own code and workspaces included.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from compressors import Compressor, VideoTokens, build, compress, method_names
from experiments.traffic import Traffic

V = TypeVar("V")
SIZES = ("32x196x3584", "384x180x3584")
RETENTION = 0.25


@dataclass(frozen=True)
class Cost:
    """What one method costs at one size in one dtype.

    Attributes:
        floor: milliseconds of one read of the features.
        choose: milliseconds of `compress`.
        mix: milliseconds of gathering or mixing the kept rows (`Compression.features`).
        memory: bytes that the process's peak grew by beyond input and output.
        held: bytes that tensors held at the peak of choosing, counted, as a share of the features' own.
    """

    floor: float
    choose: float
    mix: float
    memory: int
    held: float


def video(frames: int, places: int, channels: int, dtype: torch.dtype = torch.float32) -> VideoTokens:
    """Eight scenes in which about half of the places stand still, with everything that any method needs.

    Neighbouring frames of a scene have a cosine of 0.92, so that what cuts at 0.9 finds the scenes.

    Made in place, so that the process's peak until now is the input itself.
    """
    random = torch.Generator().manual_seed(0)
    features = torch.empty(frames, places, channels, dtype=dtype)
    change = torch.linspace(0, 1.5, places).unsqueeze(1)
    for t in range(frames):
        if t % math.ceil(frames / 8) == 0:
            scene = torch.randn(places, channels, generator=random) + 1
        features[t] = torch.randn(places, channels, generator=random).mul_(change).add_(scene)
        features[t] += 0.28 * torch.randn(channels, generator=random)
    height = next(h for h in range(math.isqrt(places), 0, -1) if places % h == 0)
    return VideoTokens(
        features,
        grid=(height, places // height),
        query=torch.randn(16, channels, generator=random),
        attention=torch.rand(frames, places, generator=random),
        keys=torch.randn(frames, places, 72, generator=random),
        frame_features=torch.stack([frame.float().mean(0) for frame in features]),
    )


def needed(compressor: Compressor, tokens: VideoTokens) -> VideoTokens:
    """The video with what the method needs and no more: what is handed over is checked, and that costs too."""
    fields = {need.field for need in compressor.requirements}
    return tokens.with_(**dict.fromkeys({"grid", "query", "attention", "keys", "frame_features"} - fields))


def times(name: str, size: str, dtypes: Sequence[str], rounds: int) -> list[tuple[float, float, float]]:
    """Median milliseconds of floor, choosing and mixing for each dtype, all in turn, after a round to warm up."""
    compressor = build(name)
    videos = [needed(compressor, video(*shape(size), getattr(torch, dtype))) for dtype in dtypes]
    taken: list[list[tuple[float, float, float]]] = [[] for _ in dtypes]
    for number in range(rounds + 1):
        for tokens, rows in zip(videos, taken, strict=True):
            choose, result = timed(partial(compress, tokens.with_(_memo={}), compressor, retention=RETENTION))
            mix, _ = timed(partial(getattr, result, "features"))
            del result
            floor, _ = timed(partial(torch.linalg.vector_norm, tokens.features, dim=-1))
            if number:
                rows.append((floor, choose, mix))
    medians = [[1e3 * statistics.median(column) for column in zip(*rows, strict=True)] for rows in taken]
    return [(floor, choose, mix) for floor, choose, mix in medians]


def memory(name: str, size: str, dtype: str) -> tuple[int, float]:
    """In a fresh process: `Cost.memory` and `Cost.held`."""
    compressor = build(name)
    tokens = needed(compressor, video(*shape(size), getattr(torch, dtype)))
    before = peak()
    result = compress(tokens.with_(_memo={}), compressor, retention=RETENTION)
    chosen = peak() - before
    rows = result.features.nbytes
    grown = max(chosen, peak() - before - rows)
    del result
    with Traffic(tokens.features) as counted:
        compress(tokens.with_(_memo={}), compressor, retention=RETENTION)
    return grown, counted.peak / tokens.features.nbytes


def measure(name: str, size: str, dtypes: Sequence[str], rounds: int) -> list[Cost]:
    """What a method costs in each dtype: the memory of each in a process of its own, the times of all in one."""
    taken = apart(name, size, dtypes, rounds)
    memories = [apart(name, size, [dtype], 0)[0] for dtype in dtypes]
    return [
        Cost(floor, choose, mix, int(grown), held)
        for (floor, choose, mix), (grown, held) in zip(taken, memories, strict=True)
    ]


def shape(size: str) -> tuple[int, int, int]:
    """Frames, places and channels of "32x196x3584"."""
    frames, places, channels = (int(number) for number in size.split("x"))
    return frames, places, channels


def timed(call: Callable[[], V]) -> tuple[float, V]:
    """Processor seconds of this thread, and the call's result."""
    start = time.thread_time()
    result = call()
    return time.thread_time() - start, result


def peak() -> int:
    """The most bytes this process has held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def apart(name: str, size: str, dtypes: Sequence[str], rounds: int) -> list[list[float]]:
    """`times` in a process of its own; without rounds `memory`, of one dtype."""
    command = [sys.executable, "-m", __spec__.name, "--only", name, "--sizes", size, "--dtype", *dtypes]
    run = subprocess.run([*command, "--rounds", str(rounds), "--here"], check=True, stdout=subprocess.PIPE, text=True)
    results: list[list[float]] = json.loads(run.stdout)
    return results


def table(costs: dict[tuple[str, str, str], Cost], names: Sequence[str], sizes: Sequence[str]) -> str:
    """One Markdown row per method, four columns per size and dtype; costs by method, size and dtype."""
    dtypes = list(dict.fromkeys(dtype for _, _, dtype in costs))
    kinds = [(size, dtype) for size in sizes for dtype in dtypes]
    titles = [size.replace("x", "×") + (f" {dtype}" if len(dtypes) > 1 else "") for size, dtype in kinds]
    columns = [f"{title}: {what}" for title in titles for what in ("floors", "ms", "MB", "held")]
    lines = [f"| method | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for name in names:
        cells = []
        for size, dtype in kinds:
            cost = costs[name, size, dtype]
            total = cost.choose + cost.mix
            process = f"{cost.memory / 1e6:,.0f}"
            if cost.memory >= 2**30:
                process += f" ({cost.memory / 2**30:.1f} GiB)"
            cells += [f"{total / cost.floor:.1f}", f"{cost.choose:,.0f} + {cost.mix:,.0f}", process]
            cells.append(f"{100 * cost.held:.1f} %")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Put the table between the page's markers."""
    start, end = "<!-- costs -->\n", "<!-- /costs -->"
    before, found, rest = page.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} has no lines {start.strip()} and {end} to put the table between.")
    page.write_text(f"{before}{start}{text}\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="methods; every exact one by default")
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="frames x tokens per frame x channels")
    parser.add_argument("--dtype", nargs="+", default=["float32"], help="one or more, measured in turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the table into this page, between its markers")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        torch.set_num_threads(1)
        name, size = given.only[0], given.sizes[0]
        told = times(name, size, given.dtype, given.rounds) if given.rounds else [memory(name, size, given.dtype[0])]
        print(json.dumps(told))
        return
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    names = given.only or [name for name in method_names() if build(name).exact]
    costs = {}
    for size in given.sizes:
        for name in names:
            for dtype, cost in zip(given.dtype, measure(name, size, given.dtype, given.rounds), strict=True):
                costs[name, size, dtype] = cost
                floors = (cost.choose / cost.floor, cost.mix / cost.floor)
                print(
                    f"{size} {dtype:8} {name:24} {floors[0]:7.1f} floors + {floors[1]:.1f} to gather or mix "
                    f"(a floor is {cost.floor:.1f} ms), held {100 * cost.held:.1f} % of the features, "
                    f"the process {cost.memory / 1e6:,.0f} MB ({cost.memory / 2**30:.2f} GiB)",
                    flush=True,
                )
    if given.markdown:
        conditions = f"{platform.machine()}, torch {torch.__version__}, {', '.join(given.dtype)}, {given.rounds} rounds"
        write(given.markdown, f"{table(costs, names, given.sizes)}\n\n{conditions}.")


if __name__ == "__main__":
    main()
