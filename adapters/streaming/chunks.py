"""`Chunks`: frames in, what the pruner keeps of their visual tokens out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters.streaming.encoder import Encoder
from adapters.streaming.form import Kept
from adapters.streaming.status import Stopwatch
from adapters.streaming.stream import Stream
from compressors import Budget, Compressor, InputError, VideoTokens
from compressors.checks import raise_failed_checks


@dataclass(frozen=True, eq=False)
class Processed:
    """A chunk, ready for the language model.

    Attributes:
        kept: its tokens.
        history: the pruner's state after it.
        tokens: how many tokens it had.
    """

    kept: Kept
    history: Any
    tokens: int


class Chunks:
    """The vision tower and the pruner of a session.

    Args:
        encoder: from frames to visual tokens.
        pruner: what keeps some of them; None keeps all.
        budget: of a chunk.
        seconds: nominal length of a temporal group.
    """

    def __init__(self, encoder: Encoder, pruner: Compressor | None, budget: Budget, seconds: float) -> None:
        self.encoder, self._pruner, self._budget, self._seconds = encoder, pruner, budget, seconds
        self._warned = False

    def __call__(
        self,
        frames: Tensor,
        times: tuple[float, ...],
        stream: Stream,
        watch: Stopwatch,
        reuse: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Processed:
        """Process whole groups.

        Args:
            frames: uint8 `[F, H, W, 3]`.
            times: their seconds.
            stream: before them.
            watch: for the stages encode and compress.
            reuse: makes the context in which the tower reuses work of earlier chunks.

        Raises:
            InputError: the processor makes another grid of them than of earlier frames; features with NaN or Inf.
        """
        with watch.stage("encode"):
            encoded = self.encoder(self.encoder.preprocess(frames, times), reuse)
        if stream.told.grid not in (None, encoded.grid):
            raise InputError(
                f"the processor made {encoded.grid} tokens of a frame, and {stream.told.grid} of earlier ones of the "
                f"same size: reset() and feed frames of the size it asks for."
            )
        groups, places, _ = encoded.features.shape
        step = self.encoder.group
        spans = tuple((times[i], times[i + step - 1], times[i] + self._seconds) for i in range(0, len(times), step))
        with watch.stage("compress"):
            planes = tuple(encoded.planes.values())
            if self._pruner is None:
                every = torch.arange(groups * places, device=encoded.features.device) % places
                flat = tuple(plane.flatten(0, 1) for plane in planes)
                kept = Kept(encoded.features.flatten(0, 1), every, (places,) * groups, flat, encoded.grid, spans)
                return Processed(kept, None, groups * places)
            self._warn_if_nothing_moves(groups)
            tokens = VideoTokens(
                encoded.features,
                grid=encoded.grid,
                planes=encoded.planes,
                timestamps=torch.tensor([first for first, _, _ in spans], device=encoded.features.device),
                history=stream.history,
                **encoded.tapped,
            )
            compression = self._pruner(tokens, self._budget)
            raise_failed_checks(tokens)
            flat = tuple(compression.follow(plane) for plane in planes)
            counts = tuple(compression.budgets.tolist())
            kept = Kept(compression.features, compression.keep % places, counts, flat, encoded.grid, spans)
            return Processed(kept, compression.history, groups * places)

    def _warn_if_nothing_moves(self, groups: int) -> None:
        allocator = getattr(self._pruner, "allocator", None)
        if groups > 1 or self._warned or allocator is None or allocator.stateful or allocator.known_beforehand:
            return
        self._warned = True
        warnings.warn(
            f"allocator {allocator.name} divides a chunk's budget among its temporal groups, and this chunk has one: "
            f"use allocator=causal_fca, which looks at the stream so far, or a larger chunk=.",
            stacklevel=5,
        )
