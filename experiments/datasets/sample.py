"""What a data set consists of."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
    """Samples, and where their videos are."""

    name: str
    samples: Sequence[Sample]

    @property
    def fingerprint(self) -> str:
        """Changes when any question, answer or video name does: results of a run belong to exactly these samples."""
        return hashlib.sha256("\n".join(map(repr, self.samples)).encode()).hexdigest()[:16]

    @abstractmethod
    def path(self, sample: Sample) -> Path:
        """The video's file; a data set that generates videos makes it when it is asked for."""
