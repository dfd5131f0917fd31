"""`task=evaluate memory=…`: every video is fed to a session once, and asked when the questions come up."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from adapters.streaming import StreamSession
from adapters.video import frames_of, video_rate
from compressors.base import Compressor
from compressors.errors import VidpressError
from experiments.datasets import Dataset, Sample
from experiments.display import counting_bar
from experiments.journal import Journal, failed_line, line_of
from experiments.seeding import reseeded
from experiments.sessions import session_from
from experiments.subject import model_from

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
RECENT = 16  # calls of `feed` before a question whose median is the time per frame
STAGES = {"encode": "encode", "compress": "compress", "extend": "prefill"}  # a session's -> a result's


class StreamRunner:
    """Answers what a journal does not hold yet, each stream in one pass per method.

    Args:
        cfg: the configuration; `memory` is a memory.
        dataset: the questions; each is asked when its clip would end.
        methods: name -> pruner.
        options: the budget, as a session takes it.
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
        self.draw = cfg.seed - (cfg.data.get("seed") or 0)

    def run(self) -> None:
        """Answer everything that is missing; each stream with all methods before the next one."""
        streams = streams_of(self.dataset)
        if not any((name, s.id) not in self.done for name in self.methods for s in self.dataset.samples):
            return
        torch.manual_seed(self.cfg.seed)
        self.model, self.processor = model_from(self.cfg)
        for method in self.methods.values():  # what cannot be shows before the first video is decoded
            self._session(method).close()
        names = list(self.methods)
        with counting_bar("watching", len(self.dataset.samples)) as advance:
            for number, (stream, samples) in enumerate(streams.items()):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    if any((name, sample.id) not in self.done for sample in samples):
                        lines = self._watch(name, number, stream, samples)
                        self.journal.append(line for line in lines if (name, line["id"]) not in self.done)
                advance(len(samples))

    def _session(self, method: Compressor, fps: float | None = None) -> StreamSession:
        return session_from(self.cfg, self.model, self.processor, method, self.options, fps)

    def _watch(self, name: str, number: int, stream: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """One stream under one method: a line per question, in the order in which they come up."""
        lines: list[dict[str, Any]] = []
        try:
            rate = self.cfg.fps or video_rate(self.dataset.path(samples[0]))
            with self._session(reseeded(self.methods[name], number, self.draw), rate) as session:
                watch = Watch(session, self.cfg.task.chunk, CLOCKS[self.cfg.task.clock])
                for moment, asked in watch.moments(self.dataset, samples, self.cfg.fps):
                    for line in self._ask(name, stream, session, watch, moment, asked):
                        lines.append(line)
        except VidpressError as error:  # the video, or a memory that is full: what was answered before counts
            lines += [failed_line(name, sample, error, stream) for sample in samples[len(lines) :]]
        return lines

    def _ask(
        self, name: str, stream: str, session: StreamSession, watch: Watch, moment: float, asked: Sequence[Sample]
    ) -> Iterator[dict[str, Any]]:
        """The questions of one moment; what came since the moment before is divided among them."""
        status = session.status
        since = {stage: spent / len(asked) for stage, spent in watch.spent().items()}
        for sample in asked:
            started = time.perf_counter()
            answer = session.ask(sample.prompt, max_new_tokens=self.cfg.max_new_tokens)
            spent, reply = time.perf_counter() - started, answer.text.strip()
            yield {
                **line_of(name, sample, stream),
                "answer": reply,
                "right": self.dataset.is_right(sample, reply),
                "visual": status.tokens,
                "kept": status.kept,
                "seconds": {**since, "decode": spent},
                "error": None,
                "stream": {
                    "frames": status.frames,
                    "at": moment,
                    "held": status.held,
                    "used": answer.tokens_used,
                    "device_bytes": status.device_bytes,
                    "host_bytes": status.host_bytes,
                    "disk_bytes": status.disk_bytes,
                    "reuse": status.reuse,
                    "frame_seconds": watch.frame_seconds,
                },
            }


class Watch:
    """Feeds a video's frames to a session, and keeps the time.

    Args:
        session: to feed.
        chunk: frames per call, as many as the session processes together; fewer before a question.
        clock: seconds, for the time per frame.
    """

    def __init__(self, session: StreamSession, chunk: int, clock: Callable[[], float] = CLOCKS["wall"]) -> None:
        self._session, self._chunk, self._clock = session, chunk, clock
        self._seconds: dict[str, float] = {}
        self._feeding = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._waiting: list[tuple[float, Tensor]] = []

    def moments(
        self, dataset: Dataset, samples: Sequence[Sample], fps: float | None
    ) -> Iterator[tuple[float, list[Sample]]]:
        """(second, questions) of every moment at which something is asked, after all that was shown before it."""
        first, last = samples[0], samples[-1]
        pending = deque(samples)
        started = time.perf_counter()
        start = first.start or 0.0
        for now, frame in frames_of(dataset.path(first), fps=fps, start=first.start, end=last.end):
            self._add("decode_video", time.perf_counter() - started)
            while pending and pending[0].end is not None and now >= pending[0].end - start - 1e-4:
                self._feed()
                yield now, _take(pending)
            self._waiting.append((now, frame))
            if len(self._waiting) == self._chunk:
                self._feed()
            started = time.perf_counter()
        self._feed()
        while pending:
            yield now, _take(pending)

    def spent(self) -> dict[str, float]:
        """Seconds per stage since it was last asked for."""
        spent, self._seconds = self._seconds, {}
        return spent

    @property
    def frame_seconds(self) -> float | None:
        """Median seconds per frame of the latest calls; decoding the video is not in it."""
        return statistics.median(self._recent) if self._recent else None

    def _feed(self) -> None:
        if not self._waiting:
            return
        times, frames = zip(*self._waiting, strict=True)
        self._waiting = []
        started = self._clock()
        fed = self._session.feed(torch.stack(frames), list(times))
        self._feeding += self._clock() - started
        if not fed.processed:  # they wait for their group
            return
        self._recent.append(self._feeding / fed.processed)
        self._feeding = 0.0
        for stage, seconds in self._session.status.stages.items():
            if stage in STAGES:
                self._add(STAGES[stage], seconds.last)

    def _add(self, stage: str, spent: float) -> None:
        self._seconds[stage] = self._seconds.get(stage, 0.0) + spent


def streams_of(dataset: Dataset) -> dict[str, list[Sample]]:
    """The questions of every stream in the order in which they come up; those without a time wait for the end."""
    streams: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        streams.setdefault(dataset.stream(sample), []).append(sample)
    for samples in streams.values():
        samples.sort(key=lambda sample: math.inf if sample.end is None else sample.end)
    return streams


def _take(pending: deque[Sample]) -> list[Sample]:
    """The questions of the next moment, taken from the front."""
    moment = [pending.popleft()]
    while pending and pending[0].end == moment[0].end:
        moment.append(pending.popleft())
    return moment
