"""Operations and bytes that a prompt needs, counted from shapes: the limit beside the measurement.

Operations are multiplications and additions of matrix products: 2 per weight and token, and attention over all pairs
of positions, as torch's own counter has it (causal kernels may skip half of the pairs); in layers with a window, over
the pairs inside it (kernels that mask instead do all). Bytes are the least traffic: every weight read once, keys and
values written once and read once, recurrent states, input and output. What compression itself does is one read of the
features, as the floor of a method is defined; what is done before the model is pixels read and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters.family import family_of
from adapters.video import Video
from compressors.base import CacheReuser
from compressors.errors import InputError
from experiments.benchmarking import decoders
from experiments.benchmarking.towers import Given, pixels_in, shape_of


@dataclass(frozen=True)
class Work:
    """Operations (FLOP) and bytes."""

    operations: int
    bytes: int

    def as_result(self) -> dict[str, int]:
        """For `result.json`."""
        return {"operations": self.operations, "bytes": self.bytes}


def prefill_work(model: Any, batch: int, length: int) -> Work:
    """The language model over `batch` rows of `length` tokens, and the first answer token's head."""
    return _decoder_work(model, batch, length, 0)


def step_work(model: Any, batch: int, past: int) -> Work:
    """One decoding step of `batch` rows on a cache of `past` tokens."""
    return _decoder_work(model, batch, 1, past)


def countable(model: Any, inputs: Mapping[str, Tensor]) -> tuple[bool, bool]:
    """Whether the work of the decoder and that of the vision tower can be counted here; if not, no limit is shown.

    A prompt without pixels needs nothing of its tower, which can be counted.
    """
    family = family_of(model)
    tower = pixels_in(model, inputs) is None or shape_of(Given(model, family.base(model), inputs)) is not None
    return decoders.countable(family.decoder(model)), tower


def _decoder_work(model: Any, batch: int, new: int, past: int) -> Work:
    decoder, head = family_of(model).decoder(model), model.get_output_embeddings().weight
    item = head.element_size()
    config: Any = model.config.get_text_config()
    tally = decoders.count(decoder, config, decoders.Call(batch, new, past, item))
    read = head.numel() * item + batch * new * config.hidden_size * item
    return Work(tally.operations + 2 * head.numel() * batch, tally.bytes + read)


def encoder_work(model: Any, inputs: Mapping[str, Tensor], cacher: CacheReuser | None = None) -> Work:
    """The vision tower and projector over a prompt's videos, each a stream of its own under a cacher.

    Raises:
        InputError: a tower that is not known here.
    """
    family = family_of(model)
    base: Any = family.base(model)
    if (pixels := pixels_in(model, inputs)) is None:
        return Work(0, 0)
    given = Given(model, base, inputs, cacher)
    if (count := shape_of(given)) is None:
        raise InputError(f"{type(model).__name__}: the operations of its vision tower cannot be counted.")
    counted = count(given)
    features = int(family.video_mask(model, inputs["input_ids"]).sum()) * model.config.get_text_config().hidden_size
    item = torch.empty((), dtype=model.dtype).element_size()
    return Work(counted.operations, (counted.weights + pixels.numel() + features) * item)


def compress_work(model: Any, batch: int, visual: int) -> Work:
    """A method that looks at its input reads the features of `batch` videos of `visual` tokens once: one floor."""
    width = model.config.get_text_config().hidden_size
    return Work(0, batch * visual * width * torch.empty((), dtype=model.dtype).element_size())


def decode_video_work(video: Video, size: int) -> Work:
    """The file (`size` bytes) read once, and the frames that are kept written once; what lies between them not."""
    return Work(0, size + video.frames.numel() * video.frames.element_size())


def preprocess_work(model: Any, video: Video, inputs: Mapping[str, Tensor]) -> Work:
    """The frames read once for each row, and the pixels that the model is given written once."""
    pixels, rows = pixels_in(model, inputs), inputs["input_ids"].shape[0]
    written = 0 if pixels is None else pixels.numel() * pixels.element_size()
    return Work(0, rows * video.frames.numel() * video.frames.element_size() + written)
