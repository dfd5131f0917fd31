"""Generated streams: clips that go on for longer than any training clip, with one moving object after another.

A stream has the scenes, the distractors and the single flash of a clip of its length (`clips.sample_clip`); its moving
object is replaced by another in every period. So there is something to see now that was not there before, something
that happened once, and something that adds up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, pairwise

import numpy as np

from experiments.micro.clips import PAIR, PARTS, ClipSpec, render, sample_clip


@dataclass(frozen=True)
class StreamSpec:
    """All that determines a stream.

    Attributes:
        periods: one clip per period, all of the whole stream's length and alike but for their moving object.
        ends: the frame behind each period; the last is the length of the stream.
    """

    periods: tuple[ClipSpec, ...]
    ends: tuple[int, ...]

    @property
    def frames(self) -> int:
        return self.ends[-1]

    def flashed(self, frame: int) -> bool:
        """Whether the whole flash lies before a frame."""
        return (self.periods[0].flash_pair + 1) * PAIR <= frame

    def part(self, frame: int) -> str:
        """The third of what lies before a frame in which the flash is."""
        return PARTS[min(2, int(3 * (self.periods[0].flash_pair + 0.5) * PAIR / frame))]

    def scenes(self, frame: int) -> int:
        """Scenes that began before a frame."""
        return sum(cut * PAIR < frame for cut in self.periods[0].cuts)


def sample_stream(
    rng: np.random.Generator, frames: int, periods: int, height: int = 112, width: int = 112
) -> StreamSpec:
    """Draw a stream.

    Args:
        rng: the only source of chance.
        frames: even, at least 16 per period.
        periods: with a moving object each, about equally long.
        height, width: as `sample_clip`.

    Raises:
        ValueError: as `sample_clip`, or if periods are shorter than 16 frames.
    """
    if periods < 1 or frames < 16 * periods:
        raise ValueError(f"{frames} frames are too few for {periods} periods of at least 16")
    whole = sample_clip(rng, frames, height, width)
    movers = [sample_clip(rng, 16, height, width) for _ in range(periods)]
    moving = ("mover_shape", "mover_colour", "direction", "mover_size", "mover_start", "mover_speed")
    each = tuple(replace(whole, **{name: getattr(mover, name) for name in moving}) for mover in movers)
    return StreamSpec(each, tuple(frames * (n + 1) // periods // PAIR * PAIR for n in range(periods)))


def render_stream(spec: StreamSpec) -> np.ndarray:
    """Draw a stream: uint8 `[F, H, W, 3]`, RGB."""
    spans = pairwise((0, *spec.ends))
    return np.concatenate([render(clip)[start:end] for clip, (start, end) in zip(spec.periods, spans, strict=True)])


def endless_frames(seed: int, clips: int = 16, frames: int = 64) -> Iterator[np.ndarray]:
    """Frames without end, uint8 `[H, W, 3]`: `clips` generated clips one after the other, again and again."""
    drawn = [render(sample_clip(np.random.default_rng((seed, index)), frames)) for index in range(clips)]
    for clip in cycle(drawn):
        yield from clip
