"""`task=benchmark`: where the time and the memory go, stage by stage, beside baselines of the same run."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from adapters.errors import LoadError
from adapters.loading import check_device
from adapters.prompting import prompts
from adapters.video import read_video
from compressors.build import build
from compressors.errors import InputError
from experiments.assembly import budget_from, check_numbers, compressor_from, layout_from, refuse_streams
from experiments.benchmarking.before import Before
from experiments.benchmarking.inputs import FRAMES, generated_file, question_of
from experiments.benchmarking.mechanism import Measured, attaching, mechanism, memory_over_native
from experiments.benchmarking.memory import PeakMemory, model_memory
from experiments.benchmarking.native import native_prompt
from experiments.benchmarking.published import published_rows
from experiments.benchmarking.tables import markdown, sheets
from experiments.benchmarking.variants import BASELINES, NATIVE, RANDOM, STAGES, UNCOMPRESSED, Bench, Variant
from experiments.benchmarking.variants import plain as plain_variant
from experiments.benchmarking.variants import pressed as pressed_variant
from experiments.benchmarking.work import (
    compress_work,
    countable,
    decode_video_work,
    encoder_work,
    prefill_work,
    preprocess_work,
    step_work,
)
from experiments.display import counting_bar
from experiments.frames import AUTO, frames_setting
from experiments.generate import describe, take_turns
from experiments.labels import label
from experiments.results import commit, output_folder, versions, write_json, write_text
from experiments.statistics import paired_ratio, spread
from experiments.subject import clip_from, model_from
from vidpress import press

CLOCKS = ("wall", "processor")
CPU = torch.device("cpu")


def run(cfg: DictConfig) -> None:
    """Measure, show, and write `result.json`, `benchmark.md` and `stages.png` into Hydra's output directory.

    Raises:
        VidpressError: anything in the configuration that cannot be; before anything slow where that can be known.
    """
    if cfg.task.picture and importlib.util.find_spec("matplotlib") is None:
        raise LoadError(
            "task.picture=true needs matplotlib: pip install 'vidpress[report]', or type task.picture=false."
        )
    result = measure(cfg)
    console, folder = Console(), output_folder()
    shown = sheets(result)
    for sheet in shown:
        console.print(sheet.table())
    written = [write_json(folder / "result.json", result)]
    pictures = []
    if cfg.task.picture:
        from experiments.benchmarking.picture import write_picture

        pictures = [write_picture(result, folder / "stages.png")]
    written += [write_text(folder / "benchmark.md", markdown(result, shown, pictures)), *pictures]
    if not cfg.task.picture:
        console.print("no picture: task.picture=false", style="dim")
    for path in written:
        Console(stderr=True).print(f"written: {path}", soft_wrap=True, highlight=False)


def measure(cfg: DictConfig) -> dict[str, Any]:
    """The content of `result.json`."""
    check_numbers(cfg)
    refuse_streams(cfg, "memory", "source")
    against = _against(cfg)
    if cfg.task.clock not in CLOCKS:
        raise InputError(f"task.clock={cfg.task.clock}: write {' or '.join(CLOCKS)}.")
    if cfg.task.clock == "processor" and check_device(cfg.model.device).type == "cuda":
        raise InputError(
            "task.clock=processor is for CPUs, a GPU times stages by its own events: type model.device=cpu or "
            "task.clock=wall."
        )
    budget, compressor, layout = budget_from(cfg), compressor_from(cfg), layout_from(cfg)
    published_rows(cfg.task.published, 1.0)
    torch.manual_seed(cfg.seed)
    path, frames = _video(cfg)
    before = Before(cfg.task.repeats, cfg.task.clock == "processor", PeakMemory(CPU) if cfg.task.memory else None)
    video = before.run("decode_video", lambda: read_video(path, frames=frames, fps=cfg.fps))
    model, processor = model_from(cfg)
    question = _question(cfg, model, processor)
    rows = cfg.task.batch
    prompted = before.run("preprocess", lambda: prompts(processor, [question] * rows, [video] * rows))
    inputs = {name: value.to(model.device) for name, value in prompted.items()}
    for name, value in inputs.items():  # as the model would do in every run: once, and not timed
        inputs[name] = value.to(model.dtype) if value.is_floating_point() and "pixel" in name else value

    name, options = label(compressor), {**layout, **budget}
    # The first, untimed run says K, which every baseline then gets; a method may choose it by itself.
    with press(model, compressor, **options) as report:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    videos = report.videos
    visual, kept, length = videos[0].tokens, videos[0].kept, inputs["input_ids"].shape[1]
    short = length - visual + kept
    native = native_prompt(model, inputs, kept) if NATIVE in against else None

    variants = {name: pressed_variant(model, name, inputs, short, compressor, options)}
    if UNCOMPRESSED in against:
        variants = {UNCOMPRESSED: plain_variant(model, UNCOMPRESSED, inputs, length), **variants}
    if RANDOM in against and name != RANDOM:
        random = pressed_variant(model, RANDOM, inputs, short, build(RANDOM), {**layout, "tokens": kept})
        variants[RANDOM] = random
    if native is not None:
        variants[NATIVE] = plain_variant(model, NATIVE, native.inputs, native.inputs["input_ids"].shape[1])

    bench = Bench(model, cfg.max_new_tokens, cfg.task.clock == "processor")
    peaks = {key: model_memory(model.device) for key in variants}
    total = cfg.task.warmup + cfg.task.memory + cfg.task.repeats
    with counting_bar("measuring", total * len(variants)) as advance:

        def once(variant: Variant, memory: PeakMemory | None = None) -> dict[str, float]:
            seconds = bench.run(variant, memory)
            advance(1)
            return seconds

        for _ in range(cfg.task.warmup):
            for variant in variants.values():
                once(variant)
        if cfg.task.memory:
            for key, variant in variants.items():
                once(variant, peaks[key])
        timings = take_turns({key: partial(once, variant) for key, variant in variants.items()}, cfg.task.repeats)
    measured = {key: {stage: [once[stage] for once in rounds] for stage in STAGES} for key, rounds in timings.items()}
    return {
        "task": "benchmark",
        "label": name,
        "model": {"name": cfg.model.name, "weights": cfg.model.get("weights", "embedded"), "dtype": str(model.dtype)},
        "device": _device(model),
        "clock": cfg.task.clock,
        "repeats": cfg.task.repeats,
        "sizes": {
            "batch": rows,
            "groups": len(videos[0].budgets),
            "grid": list(videos[0].grid),
            "visual": visual,
            "kept": kept,
            "retention": kept / visual,
            "text": length - visual,
            "prompt": length,
            "prompt_pressed": short,
            "answer": cfg.max_new_tokens,
        },
        "native": None if native is None else native.as_result(),
        "shared": {stage: spread(seconds) for stage, seconds in before.seconds.items()},
        "shared_peak_bytes": before.peaks,
        "shared_source": PeakMemory(CPU).source if cfg.task.memory else None,
        "shared_work": {
            "decode_video": decode_video_work(video, path.stat().st_size).as_result(),
            "preprocess": preprocess_work(model, video, prompted).as_result(),
        },
        "variants": {
            key: {
                "seconds": {stage: spread(values) for stage, values in measured[key].items()},
                "rounds": measured[key],
                "peak_bytes": peaks[key].peaks if cfg.task.memory and peaks[key].source else None,
                "work": _work(model, variant, cfg.max_new_tokens, visual if key == name else None),
            }
            for key, variant in variants.items()
        },
        "peak_source": model_memory(model.device).source if cfg.task.memory else None,
        "ratios": {
            key: {stage: paired_ratio(measured[name][stage], measured[key][stage]) for stage in STAGES}
            for key in variants
            if key != name
        },
        "throughput": _throughput(bench, variants, measured, cfg.task.threads, name),
        "mechanism": None
        if NATIVE not in variants
        else {
            **mechanism(measured, RANDOM if RANDOM in variants else name),
            **attaching(lambda: press(model, compressor, **options)),
            "memory": memory_over_native(
                peaks[RANDOM if RANDOM in variants else name].peaks, peaks[NATIVE].peaks, model, rows, length, visual
            ),
        },
        "published": published_rows(cfg.task.published, kept / visual),
        "video": describe(video),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "versions": versions(),
        "commit": commit(),
    }


def _against(cfg: DictConfig) -> Sequence[str]:
    given = [cfg.task.against] if isinstance(cfg.task.against, str) else list(cfg.task.against or [])
    if unknown := [str(item) for item in given if item not in BASELINES]:
        raise InputError(f"task.against={unknown[0]}: baselines are {', '.join(BASELINES)}.")
    return [str(item) for item in given]


def _video(cfg: DictConfig) -> tuple[Path, int | None]:
    """The file to decode and how many frames to sample: the user's own video, or one that is made for it."""
    frames = frames_setting(cfg)
    if frames == AUTO:
        raise InputError("task=benchmark needs a number of frames: type frames=32, say, instead of auto.")
    if cfg.video is not None:
        return clip_from(cfg).path, frames
    count = FRAMES if frames is None else int(frames)
    return generated_file(output_folder(), count, cfg.task.height, cfg.task.width, cfg.seed), count


def _question(cfg: DictConfig, model: Any, processor: Any) -> str:
    if cfg.task.prompt_length is None:
        return str(cfg.question or "Describe the video.")
    if cfg.question is not None:
        raise InputError("question= and task.prompt_length= both say what is asked: keep one.")
    return question_of(model, processor, cfg.task.prompt_length)


def _work(model: Any, variant: Variant, answer: int, looked_at: int | None) -> dict[str, Any]:
    """Counted work by stage, None where it cannot be counted.

    Args:
        model: the model.
        variant: what is run.
        answer: tokens.
        looked_at: visual tokens of a row that the method reads; None for baselines, which look at none.
    """
    rows = variant.inputs["input_ids"].shape[0]
    decoder, tower = countable(model, variant.inputs)
    work = {
        "encode": encoder_work(model, variant.inputs, variant.cacher) if tower else None,
        "prefill": prefill_work(model, rows, variant.length) if decoder else None,
        "step": step_work(model, rows, variant.length + answer // 2) if decoder else None,
    }
    if looked_at is not None and variant.name not in (RANDOM, "none"):
        work["compress"] = compress_work(model, rows, looked_at)
    return {stage: None if counted is None else counted.as_result() for stage, counted in work.items()}


def _throughput(
    bench: Bench, variants: dict[str, Variant], measured: Measured, threads: int, name: str
) -> dict[str, Any]:
    """Requests per second of every variant: of its timed rounds, or with several threads of rounds of their own."""
    rows, repeats = next(iter(variants.values())).inputs["input_ids"].shape[0], len(measured[name]["generate"])
    rates = {key: [rows / seconds for seconds in measured[key]["generate"]] for key in variants}
    if threads > 1:
        runs = {key: partial(bench.requests_per_second, variant, threads) for key, variant in variants.items()}
        rates = take_turns(runs, repeats)
    return {
        "threads": threads,
        "requests_per_second": {key: spread(values) for key, values in rates.items()},
        "ratios": {key: paired_ratio(rates[name], values) for key, values in rates.items() if key != name},
    }


def _device(model: Any) -> dict[str, Any]:
    if model.device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(model.device), "threads": None}
    return {"type": str(model.device.type), "name": None, "threads": torch.get_num_threads()}
