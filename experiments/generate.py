"""`task=generate`: ask a question about a video, without and with compression, and show what that cost."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.padding import Padding
from torch import Tensor

from adapters.prompting import answer, prompt
from adapters.report import Report
from adapters.video import Video, read_video, video_size
from compressors.base import Compressor
from compressors.plan_budget import plan_budget
from experiments.assembly import budget_from, check_numbers, compressor_from, layout_from, refuse_streams
from experiments.display import budget_chart, facts, progress_bar, stage_table
from experiments.frames import AUTO, ChosenFrames, auto_frames
from experiments.results import output_folder, versions, write_json
from experiments.subject import Clip, clip_from, model_from
from vidpress import press

V = TypeVar("V")


def run(cfg: DictConfig) -> None:
    """Answer, show, and write `result.json` into Hydra's output directory."""
    result = answer_question(cfg)
    show(cfg, result)
    path = write_json(output_folder() / "result.json", result)
    Console(stderr=True).print(f"written: {path}", soft_wrap=True, highlight=False)


def answer_question(cfg: DictConfig) -> dict[str, Any]:
    """The content of `result.json`.

    Raises:
        VidpressError: anything in the configuration, the video or the model that cannot be; before any of it is used
            where that can be known.
    """
    # Whatever can be wrong in the settings shows before anything slow starts.
    check_numbers(cfg)
    refuse_streams(cfg, "memory", "source")
    budget, compressor, layout = budget_from(cfg), compressor_from(cfg), layout_from(cfg)
    clip = clip_from(cfg)
    torch.manual_seed(cfg.seed)
    model, processor, (video, decode_video), chosen = model_and_video(cfg, clip, compressor, budget)
    inputs = {name: value.to(model.device) for name, value in prompt(processor, clip.question, video).items()}

    def once(compressor: Compressor | str, length: int, **budget: Any) -> tuple[Tensor, Report]:
        return generate(model, inputs, compressor, length, **layout, **budget)

    runs: dict[str, Callable[[int], tuple[Tensor, Report]]] = {
        "compressed": lambda length: once(compressor, length, **budget)
    }
    if cfg.task.baseline:
        runs = {"uncompressed": lambda length: once("none", length), **runs}
    outputs, seconds = alternate(runs, cfg.max_new_tokens, cfg.task.repeats, warmup=cfg.task.warmup)
    answers = {name: answer(processor, inputs, output) for name, (output, _) in outputs.items()}
    report = outputs["compressed"][1]
    baseline = seconds.get("uncompressed")
    return {
        "question": clip.question,
        "answer": answers["compressed"],
        "answer_uncompressed": answers.get("uncompressed"),
        "answer_expected": clip.expected,
        "tokens": {
            "visual": report.visual,
            "kept": report.kept,
            "placeholders": report.placeholders,
            "retention": report.retention,
        },
        "retention_placeholders": report.retention_placeholders,
        "reuse": report.reuse,
        "budgets": [budget for entry in report.videos for budget in entry.budgets],
        "seconds": {"decode_video": decode_video, **seconds["compressed"]},
        "seconds_uncompressed": None if baseline is None else {"decode_video": decode_video, **baseline},
        "video": describe(video),
        "frames_auto": None if chosen is None else chosen.as_result(),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "versions": versions(),
    }


def model_and_video(
    cfg: DictConfig, clip: Clip, compressor: Compressor, budget: Mapping[str, Any]
) -> tuple[Any, Any, tuple[Video, float], ChosenFrames | None]:
    """The model, its processor, the video with the seconds it took to decode, and what `frames=auto` chose.

    A file that cannot be read, and a method that cannot promise its number of tokens, show before the model is loaded,
    even where the model decides how many frames to read.
    """
    if clip.frames != AUTO:
        video = decoded(cfg, clip, clip.frames)
        return *model_from(cfg), video, None
    video_size(clip.path)
    plan_budget(AUTO, 1, compressor, **budget)
    model, processor = model_from(cfg)
    choose = auto_frames(cfg, model, processor, compressor, budget)
    assert choose is not None
    chosen = choose(clip.path)
    return model, processor, decoded(cfg, clip, chosen.plan.frames), chosen


def decoded(cfg: DictConfig, clip: Clip, frames: int | None) -> tuple[Video, float]:
    """The video, and the seconds it took."""
    started = time.perf_counter()
    with progress_bar("decoding video") as progress:
        video = read_video(clip.path, frames=frames, fps=cfg.fps, progress=progress)
    return video, time.perf_counter() - started


def alternate(
    runs: Mapping[str, Callable[[int], tuple[Tensor, Report]]], tokens: int, repeats: int, *, warmup: bool
) -> tuple[dict[str, tuple[Tensor, Report]], dict[str, dict[str, float]]]:
    """Run several ways of answering in turn, so that a machine's moods fall on all of them alike.

    Args:
        runs: name -> a run that generates so many tokens.
        tokens: to generate.
        repeats: timed rounds.
        warmup: run each once before, untimed.

    Returns:
        Each run's last output and report, and its median seconds per stage.
    """
    for run in runs.values() if warmup else ():
        run(min(2, tokens))
    rounds = take_turns({name: functools.partial(run, tokens) for name, run in runs.items()}, repeats)
    medians: dict[str, dict[str, float]] = {}
    for name, outcomes in rounds.items():
        seconds = [report.seconds for _, report in outcomes]
        medians[name] = {stage: statistics.median(taken[stage] for taken in seconds) for stage in seconds[0]}
    return {name: outcomes[-1] for name, outcomes in rounds.items()}, medians


def take_turns(runs: Mapping[str, Callable[[], V]], repeats: int) -> dict[str, list[V]]:
    """Every run once in every round, so that a machine's moods fall on all alike; each round begins with the next one,
    so that none always follows the same one."""
    outcomes: dict[str, list[V]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            outcomes[name].append(runs[name]())
    return outcomes


def generate(
    model: Any, inputs: dict[str, Tensor], compressor: Compressor | str, max_new_tokens: int, **budget: Any
) -> tuple[Tensor, Report]:
    """One greedy generation under a press."""
    with press(model, compressor, **budget) as report:
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return output, report


def describe(video: Video) -> dict[str, Any]:
    """The video as it was used."""
    frames, height, width = video.frames.shape[:3]
    return {"path": str(video.path), "frames": frames, "height": height, "width": width, "duration": video.duration}


def show(cfg: DictConfig, result: dict[str, Any]) -> None:
    """Print a result."""
    video, tokens, method, chosen = result["video"], result["tokens"], cfg.compressor.name, result["frames_auto"]
    shape = f"{video['frames']} frames of {video['width']}×{video['height']}, {video['duration']:.1f} s"
    rows = {"video": f"{video['path'] if cfg.video else 'the embedded clip'} ({shape})", "question": result["question"]}
    if chosen:
        share = f"{tokens['kept']} tokens are {tokens['retention']:.1%} of {chosen['groups']} × {chosen['places']}"
        rows["frames"] = f"{chosen['frames']} of {chosen['available']} (auto: {share})"
    if result["answer_expected"] is not None:
        rows["right answer"] = result["answer_expected"]
    if cfg.task.baseline:
        rows["all tokens"] = result["answer_uncompressed"]
    rows[method] = result["answer"]
    rows["visual tokens"] = f"{tokens['visual']} → {tokens['kept']} ({tokens['retention']:.1%} kept)"
    if result["reuse"] is not None:
        rows["vision tower"] = f"{result['reuse']:.1%} of its places reused (cacher {cfg.cacher.name})"
    if cfg.model.get("weights") == "random":
        rows["note"] = "random weights: the answers mean nothing, the times do"
    console, frames = Console(), len(result["budgets"])
    console.print(Padding(facts(rows), (1, 0)))
    console.print(budget_chart(result["budgets"], tokens["visual"] // max(1, frames)))
    console.print(Padding(stage_table(method, result["seconds"], result["seconds_uncompressed"]), (1, 0, 0, 0)))
    rounds = (
        f"Medians of {cfg.task.repeats} alternating rounds" if cfg.task.baseline else f"Medians of {cfg.task.repeats}"
    )
    warm = " after a warm-up" if cfg.task.warmup else ""
    console.print(f"{rounds}{warm}; decoding the video is timed once.", style="dim")
