"""`ReferenceState`: what is remembered of one stream, layer by layer, in buffers that stay where they are."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compressors.base import CacheState
from compressors.cachers.schedule import Progress
from compressors.errors import InputError

INPUT, COUNTS = "input", "counts"


class ReferenceState(CacheState):
    """Reference frames of one stream.

    Memory: per layer and reference frame three times `[N, C]` in the tower's dtype (keys, values, residuals) and `[N]`
    norms; with decisions that look at frames, one `[N, C]` more.

    Attributes:
        depth: layers of the tower.
        names: tensors remembered in each.
        looks: frames are remembered as they entered the tower, too.
        keep: False for a clip that ends with its call: nothing is written.
        progress: where the stream stands.
        shape: geometry of the reference frames; None when there are none.
    """

    def __init__(self, depth: int, names: Sequence[str], *, looks: bool = False, keep: bool = True) -> None:
        self.depth, self.names, self.looks, self.keep = depth, tuple(names), looks, keep
        self.lock = threading.Lock()
        self._layers: list[dict[str, Tensor]] = [{} for _ in range(depth)]
        self._input: Tensor | None = None
        self.reset()

    @property
    def kind(self) -> tuple[object, ...]:
        """What must be equal for a state to fit a binding."""
        return self.depth, self.names, self.looks

    def reset(self) -> None:
        self.reused = self.total = 0
        self.forget()

    def forget(self) -> None:
        """Drop the references, keep the counts: the next frame is computed in full. Buffers stay, to be used again."""
        self.progress = Progress()
        self.shape: tuple[int, ...] | None = None
        self.stored = 0

    def references(self, layer: int) -> Mapping[str, Tensor]:
        """`[R, N, …]` by name."""
        return {name: buffer[: self.stored] for name, buffer in self._layers[layer].items()}

    @property
    def inputs(self) -> Tensor | None:
        """`[R, N, C]`: the reference frames as they entered the tower, rows of unit length, where they are needed."""
        return None if self._input is None else self._input[: self.stored]

    def write(self, layer: int, made: Mapping[str, Tensor], kept: int) -> None:
        """Remember a layer's tensors `[R', N, …]` behind the first `kept` references that are there."""
        buffers = self._layers[layer]
        for name, values in made.items():
            buffers[name] = _written(buffers.get(name), values, kept)

    def write_inputs(self, inputs: Tensor, kept: int) -> None:
        """The same for the frames as they entered the tower."""
        self._input = _written(self._input, inputs, kept)

    def tensors(self) -> dict[str, Tensor]:
        step = self.progress
        counts = torch.tensor([self.reused, self.total, step.chunk, step.inside, self.stored, *self._shape_numbers()])
        saved = {COUNTS: counts}
        for number in range(self.depth if self.stored else 0):
            saved |= {f"{number}.{name}": value.clone() for name, value in self.references(number).items()}
        if self.stored and self._input is not None:
            saved[INPUT] = self._input[: self.stored].clone()
        return saved

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        counts = tensors.get(COUNTS)
        if counts is None or counts.ndim != 1 or counts.shape[0] < 5 or counts.is_floating_point():
            raise InputError(f"no state of a cacher: it has no whole numbers named {COUNTS!r}.")
        reused, total, chunk, inside, stored, *shape = counts.tolist()
        expected = {f"{number}.{name}" for number in range(self.depth) for name in self.names} if stored else set()
        expected |= {INPUT} if stored and self.looks else set()
        found = set(tensors) - {COUNTS}
        if found != expected or min(reused, total, chunk, inside, stored) < 0 or reused > total:
            raise InputError(
                f"the state is of another cacher or another tower: it has {len(found)} tensors of frames, and "
                f"{len(expected)} belong to this one ({self.depth} layers with {', '.join(self.names)})."
            )
        first = next((tensors[name].shape[:2] for name in sorted(expected)), None)
        if any(tensors[name].shape[:2] != first or tensors[name].shape[0] != stored for name in expected):
            raise InputError("the state is damaged: its tensors are of different numbers of frames or places.")
        self._layers = [
            {name: tensors[f"{number}.{name}"].clone() for name in self.names} if stored else {}
            for number in range(self.depth)
        ]
        self._input = tensors[INPUT].clone() if INPUT in tensors else None
        self.reused, self.total, self.stored = reused, total, stored
        self.progress, self.shape = Progress(chunk, inside), tuple(shape) or None

    def _shape_numbers(self) -> list[int]:
        return list(self.shape or ())


def _written(buffer: Tensor | None, values: Tensor, kept: int) -> Tensor:
    """The buffer with values behind its first `kept` frames: in place where they fit, so that its address stays."""
    needed = kept + values.shape[0]
    fits = (
        buffer is not None
        and buffer.shape[0] >= needed
        and buffer.shape[1:] == values.shape[1:]
        and buffer.dtype == values.dtype
        and buffer.device == values.device
        and (not buffer.is_inference() or torch.is_inference_mode_enabled())
    )
    if not fits or buffer is None:
        values = values.detach()
        whole = values if not kept or buffer is None else torch.cat([buffer[:kept], values])
        return whole.clone(memory_format=torch.contiguous_format) if whole is values else whole
    buffer[kept:needed].copy_(values.detach())
    return buffer
