"""Time and memory of the compressors alone.

    python -m experiments.benchmark_compressor [--only vidcom2,random] [--sizes 32x196x3584 384x180x3584]
    python -m experiments.benchmark_compressor --markdown docs/methods.md     # every exact method, and the table there

Every method and size runs in a process of its own, one thread, a quarter of the tokens kept. Times are processor time,
medians over the rounds; the method and the floor (one read of the features: `vector_norm`) take turns. Memory is what
the process's peak grew by once the input was there, less the output.
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

from compressors import VideoTokens, build, compress, method_names

V = TypeVar("V")
SIZES = ("32x196x3584", "384x180x3584")
RETENTION = 0.25


@dataclass(frozen=True)
class Cost:
    """What one method costs at one size.

    Attributes:
        floor: milliseconds of one read of the features.
        choose: milliseconds of `compress`.
        mix: milliseconds of gathering or mixing the kept rows (`Compression.features`).
        memory: bytes beyond input and output at the peak.
    """

    floor: float
    choose: float
    mix: float
    memory: int


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


def measure(name: str, size: str, dtype: str, rounds: int) -> Cost:
    """In a fresh process: the first round is for the memory, the others for the times."""
    torch.set_num_threads(1)
    frames, places, channels = (int(number) for number in size.split("x"))
    tokens = video(frames, places, channels, getattr(torch, dtype))
    compressor = build(name)
    before = peak()
    times: list[tuple[float, float, float]] = []
    for number in range(rounds + 1):
        choose, result = timed(partial(compress, tokens.with_(_memo={}), compressor, retention=RETENTION))
        mix, rows = timed(partial(getattr, result, "features"))
        if number == 0:
            memory = max(0, peak() - before - rows.nbytes)
        else:
            floor, _ = timed(partial(torch.linalg.vector_norm, tokens.features, dim=-1))
            times.append((floor, choose, mix))
    floor, choose, mix = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return Cost(floor, choose, mix, memory)


def timed(call: Callable[[], V]) -> tuple[float, V]:
    """Processor seconds of this thread, and the call's result."""
    start = time.thread_time()
    result = call()
    return time.thread_time() - start, result


def peak() -> int:
    """The most bytes this process has held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def measured_apart(name: str, size: str, dtype: str, rounds: int) -> Cost:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--only", name, "--sizes", size, "--dtype", dtype]
    run = subprocess.run([*command, "--rounds", str(rounds), "--here"], check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(run.stdout))


def table(costs: dict[tuple[str, str], Cost], names: Sequence[str], sizes: Sequence[str]) -> str:
    """One Markdown row per method, three columns per size."""
    titles = [size.replace("x", "×") for size in sizes]
    columns = [f"{title}: {what}" for title in titles for what in ("floors", "ms", "MB")]
    lines = [f"| method | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for name in names:
        cells = []
        for size in sizes:
            cost = costs[name, size]
            total = cost.choose + cost.mix
            memory = f"{cost.memory / 1e6:,.0f}"
            if cost.memory >= 2**30:
                memory += f" ({cost.memory / 2**30:.1f} GiB)"
            cells += [f"{total / cost.floor:.1f}", f"{cost.choose:,.0f} + {cost.mix:,.0f}", memory]
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
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the table into this page, between its markers")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(vars(measure(given.only[0], given.sizes[0], given.dtype, given.rounds))))
        return
    names = given.only or [name for name in method_names() if build(name).exact]
    costs = {}
    for size in given.sizes:
        for name in names:
            cost = costs[name, size] = measured_apart(name, size, given.dtype, given.rounds)
            floors = (cost.choose / cost.floor, cost.mix / cost.floor)
            print(
                f"{size} {given.dtype} {name:24} {floors[0]:7.1f} floors + {floors[1]:.1f} to gather or mix "
                f"(a floor is {cost.floor:.1f} ms), {cost.memory / 1e6:,.0f} MB ({cost.memory / 2**30:.2f} GiB)",
                flush=True,
            )
    if given.markdown:
        conditions = f"{platform.machine()}, torch {torch.__version__}, {given.dtype}, {given.rounds} rounds"
        write(given.markdown, f"{table(costs, names, given.sizes)}\n\n{conditions}.")


if __name__ == "__main__":
    main()
