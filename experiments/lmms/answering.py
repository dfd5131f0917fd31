"""Answering a benchmark's requests under `press`: batches, generation settings, totals. Knows nothing of lmms-eval."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.clock import STAGES
from adapters.errors import UnsupportedError
from adapters.family import family_of
from adapters.prompting import LayoutProcessor
from adapters.report import Report
from adapters.video import Video, read_video
from compressors.base import Compressor
from experiments.lmms.conversation import Messages, Prompt, inputs_of, prompt_of
from experiments.lmms.generation import DEFAULT_LENGTH, cut, generation_options, stop_strings
from vidpress import press


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        messages: makes the conversation; called when its turn comes, so that media are not all in memory at once.
        generation: the task's generation settings.
    """

    messages: Callable[[], Messages]
    generation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The text, the prompt's tokens that reached the language model, and the tokens generated."""

    text: str
    input_tokens: int
    output_tokens: int


@dataclass
class Totals:
    """What answers took: counts, and seconds per stage."""

    requests: int = 0
    without_video: int = 0  # requests in which there was nothing to compress
    videos: int = 0
    visual: int = 0
    kept: int = 0
    generated: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("decode_video", *STAGES), 0.0))

    def add(self, report: Report, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> None:
        """Count one batch."""
        self.requests += len(answers)
        self.without_video += sum(not prompt.videos for prompt in prompts)
        self.videos += len(report.videos)
        self.visual += report.visual
        self.kept += report.kept
        self.generated += sum(answer.output_tokens for answer in answers)
        for stage, spent in report.seconds.items():
            self.seconds[stage] += spent

    def __add__(self, other: Totals) -> Totals:
        seconds = {stage: spent + other.seconds[stage] for stage, spent in self.seconds.items()}
        counts = {name: value + vars(other)[name] for name, value in vars(self).items() if name != "seconds"}
        return Totals(**counts, seconds=seconds)

    @property
    def retention(self) -> float:
        """Share of the visual tokens that was kept."""
        return self.kept / self.visual if self.visual else 1.0

    def means(self) -> dict[str, float]:
        """Tokens per video and seconds per request."""
        videos, requests = max(1, self.videos), max(1, self.requests)
        return {
            "retention": self.retention,
            "visual_tokens_per_video": self.visual / videos,
            "kept_tokens_per_video": self.kept / videos,
            **{f"seconds_{stage}_per_request": spent / requests for stage, spent in self.seconds.items()},
        }

    def __str__(self) -> str:
        spent = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self.seconds.items())
        return (
            f"{self.kept} of {self.visual} visual tokens kept ({self.retention:.1%}) in {self.videos} video(s), "
            f"{self.requests} request(s) ({self.without_video} without a video), {self.generated} tokens generated; "
            f"seconds: {spent}"
        )


class Answerer:
    """A model under a compressor, answering requests in batches.

    Args:
        model, processor: as `load_published` or `load_micro` give them.
        compressor, budget, positions, newlines: as for `press`.
        frames, fps: how videos are sampled, as for `read_video`.
        batch: at most so many requests in one call. Fewer where generation settings differ, and for families
            whose processor stacks videos (LLaVA's), where numbers of frames differ.
        length: new tokens where a task states none.
        stop_at_blank_line: as in `Arguments`.

    Attributes:
        totals: what all answers so far took.

    Raises:
        UnsupportedError: random weights: they answer nothing.
        RequirementError: the method needs what the model cannot give.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        compressor: Compressor,
        budget: Mapping[str, Any],
        *,
        positions: Any = "original",
        newlines: Any = "raster",
        frames: int | None = None,
        fps: float | None = None,
        batch: int = 1,
        length: int = DEFAULT_LENGTH,
        stop_at_blank_line: bool = True,
    ) -> None:
        if isinstance(processor, LayoutProcessor):
            raise UnsupportedError("random weights answer no benchmark: take published weights or the embedded model.")
        self.model, self.processor, self.compressor = model, processor, compressor
        self.batch, self.length, self.stop_at_blank_line = batch, length, stop_at_blank_line
        self.totals = Totals()
        self._press = functools.partial(press, model, compressor, positions=positions, newlines=newlines, **budget)
        self._press()  # whatever does not fit shows before a benchmark is read
        self._stacks = family_of(model).equal_frames
        # Benchmarks ask several questions about a video in a row.
        self._read = functools.lru_cache(maxsize=1)(functools.partial(self._timed_read, frames, fps))

    def answer(self, requests: Sequence[Request], done: Callable[[int], None] = lambda _: None) -> list[Answer]:
        """Answers in the order of the requests.

        Args:
            requests: the questions.
            done: called with the number of answers after every batch.

        Raises:
            UnknownNameError, InputError: a generation setting that cannot be followed; before anything runs.
            UnsupportedError, VideoError: a request that the model cannot take, or a file that cannot be read.
        """
        options = [generation_options(request.generation, self.length) for request in requests]
        stops = [stop_strings(request.generation, blank_line=self.stop_at_blank_line) for request in requests]
        answers: list[Answer] = []
        for shared, batch in self._batches(requests, options):
            answers += self._generate(batch, shared, stops[len(answers) :])
            done(len(answers))
        return answers

    def _batches(
        self, requests: Sequence[Request], options: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], list[Prompt]]]:
        """Neighbours that can go together."""
        batch: list[Prompt] = []
        current: dict[str, Any] = {}
        for request, wanted in zip(requests, options, strict=True):
            prompt = prompt_of(self.processor, request.messages(), self._read)
            self._check_stack(prompt)
            if batch and (len(batch) == self.batch or wanted != current or not self._stackable(batch, prompt)):
                yield current, batch
                batch = []
            batch.append(prompt)
            current = wanted
        if batch:
            yield current, batch

    def _generate(
        self, prompts: Sequence[Prompt], options: Mapping[str, Any], stops: Sequence[Sequence[str]]
    ) -> list[Answer]:
        """One call of the model; `stops` begins with those of these prompts."""
        inputs = inputs_of(self.processor, prompts)
        width, lengths = inputs["input_ids"].shape[1], inputs["attention_mask"].sum(1).tolist()
        with self._press() as report:
            output = self.model.generate(**{k: v.to(self.model.device) for k, v in inputs.items()}, **options)
        new = output[:, width:].cpu()
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        dropped = iter([video.tokens - video.kept for video in report.videos])
        answers = [
            Answer(
                cut(text, stop),
                int(length) - sum(next(dropped) for _ in prompt.videos),
                self._generated(ids),
            )
            for prompt, text, stop, length, ids in zip(prompts, texts, stops, lengths, new.tolist(), strict=False)
        ]
        self.totals.add(report, prompts, answers)
        return answers

    def _generated(self, ids: Sequence[int]) -> int:
        """Tokens up to the one that ends the answer; what follows pads the batch."""
        end = self.model.generation_config.eos_token_id
        ends = {end} if isinstance(end, int) else set(end or ())
        return next((count for count, token in enumerate(ids, 1) if token in ends), len(ids))

    def _timed_read(self, frames: int | None, fps: float | None, path: Path) -> Video:
        started = time.perf_counter()
        video = read_video(path, frames=frames, fps=fps)
        self.totals.seconds["decode_video"] += time.perf_counter() - started
        return video

    def _stackable(self, batch: Sequence[Prompt], prompt: Prompt) -> bool:
        counts = {len(video.frames) for item in (*batch, prompt) for video in item.videos}
        return not self._stacks or len(counts) < 2

    def _check_stack(self, prompt: Prompt) -> None:
        if not self._stackable([], prompt):
            raise UnsupportedError(
                "LLaVA-OneVision takes several videos in one prompt only with the same number of frames: give "
                "frames= no larger than the shortest video has."
            )
