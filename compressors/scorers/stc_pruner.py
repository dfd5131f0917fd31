"""STC-Pruner's token score: unlike the frame, and unlike what the stream has shown so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from compressors.base import TokenScorer
from compressors.functional.centres import BANDWIDTHS, CentreSimilarity
from compressors.functional.stream_memory import MemorySimilarity, StreamMemory
from compressors.registry import register
from compressors.requirements import History, Requirement
from compressors.tokens import VideoTokens


@register("scorer", "stc_pruner")
@dataclass(frozen=True)
class StcPrunerScorer(TokenScorer):
    """Token score of STC-Pruner (arXiv 2512.00891): `-(memory_weight·g_mem + frame_weight·g_frm)`.

    g is VidCom2's Gaussian similarity on the half of the chunk's channels with the lowest variance, to the mean of the
    frame's unit tokens and to the memory: the mean over the mean tokens of all chunks so far, this one included,
    normalised. A chunk is what one call gets, one frame or several. The memory is a running mean that goes in and out
    as `history`: one vector, however long the stream, and nothing is kept between calls.

    Cost: four passes over the features (channel statistics, means, and one for each similarity), three with
    `channels="all"`; no host reads.

    The paper prints `channels="all", kernel="cosine", centres="raw"` with weights α = 1/2 and 1 - α.

    Attributes:
        channels, fraction, kernel, bandwidths, centres: as in `CentreSimilarity`; `centres` is the frame's.
        pairing: "channel" compares each channel with its own past. "rank" is the release: the i-th calmest channel of
            this chunk meets the i-th calmest of each earlier chunk, whichever those were.
        frame_weight: weight of the similarity to the frame's mean.
        memory_weight: weight of the similarity to the memory.
    """

    channels: Literal["low_variance", "all"] = "low_variance"
    fraction: float = 0.5
    kernel: Literal["gaussian", "cosine"] = "gaussian"
    bandwidths: Sequence[float] = BANDWIDTHS
    centres: Literal["unit", "raw"] = "unit"
    pairing: Literal["channel", "rank"] = "channel"
    frame_weight: float = 1.0
    memory_weight: float = 1.0

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({History("running_mean")})

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        frame = self.to_frame(tokens)[1]
        return -(self.memory_weight * self.to_memory(tokens) + self.frame_weight * frame)

    def next_history(self, tokens: VideoTokens) -> StreamMemory:
        """The running mean with this chunk in it."""
        return self.to_memory.memory(tokens)

    @property
    def to_memory(self) -> MemorySimilarity:
        return MemorySimilarity(self.channels, self.fraction, self.kernel, tuple(self.bandwidths), self.pairing)

    @property
    def to_frame(self) -> CentreSimilarity:
        return CentreSimilarity(self.channels, self.fraction, self.kernel, tuple(self.bandwidths), self.centres)
