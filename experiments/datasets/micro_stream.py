"""`data=micro_stream`: generated streams, longer than any clip that the embedded model was trained on.

At each moment (the end of each period of a stream, see `experiments/micro/streams.py`) three sorts of questions are
asked, in the forms that the model was trained on:

* `now_…`: shape, colour and direction of what is moving, which was something else in the period before;
* `earlier_…`: shape, colour and time of the flash that was visible for two frames at some time before;
* `before_…`: how many scenes there have been so far, and whether a certain shape has flashed before. The model knows no
  questions to be answered by yes or no: it is asked which shape flashed, and a reply that names the shape is a yes.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from compressors.errors import InputError
from experiments.datasets.micro import cache_folder, chosen, kept_file
from experiments.datasets.sample import Dataset, Sample
from experiments.micro import streams
from experiments.micro.check import HELD_OUT
from experiments.micro.clips import FLASH_SHAPES
from experiments.micro.codec import write_clip
from experiments.micro.questions import ask
from experiments.micro.streams import StreamSpec, render_stream, sample_stream
from experiments.scoring import normal

FPS = 8
KINDS = {
    "now_shape": "mover_shape",
    "now_colour": "mover_colour",
    "now_direction": "mover_direction",
    "earlier_shape": "flash_shape",
    "earlier_colour": "flash_colour",
    "earlier_part": "flash_part",
    "before_flash": "flash_shape",
    "before_scenes": "scenes",
}  # kind -> the model's form of the question
NOT = "not "  # before the shape of `before_flash` if the right answer is no


class MicroStream(Dataset):
    """Generated streams, each interrupted by questions at the end of every period.

    Args:
        count: streams.
        seed: of the streams; training never sees any of them.
        frames: of a stream, at 8 per second.
        periods: of a stream.
        questions: kinds, of `KINDS`; those about the flash are asked once it has been.
        folder: where files are kept.
    """

    name = "micro_stream"

    def __init__(
        self, count: int, seed: int, frames: int, periods: int, questions: Sequence[str], folder: Path
    ) -> None:
        self.folder = folder
        self._specs: dict[str, StreamSpec] = {}
        self.samples: list[Sample] = []
        for index in range(count):
            # Apart from the clips of `data=micro`, whatever the seeds.
            rng = np.random.default_rng((HELD_OUT, 1, seed, index))
            spec = sample_stream(rng, frames, periods)
            name = f"{seed}/{frames}/{index}"
            self._specs[name] = spec
            self.samples += [s for s in _questions(name, spec, rng) if s.kind in questions]

    def path(self, sample: Sample) -> Path:
        spec = self._specs[self.stream(sample)]
        drawn_by = inspect.getsource(streams)
        name = hashlib.sha256((repr(spec) + drawn_by).encode()).hexdigest()[:24]
        return kept_file(self.folder / f"{name}.mp4", lambda path: write_clip(path, render_stream(spec), fps=FPS))

    def stream(self, sample: Sample) -> str:
        return sample.video.partition("[")[0]

    def is_right(self, sample: Sample, reply: str) -> bool:
        """As everywhere; `before_flash` by whether the reply names the shape in question, or another that can flash."""
        if sample.kind != "before_flash":
            return super().is_right(sample, reply)
        said, shape = normal(reply), sample.expected.removeprefix(NOT)
        return said in FLASH_SHAPES and (said == shape) is not sample.expected.startswith(NOT)


def load(data: DictConfig) -> Dataset:
    """The data set of `conf/data/micro_stream.yaml`.

    Raises:
        InputError: a number or a kind of question that cannot be.
    """
    for key, least in (("streams", 1), ("seed", 0), ("frames", 16), ("periods", 1)):
        if not isinstance(data[key], int) or isinstance(data[key], bool) or data[key] < least:
            raise InputError(f"data.{key}={data[key]} must be a whole number, {least} or more.")
    if data.frames % 2 or data.frames < 16 * data.periods:
        raise InputError(
            f"data.frames={data.frames} must be even and at least 16 for each of data.periods={data.periods}."
        )
    questions = chosen("questions", data.questions, tuple(KINDS))
    folder = Path(data.folder).expanduser() if data.folder else cache_folder()
    return MicroStream(data.streams, data.seed, data.frames, data.periods, questions, folder)


def _questions(name: str, spec: StreamSpec, rng: np.random.Generator) -> Iterator[Sample]:
    """All kinds of questions at the end of every period, those about the flash once it has been."""
    whole = spec.periods[0]
    for period, end in zip(spec.periods, spec.ends, strict=True):
        asked = ask(rng)
        others = [shape for shape in FLASH_SHAPES if shape != whole.flash_shape]
        doubted, happened = str(rng.choice(others)), bool(rng.integers(2))
        right = {
            "now_shape": period.mover_shape,
            "now_colour": period.mover_colour,
            "now_direction": period.direction,
            "earlier_shape": whole.flash_shape,
            "earlier_colour": whole.flash_colour,
            "earlier_part": spec.part(end),
            "before_flash": whole.flash_shape if happened else NOT + doubted,
            "before_scenes": str(spec.scenes(end)),
        }
        for kind, form in KINDS.items():
            if form.startswith("flash") and not spec.flashed(end):
                continue
            video = f"{name}[0-{end}]"  # frames
            # A little before the frame behind the period: times in files are rounded.
            yield Sample(f"{video}/{kind}", video, asked[form], right[kind], kind=kind, end=(end - 0.5) / FPS)
