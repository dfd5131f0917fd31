"""The cost of each method on one CPU thread, in floors: one floor is one read of the features (their norms).

    python -m experiments.benchmark_compressor [--methods vidcom2 random] [--frames 32 --places 196 --channels 3584]

Times are processor time of the thread, the methods and the floor in turn, medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from compressors import build, compress, method_names


def seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=[name for name in method_names() if build(name).exact])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--places", type=int, default=196)
    parser.add_argument("--channels", type=int, default=3584)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.randn(given.frames, given.places, given.channels).to(dtype)
        calls: dict[str, Callable[[], object]] = {"floor": partial(torch.linalg.vector_norm, features, dim=-1)}
        for name in given.methods:
            calls[name] = partial(compress, features, name, retention=0.25, grid=(1, given.places))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(given.rounds + 1):
            for name, call in calls.items():
                times[name].append(seconds(call))
        floor = statistics.median(times["floor"][1:])
        print(f"{dtype} [{given.frames}, {given.places}, {given.channels}]: one floor is {floor * 1e3:.2f} ms")
        for name in given.methods:
            in_floors = [value / floor for value in times[name][1:]]
            print(f"  {name:24} {statistics.median(in_floors):6.2f} floors (least {min(in_floors):.2f})")


if __name__ == "__main__":
    main()
