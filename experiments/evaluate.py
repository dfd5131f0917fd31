"""`task=evaluate`: a method's accuracy on a data set, against other methods on the same samples in the same run."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from adapters.prompting import answers, prompts, questions_about
from adapters.video import Video, VideoError, read_video
from compressors.base import Compressor
from compressors.errors import InputError
from experiments.assembly import budget_from, check_numbers, compressor_from, layout_from, refuse_streams
from experiments.datasets import Dataset, Sample, dataset_from
from experiments.display import counting_bar, evaluation_tables
from experiments.frames import auto_frames, fixed_frames
from experiments.journal import Journal, failed_line, line_of
from experiments.labels import label, parse
from experiments.results import commit, output_folder, versions, write_json
from experiments.seeding import reseeded
from experiments.stream_evaluation import CLOCKS, StreamRunner
from experiments.subject import model_from
from experiments.summary import compare, protocol_scores, summarise
from vidpress import press

Entry = tuple[Sample, Video, float]  # a question, its decoded video, the seconds that decoding took per question
ELSEWHERE = ("folder", "summary")  # settings of the task that do not decide any answer


def run(cfg: DictConfig) -> None:
    """Answer, show, and write `result.json` beside `samples.jsonl`."""
    folder = Path(str(cfg.task.folder)).expanduser() if cfg.task.folder else output_folder()
    try:
        result = evaluate(cfg, folder)
    except KeyboardInterrupt:
        print(f"stopped; nothing is lost: the same command with task.folder={folder} goes on.", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    console = Console()
    for table in evaluation_tables(result):
        console.print(table)
    path = write_json(folder / "result.json", result)
    Console(stderr=True).print(f"written: {path}", soft_wrap=True, highlight=False)
    if not any(summary["n"] for summary in result["runs"].values()):
        raise InputError("not one sample could be answered; the reasons stand above and in samples.jsonl.")


def evaluate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The content of `result.json`; every answer is in `folder` as soon as it is there.

    Raises:
        VidpressError: anything in the configuration, the data set or the model that cannot be; before any of it is used
            where that can be known.
    """
    check_numbers(cfg)
    refuse_streams(cfg, "source")
    in_session = streamed(cfg)
    budget, layout = budget_from(cfg), layout_from(cfg)
    main = compressor_from(cfg)
    methods = {label(main): main, **{label(other): other for other in map(parse, _names(cfg.task.against))}}
    dataset = dataset_from(cfg.data)
    identity = {
        "methods": list(methods),
        "samples": dataset.fingerprint,
        "config": _settings(cfg),
        "versions": versions(),
    }
    with Journal(folder, identity, commit()) as journal:
        if in_session:
            StreamRunner(cfg, dataset, methods, budget, journal).run()
        else:
            Runner(cfg, dataset, methods, {**layout, **budget}, journal).run()
        lines, commits = journal.lines, journal.commits
    by_run = {name: [line for line in lines if line["run"] == name] for name in methods}
    first = label(main)
    return {
        "task": "evaluate",
        "status": "complete",
        "label": first,
        "model": cfg.model.name,
        "data": dataset.name,
        "seed": cfg.seed,
        "budget": budget or {"retention": 0.25},
        "runs": {name: _summary(answered, dataset) for name, answered in by_run.items()},
        "comparisons": {name: compare(by_run[first], by_run[name]) for name in methods if name != first},
        "errors": _reasons(lines),
        **identity,
        "commit": " then ".join(map(str, commits)),
    }


class Runner:
    """Answers what a journal does not hold yet.

    Args:
        cfg: the configuration.
        dataset: the questions.
        methods: name -> compressor.
        options: budget, positions and newlines, as `press` takes them.
        journal: where answers go.
    """

    def __init__(
        self,
        cfg: DictConfig,
        dataset: Dataset,
        methods: Mapping[str, Compressor],
        options: Mapping[str, Any],
        journal: Journal,
    ) -> None:
        self.cfg, self.dataset, self.methods, self.options, self.journal = cfg, dataset, methods, options, journal
        self.done = journal.done
        # Chance follows the command's seed, as far as the data, which may follow it too, does not.
        self.draw = cfg.seed - (cfg.data.get("seed") or 0)
        self.order = {video: n for n, video in enumerate(dict.fromkeys(s.video for s in dataset.samples))}

    def run(self) -> None:
        """Answer everything that is missing; each batch with all methods before the next one."""
        if not any(map(self._missing, self.methods, repeat(self.dataset.samples))):
            return
        torch.manual_seed(self.cfg.seed)
        self.model, self.processor = model_from(self.cfg)
        compressor = next(iter(self.methods.values()))
        self.auto = auto_frames(self.cfg, self.model, self.processor, compressor, self.options)
        self.frames = fixed_frames(self.cfg)
        # What the model cannot give shows before the first video is decoded.
        for method in self.methods.values():
            press(self.model, method, **self.options)
        names = list(self.methods)
        with counting_bar("answering", len(self.dataset.samples)) as advance:
            for number, batch in enumerate(batches(self.dataset.samples, self.cfg.task.batch)):
                # Whoever comes first pays for what the machine has to warm up: take turns.
                turns = names[number % len(names) :] + names[: number % len(names)]
                self._answer_batch(batch, [name for name in turns if self._missing(name, batch)])
                advance(len(batch))

    def _missing(self, name: str, samples: Sequence[Sample]) -> bool:
        return any((name, sample.id) not in self.done for sample in samples)

    def _answer_batch(self, batch: Sequence[Sample], names: Sequence[str]) -> None:
        """Write down what is missing of a batch. It is answered as a whole, as in a run that was never stopped."""
        if not names:
            return
        decoded, lost = self._decode(batch)
        groups = [(group, self._prompts(group)) for group in same_shape(decoded)]
        for name in names:
            lines = [failed_line(name, sample, error) for sample, error in lost]
            for group, inputs in groups:
                lines += self._answer(name, group, inputs)
            self.journal.append(line for line in lines if (name, line["id"]) not in self.done)

    def _decode(self, batch: Sequence[Sample]) -> tuple[list[Entry], list[tuple[Sample, Exception]]]:
        """The batch's samples with their videos, and those whose video cannot be read."""
        decoded: list[Entry] = []
        lost: list[tuple[Sample, Exception]] = []
        for _, group in groupby(batch, key=lambda sample: sample.video):
            samples, started = list(group), time.perf_counter()
            start, end = samples[0].start, samples[0].end
            try:
                path = self.dataset.path(samples[0])
                frames = self.frames if self.auto is None else self.auto(path, start, end).plan.frames
                video = read_video(path, frames=frames, fps=self.cfg.fps, start=start, end=end)
            except VideoError as error:
                lost += [(sample, error) for sample in samples]
                continue
            spent = (time.perf_counter() - started) / len(samples)
            decoded += [(sample, video, spent) for sample in samples]
        return decoded, lost

    def _prompts(self, entries: Sequence[Entry]) -> dict[str, Tensor]:
        """The inputs of a batch; of several questions about one video with its pixels once."""
        samples, videos, _ = zip(*entries, strict=True)
        texts = [sample.prompt for sample in samples]
        if about_one_video(samples):
            inputs = questions_about(self.processor, texts, videos[0])
        else:
            inputs = prompts(self.processor, texts, videos)
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    @torch.no_grad()
    def _answer(self, name: str, entries: Sequence[Entry], inputs: dict[str, Tensor]) -> list[dict[str, Any]]:
        """One batch under one method, as lines of the journal."""
        samples, _, decoding = zip(*entries, strict=True)
        rows = len(samples)
        method = reseeded(self.methods[name], self.order[samples[0].video], self.draw)
        pressed = press(self.model, method, **self.options)
        try:
            with pressed as report, pressed.same_video(rows if about_one_video(samples) else 0):
                output = self.model.generate(**inputs, max_new_tokens=self.cfg.max_new_tokens, do_sample=False)
            seen = report.videos
        except InputError as error:  # features that are not finite
            if rows == 1:
                return [failed_line(name, samples[0], error)]
            return [line for entry in entries for line in self._answer(name, [entry], self._prompts([entry]))]
        replies = answers(self.processor, inputs, output)
        seconds = {stage: spent / rows for stage, spent in report.seconds.items()}
        lines, shown = [], set()
        for row, (sample, reply) in enumerate(zip(samples, replies, strict=True)):
            video = seen[row] if len(seen) == rows else seen[0]
            line = {
                **line_of(name, sample),
                "answer": reply,
                "right": self.dataset.is_right(sample, reply),
                "visual": video.tokens,
                "kept": video.kept,
                "seconds": {"decode_video": decoding[row], **seconds},
                "error": None,
            }
            if report.reuse is not None:
                line["reuse"] = report.reuse
            if sample.video not in shown:
                line |= {"budgets": video.budgets, "places": video.tokens // len(video.budgets)}
                shown.add(sample.video)
            lines.append(line)
        return lines


def batches(samples: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    """Questions to answer together: those about one video, at most `size`; videos with a single one share a batch."""
    alone: list[Sample] = []
    for _, group in groupby(samples, key=lambda sample: sample.video):
        about = list(group)
        if len(about) == 1:
            alone += about
            if len(alone) == size:
                yield alone
                alone = []
            continue
        for start in range(0, len(about), size):
            yield about[start : start + size]
    if alone:
        yield alone


def about_one_video(samples: Sequence[Sample]) -> bool:
    """Whether a batch is several questions about the same frames."""
    return len(samples) > 1 and len({sample.video for sample in samples}) == 1


def same_shape(decoded: Sequence[Entry]) -> list[list[Entry]]:
    """A decoded batch in parts whose videos have frames equally many and equally large."""
    parts: dict[tuple[int, ...], list[Entry]] = {}
    for entry in decoded:
        parts.setdefault(tuple(entry[1].frames.shape), []).append(entry)
    return list(parts.values())


def streamed(cfg: DictConfig) -> bool:
    """Whether videos are fed to a session with a memory, frame by frame.

    Raises:
        InputError: together with a setting that has no meaning there.
    """
    if cfg.memory.name == "none":
        return False
    if cfg.frames is not None:
        raise InputError(f"frames={cfg.frames} samples whole videos; a stream (memory=…) takes fps=, or every frame.")
    if cfg.positions != "original":
        raise InputError(f"positions={cfg.positions}: a session numbers positions itself; leave it out with memory=….")
    if cfg.task.clock not in CLOCKS:
        raise InputError(f"task.clock={cfg.task.clock}: write {' or '.join(CLOCKS)}.")
    return True


def _summary(lines: Sequence[Mapping[str, Any]], dataset: Dataset) -> dict[str, Any]:
    """The numbers of one run, with the benchmark's own score where it has one."""
    scores = protocol_scores(lines, dataset.protocol)
    return summarise(lines) | ({} if scores is None else {"protocol": scores})


def _names(given: Any) -> list[str]:
    """Names of methods: a list, one, or none."""
    return [] if given is None else [given] if isinstance(given, str) else list(given)


def _reasons(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Why samples failed, and how many of all runs each."""
    return dict(Counter(line["error"] for line in lines if line["error"] is not None))


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """The configuration without what decides no answer: a folder is only taken up by a run with the same settings."""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    config["task"] = {key: value for key, value in config["task"].items() if key not in ELSEWHERE}
    return dict(config)
