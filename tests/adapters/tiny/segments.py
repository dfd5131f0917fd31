"""What prompts are written in: rows of texts, images and videos."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """`n` random text tokens."""

    n: int


@dataclass(frozen=True)
class Image:
    """An image of `h` × `w` merged tokens (families of one size: of that size)."""

    h: int = 2
    w: int = 3


@dataclass(frozen=True)
class Video:
    """A video of `frames` temporal groups of `h` × `w` tokens (families of one size: of that size)."""

    frames: int
    h: int = 2
    w: int = 2


Segment = Text | Image | Video
Rows = tuple[tuple[Segment, ...], ...]


def videos(rows: Rows) -> list[Video]:
    """The distinct videos of a prompt, in order of appearance over the batch rows."""
    return [segment for row in rows for segment in row if isinstance(segment, Video)]


def images(rows: Rows) -> list[Image]:
    """The images of a prompt, in order."""
    return [segment for row in rows for segment in row if isinstance(segment, Image)]
