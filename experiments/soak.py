"""Whether a session stays as it is: `python -m experiments.soak --frames 20000`.

Generated frames without end go through the embedded model with cacher, pruner and a bounded memory; now and then a
question is asked. Resident memory and time per frame after a warm-up, by when the memory must be full, are compared
with those at the end. What else the command line of `run.py` sets may follow as KEY=VALUE: memory=window.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig
from rich.console import Console

from adapters.errors import LoadError
from adapters.streaming import StreamSession
from compressors.errors import InputError, VidpressError
from experiments.assembly import budget_from, check_numbers, compressor_from
from experiments.benchmarking.memory import anonymous, resident
from experiments.display import counting_bar, facts
from experiments.micro.questions import QUESTIONS
from experiments.micro.streams import endless_frames
from experiments.results import versions, write_json, write_text
from experiments.sessions import session_from
from experiments.stream_evaluation import CLOCKS
from experiments.subject import model_from

SETTINGS = ("cacher=stc", "compressor=stc_pruner", "memory=retrieval")  # unless told otherwise
FPS = 8
ALLOWED = 0.05  # growth of resident memory and of time per frame


@dataclass(frozen=True)
class Point:
    """One row of the curve.

    Attributes:
        frames: so far.
        resident: bytes of main memory that the process holds, pages of mapped files too, which the kernel may drop.
        anonymous: bytes that the process allocated itself.
        frame_seconds: median over the frames since the row before, questions and the making of frames left out.
        undisturbed_seconds: their 10th percentile, which other work on the machine hardly touches.
        answer_seconds: of the question asked here.
        held, device_bytes, host_bytes, disk_bytes: of the session's memory.
        reuse: share of tokens that the cacher served from its reference.
    """

    frames: int
    resident: int
    anonymous: int
    frame_seconds: float
    undisturbed_seconds: float
    answer_seconds: float
    held: int
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    reuse: float | None


def main() -> None:
    """Feed, say what grew, write `soak.json`, `.csv` and, with the extra `report`, `.png`; exit status 1 if it grew."""
    parser = argparse.ArgumentParser(description="Feed a session for long, and see whether anything grows.")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=200, help="frames between rows of the curve, with a question each")
    parser.add_argument("--warmup", type=float, default=0.2, help="share of the frames after which nothing may grow")
    parser.add_argument("--chunk", type=int, default=2, help="frames fed at once")
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="processor: of this process, for busy machines (CPU only)",
    )
    parser.add_argument("--output", type=Path, default=Path("soak"), help="folder for the curve")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE as for run.py")
    options = parser.parse_args()
    if options.frames < 10 * options.every or options.every % options.chunk or not 0 < options.warmup < 0.9:
        parser.error("--frames must be at least 10 times --every, a multiple of --chunk, and --warmup in (0, 0.9)")
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        with initialize_config_module("conf", version_base="1.3"):
            cfg = compose("config", overrides=[*SETTINGS, *options.settings])
        points: list[Point] = []
        for point in soak(cfg, options.frames, options.every, options.chunk, CLOCKS[options.clock]):
            points.append(point)
            write_text(options.output / "soak.csv", table(points))
    except (VidpressError, HydraException) as error:
        parser.error(str(error))
    result = {
        "task": "soak",
        "settings": [*SETTINGS, *options.settings],
        "frames": options.frames,
        "chunk": options.chunk,
        "clock": options.clock,
        **verdict(points, options.warmup),
        "curve": [asdict(point) for point in points],
        "versions": versions(),
    }
    write_json(options.output / "soak.json", result)
    try:
        picture(points, result, options.output / "soak.png")
    except ModuleNotFoundError:
        Console(stderr=True).print("no picture: pip install 'vidpress[report]'")
    Console().print(facts(told(result)))
    raise SystemExit(not result["steady"])


def soak(
    cfg: DictConfig, frames: int, every: int, chunk: int, clock: Callable[[], float] = CLOCKS["wall"]
) -> Iterator[Point]:
    """Feed generated frames; a row of the curve every so many.

    Args:
        cfg: the configuration, with a memory.
        frames: to feed.
        every: frames between rows, a multiple of `chunk`.
        chunk: frames fed at once.
        clock: seconds.

    Raises:
        InputError: there is no memory.
        LoadError: this system does not say how much memory a process holds.
        VidpressError: whatever the session cannot do.
    """
    check_numbers(cfg)
    if cfg.memory.name == "none":
        raise InputError("a soak needs a session: write memory=retrieval, memory=window or memory=full.")
    try:
        resident()
    except OSError as error:
        raise LoadError("a soak reads the process's resident memory from /proc, which this system lacks.") from error
    torch.manual_seed(cfg.seed)
    model, processor = model_from(cfg)
    source = endless_frames(cfg.seed)
    questions = [kind.phrasings[0] for kind in QUESTIONS]
    with (
        session_from(cfg, model, processor, compressor_from(cfg), budget_from(cfg)) as session,
        counting_bar("soaking", frames) as advance,
    ):
        for row in range(frames // every):
            yield _row(session, source, row * every, every, chunk, clock, questions[row % len(questions)])
            advance(every)


def verdict(points: Sequence[Point], warmup: float) -> dict[str, Any]:
    """Means of the tenth of the curve that follows the warm-up and of its last tenth, and what grew between them.

    Returns:
        after_warmup, at_the_end and growth, each of resident, anonymous, frame_seconds and undisturbed_seconds; steady:
        no growth above `ALLOWED` in any of them;
        filling: whether the session's memory still grew after the warm-up, which must then be longer.
    """
    tenth, first = max(1, len(points) // 10), int(warmup * len(points))
    parts = {"after_warmup": points[first : first + tenth], "at_the_end": points[-tenth:]}
    means = {
        name: {
            "resident": statistics.fmean(point.resident for point in part),
            "anonymous": statistics.fmean(point.anonymous for point in part),
            "frame_seconds": statistics.median(point.frame_seconds for point in part),
            "undisturbed_seconds": statistics.median(point.undisturbed_seconds for point in part),
        }
        for name, part in parts.items()
    }
    growth = {key: means["at_the_end"][key] / means["after_warmup"][key] - 1 for key in means["at_the_end"]}
    held = [statistics.fmean(p.device_bytes + p.host_bytes for p in part) for part in parts.values()]
    return {
        **means,
        "growth": growth,
        "steady": all(change <= ALLOWED for change in growth.values()),
        "filling": held[1] > (1 + ALLOWED) * held[0],
    }


def table(points: Sequence[Point]) -> str:
    """The curve as CSV."""
    rows = [asdict(point) for point in points]
    lines = [",".join(rows[0])] + [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def picture(points: Sequence[Point], result: Mapping[str, Any], path: Path) -> Path:
    """The curve as PNG: resident memory, the session's own, and time per frame."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    frames = [point.frames for point in points]
    axes[0].plot(frames, [point.resident / 1e6 for point in points], color="#0072B2", label="resident")
    axes[0].plot(frames, [point.anonymous / 1e6 for point in points], color="#56B4E9", label="allocated by the process")
    axes[0].set_ylabel("process, MB")
    axes[0].legend(frameon=False)
    axes[1].plot(frames, [point.device_bytes / 1e6 for point in points], color="#009E73", label="device")
    axes[1].plot(frames, [point.host_bytes / 1e6 for point in points], color="#E69F00", label="host")
    axes[1].set_ylabel("session, MB")
    axes[1].legend(frameon=False)
    axes[2].plot(frames, [1e3 * point.frame_seconds for point in points], color="#D55E00")
    axes[2].set_ylabel("ms per frame")
    axes[2].set_xlabel("frames")
    for ax in axes:
        ax.set_ylim(bottom=0)
        ax.grid(axis="y", color="0.92")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_title(" ".join(result["settings"]), loc="left", fontsize=10)
    FigureCanvasAgg(figure).print_figure(path, dpi=150)
    return path


def told(result: Mapping[str, Any]) -> dict[str, str]:
    """The verdict for people."""
    before, after, growth = (result[name] for name in ("after_warmup", "at_the_end", "growth"))
    times = {"frame_seconds": f"time per frame ({result['clock']})", "undisturbed_seconds": "10th percentile of it"}
    return {
        "frames": f"{result['frames']}",
        **{
            f"{name} memory": f"{before[name] / 1e6:.1f} MB after warm-up, {after[name] / 1e6:.1f} MB at the end "
            f"({growth[name]:+.1%})"
            for name in ("resident", "anonymous")
        },
        **{
            title: f"{1e3 * before[name]:.2f} ms after warm-up, {1e3 * after[name]:.2f} ms at the end "
            f"({growth[name]:+.1%})"
            for name, title in times.items()
        },
        "steady": f"{'yes' if result['steady'] else 'no'}: at most {ALLOWED:+.0%} is allowed"
        + ("; the session's memory was still filling: take a longer --warmup" if result["filling"] else ""),
    }


def _row(
    session: StreamSession,
    source: Iterator[Any],
    before: int,
    every: int,
    chunk: int,
    clock: Callable[[], float],
    question: str,
) -> Point:
    """Feed `every` frames, ask, and look."""
    seconds = []
    for start in range(before, before + every, chunk):
        frames = torch.stack([torch.from_numpy(frame) for frame in islice(source, chunk)])
        started = clock()
        session.feed(frames, [(start + index) / FPS for index in range(chunk)])
        seconds.append((clock() - started) / chunk)
    started = clock()
    session.ask(question, max_new_tokens=4)
    asked = clock() - started
    status = session.status
    return Point(
        before + every,
        resident(),
        anonymous(),
        statistics.median(seconds),
        statistics.quantiles(seconds, n=10)[0],
        asked,
        status.held,
        status.device_bytes,
        status.host_bytes,
        status.disk_bytes,
        status.reuse,
    )


if __name__ == "__main__":
    main()
