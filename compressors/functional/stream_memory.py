"""The memory of a stream: a running mean over its chunks, and how similar tokens are to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from compressors.errors import InputError
from compressors.functional.statistics import blocks, channel_statistics, low_variance_channels
from compressors.tokens import VideoTokens

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False)
class StreamMemory:
    """The mean over the means of all chunks so far. Its size does not depend on the stream's length.

    Attributes:
        mean: float32, `[C]` by channel, or `[int(C·fraction)]` by rank of variance.
        chunks: how many chunks it is the mean of.
        pairing: "channel" or "rank".
    """

    mean: Tensor
    chunks: int
    pairing: str


@dataclass(frozen=True)
class MemorySimilarity:
    """Similarity of tokens to the normalised memory, this chunk included.

    Attributes:
        channels: "low_variance" compares on the `int(C·fraction)` channels of lowest variance in the chunk, "all" on
            all.
        fraction: share of the channels for "low_variance".
        kernel: "gaussian": Σ_a exp(-‖x-m‖²/(2a)) over the bandwidths, on unit vectors; "cosine": cos(x, m).
        bandwidths: the a of the Gaussian kernel.
        pairing: "channel": each channel remembers itself; "rank": the i-th calmest channel remembers the i-th calmest.
    """

    channels: Literal["low_variance", "all"]
    fraction: float
    kernel: Literal["gaussian", "cosine"]
    bandwidths: tuple[float, ...]
    pairing: Literal["channel", "rank"]

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Similarities, float32 `[T, N]`."""
        mask, memory = self._mask(tokens), self.memory(tokens).mean
        if self.pairing == "rank":
            memory = torch.zeros_like(mask).scatter(0, self._order(tokens), memory)
        memory = memory * mask
        memory = memory / memory.norm().clamp_min(_TINY)
        cosine = tokens.features.new_empty(tokens.frames, tokens.places, dtype=torch.float32)
        present = torch.empty_like(cosine)
        for block in blocks(tokens, products=2):
            norm = torch.linalg.vector_norm(block.times(mask, last=False), dim=-1)
            product = block.dots(memory.expand(block.values.shape[0], 1, -1)).squeeze(-1)
            cosine[block.frames, block.places] = product / norm.clamp_min(_TINY)
            present[block.frames, block.places] = (norm > 0).float()
        if self.kernel == "cosine":
            return cosine
        # ‖x̂ - m‖² of unit vectors; either may be zero instead.
        distance = (present - 2 * cosine + memory.square().sum()).clamp_min(0.0)
        return torch.stack([torch.exp(distance / (-2 * a)) for a in self.bandwidths]).sum(0)

    def memory(self, tokens: VideoTokens) -> StreamMemory:
        """The memory after this chunk.

        Raises:
            InputError: the history is another method's, or of another width.
        """
        mean = channel_statistics(tokens).mean.float()
        if self.pairing == "rank":
            mean = mean[self._order(tokens)]
        before = self._checked(tokens.history, mean)
        if before is None:
            return StreamMemory(mean, 1, self.pairing)
        chunks = before.chunks + 1
        return StreamMemory(before.mean + (mean - before.mean) / chunks, chunks, self.pairing)

    def _checked(self, history: Any, mean: Tensor) -> StreamMemory | None:
        if history is None:
            return None
        if not isinstance(history, StreamMemory) or history.pairing != self.pairing:
            paired = f" paired by {history.pairing}" if isinstance(history, StreamMemory) else ""
            raise InputError(
                f"history is a {type(history).__name__}{paired}; STC-Pruner with pairing={self.pairing!r} "
                f"continues what its own Compression.history gave. Pass None at the start of a stream."
            )
        if history.mean.shape != mean.shape:
            raise InputError(
                f"history remembers {history.mean.shape[0]} channels, and this chunk has {mean.shape[0]} to remember: "
                f"start a new stream with history=None."
            )
        return history

    def _mask(self, tokens: VideoTokens) -> Tensor:
        """float32 `[C]`, 1 at the compared channels."""
        if self.channels == "all":
            return torch.ones(tokens.channels, device=tokens.device)
        return low_variance_channels(tokens, self.fraction)

    def _order(self, tokens: VideoTokens) -> Tensor:
        """The compared channels by rising variance."""
        count = tokens.channels if self.channels == "all" else max(1, int(tokens.channels * self.fraction))
        return torch.sort(channel_statistics(tokens).variance, stable=True).indices[:count]
