"""`Stream`: what a session knows of its stream beside keys and values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adapters.streaming import saving
from adapters.streaming.form import Told

_PLAIN = ("held_times", "size", "last", "frames", "tokens", "kept")  # as they go into a file


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """The state of a stream; replaced as a whole.

    Attributes:
        told: what the prompt's form must know to go on.
        history: the pruner's state.
        held: uint8 `[f, H, W, 3]`, frames that wait for their group or chunk.
        held_times: their seconds.
        size: (H, W) of the stream's frames.
        last: seconds of the last frame that came; None before the first.
        frames, tokens, kept: counts of what was processed.
    """

    told: Told = dataclasses.field(default_factory=Told)
    history: Any = None
    held: Tensor | None = None
    held_times: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    last: float | None = None
    frames: int = 0
    tokens: int = 0
    kept: int = 0

    def saved(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Plain values for a file; what is a tensor goes into `tensors`.

        Raises:
            SaveError: the pruner's state is of a kind that files cannot hold.
        """
        if self.held is not None:
            tensors["held"] = self.held
        history = saving.packed(self.history, tensors, "history")
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {"told": dataclasses.asdict(self.told), "history": history, **plain}

    @classmethod
    def loaded(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> Stream:
        """What `saved` wrote; whatever a damaged file makes fail, fails."""
        told, plain = values["told"], {name: values[name] for name in _PLAIN}
        plain["held_times"] = tuple(plain["held_times"])
        plain["size"] = plain["size"] and tuple(plain["size"])
        grid = None if told["grid"] is None else (int(told["grid"][0]), int(told["grid"][1]))
        return cls(
            told=Told(grid, float(told["began"]), told["offset"]),
            history=saving.unpacked(values["history"], tensors, device),
            held=tensors.get("held"),
            **plain,
        )
