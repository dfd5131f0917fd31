"""What a data set consists of."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.scoring import LETTERS, is_right


@dataclass(frozen=True)
class Sample:
    """One question about one video.

    Attributes:
        id: unique in the data set, and the same whenever the data set is loaded.
        video: which video; samples of one video follow each other.
        question: as the user of a model would type it, without options.
        expected: the right answer; with options it is one of them.
        options: what may be answered; None for a free answer.
        kind: the type of question, for tables.
        start, end: seconds; only this part of the video is shown.
    """

    id: str
    video: str
    question: str
    expected: str
    options: tuple[str, ...] | None = None
    kind: str = "all"
    start: float | None = None
    end: float | None = None

    @property
    def prompt(self) -> str:
        """The text after the video: the question, with its options lettered if it has any."""
        if self.options is None:
            return self.question
        lettered = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.question, *lettered, "Answer with the option's letter."])


class Dataset(ABC):
    """Samples, and where their videos are.

    Attributes:
        protocol: how a published benchmark makes one score of them, see `experiments.summary.protocol_scores`; None for
            data of our own, where accuracy is the share of right answers among those that were given.
    """

    name: str
    samples: Sequence[Sample]
    protocol: Literal["groups", "questions"] | None = None

    @property
    def fingerprint(self) -> str:
        """Changes when any question, answer or video name does: results of a run belong to exactly these samples."""
        return hashlib.sha256("\n".join(map(repr, self.samples)).encode()).hexdigest()[:16]

    @abstractmethod
    def path(self, sample: Sample) -> Path:
        """The video's file; a data set that generates videos makes it when it is asked for."""

    def is_right(self, sample: Sample, reply: str) -> bool:
        """Whether a reply answers a sample rightly; a benchmark with a rule of its own overrides it."""
        return is_right(sample, reply)

    def stream(self, sample: Sample) -> str:
        """The stream that a question interrupts: a file from the second at which it begins to be shown."""
        return f"{self.path(sample)}@{sample.start or 0.0}"
