"""`data=micro`: held-out generated clips, the kind of video that the embedded model understands.

Clip `index` of seed `s` is the same on every machine; clips of even numbers of sizes follow each other. Files are made
when they are first needed and kept in a cache folder whose name says which generator made them.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
from omegaconf import DictConfig

from compressors.errors import InputError
from experiments.datasets.sample import Dataset, Sample
from experiments.micro import clips, codec
from experiments.micro.batches import BUCKETS
from experiments.micro.check import HELD_OUT
from experiments.micro.clips import ClipSpec, render, sample_clip
from experiments.micro.codec import write_clip
from experiments.micro.questions import QUESTION_NAMES, answers, ask

SIZES = {f"{b.frames}x{b.height}x{b.width}": b for b in BUCKETS}


class Micro(Dataset):
    """Generated clips; every clip is asked every kind of question that was asked for.

    Args:
        count: clips.
        seed: of the clips; training never sees any of them, whatever the seed.
        questions: kinds of questions.
        sizes: sizes of clips, in turn; names as in `SIZES`.
        folder: where files are kept.
    """

    name = "micro"

    def __init__(self, count: int, seed: int, questions: Sequence[str], sizes: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self._specs: dict[str, ClipSpec] = {}
        self.samples: list[Sample] = []
        for index in range(count):
            # The same draw as everywhere else for this (seed, index): the clip first, then the phrasings.
            rng = np.random.default_rng((HELD_OUT, seed, index))
            size = SIZES[sizes[index % len(sizes)]]
            spec = sample_clip(rng, size.frames, size.height, size.width)
            asked, right = ask(rng), answers(spec)
            video = f"{seed}/{index}"
            self._specs[video] = spec
            self.samples += [Sample(f"{video}/{q}", video, asked[q], right[q], kind=q) for q in questions]

    def path(self, sample: Sample) -> Path:
        spec = self._specs[sample.video]
        path = self.folder / f"{hashlib.sha256(repr(spec).encode()).hexdigest()[:24]}.mp4"
        return kept_file(path, lambda path: write_clip(path, render(spec)))

    def stream(self, sample: Sample) -> str:
        return sample.video  # without making every file beforehand


def load(data: DictConfig) -> Dataset:
    """The data set of `conf/data/micro.yaml`.

    Raises:
        InputError: a number, a kind of question or a size that cannot be.
    """
    for key, least in (("clips", 1), ("seed", 0)):
        if not isinstance(data[key], int) or isinstance(data[key], bool) or data[key] < least:
            raise InputError(f"data.{key}={data[key]} must be a whole number, {least} or more.")
    wanted = {
        "questions": chosen("questions", data.questions, QUESTION_NAMES),
        "sizes": chosen("sizes", data.sizes, tuple(SIZES)),
    }
    folder = Path(data.folder).expanduser() if data.folder else cache_folder()
    return Micro(data.clips, data.seed, folder=folder, **wanted)


def cache_folder() -> Path:
    """Where generated clips are kept unless told otherwise: $XDG_CACHE_HOME (or ~/.cache)/vidpress/micro-<version>."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made_by = "".join(map(inspect.getsource, (clips, codec))).encode() + av.__version__.encode()
    return base / "vidpress" / f"micro-{hashlib.sha256(made_by).hexdigest()[:12]}"


def kept_file(path: Path, write: Callable[[Path], None]) -> Path:
    """A file that `write` makes if it is not there yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        write(partial)
        partial.replace(path)  # several runs may make the same file at once
    return path


def chosen(key: str, given: Sequence[str] | str | None, known: Sequence[str]) -> Sequence[str]:
    """Names from a setting, all that are known by default.

    Raises:
        InputError: one is not known, or the list is empty.
    """
    if given is None:
        return known
    names = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else list(given)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise InputError(f"data.{key}: no {', '.join(map(repr, wrong)) or 'empty list'}; known: {', '.join(known)}.")
    return names
