"""Video files to frames, with PyAV: any container FFmpeg reads, sampled while decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer

from compressors.errors import VidpressError

# A header may announce a few frames more than can be shown (edit lists, open groups of pictures); if more than this
# share is missing, the file was cut off.
_TOLERATED_LOSS = 0.05

Progress = Callable[[int, int | None], None]


class VideoError(VidpressError, ValueError):
    """A video file that cannot be read as asked; the message names the file and the reason."""


@dataclass(frozen=True)
class Video:
    """Frames of a video file.

    Attributes:
        frames: uint8 `[F, H, W, 3]`, RGB, turned upright.
        timestamps: seconds from the first frame of the file (or from the start of the span), one per frame.
        fps: frames per second of the file, not of the sample.
        duration: seconds of the whole file (or of the span).
        path: where it came from.
    """

    frames: torch.Tensor
    timestamps: tuple[float, ...]
    fps: float
    duration: float
    path: Path


@dataclass(frozen=True)
class Span:
    """Seconds from the first frame of a file: frames shown at `start` or later, and before `end`."""

    start: float = 0.0
    end: float = math.inf


@dataclass(frozen=True)
class VideoSize:
    """What is known of a video file after its first frame.

    Attributes:
        frames: frames in the file: as announced, which may be a few more than can be shown, or else counted; those of
            a span are always counted.
        height, width: of a frame turned upright.
    """

    frames: int
    height: int
    width: int


class RateSampler:
    """Takes the first frame at or after every 1 / fps seconds, none of them twice.

    Args:
        fps: frames per second to take; None takes all.
        rate: frames per second that come. Times are rounded to a container's clock, hence a tolerance of a tenth of a
            frame.
    """

    def __init__(self, fps: float | None, rate: float) -> None:
        self._fps, self._tolerance, self._upcoming = fps, 0.1 / rate, 0.0

    def takes(self, time: float) -> bool:
        """Whether the frame shown at `time` (seconds, never falling) is taken."""
        if self._fps is None:
            return True
        if time + self._tolerance < self._upcoming:
            return False
        # After a gap the next multiple of 1 / fps counts, not those that passed meanwhile.
        self._upcoming = (math.floor((time + self._tolerance) * self._fps) + 1) / self._fps
        return True


def video_size(path: str | Path, *, start: float | None = None, end: float | None = None) -> VideoSize:
    """The number and size of a file's frames. Decodes one frame; all of them where nothing announces their number.

    Args:
        path: the file.
        start, end: only what is shown in this span of seconds.

    Raises:
        VideoError: as `read_video`.
    """
    path = Path(path)
    span = _span(path, start, end)
    with _explained(path):
        announced = _header(path)[0] if span == Span() else None
        with closing(_decode(path, span)) as decoder:
            _, first = next(decoder, (0.0, None))
            if first is None:
                raise _empty(path, span)
            height, width = upright(first).shape[:2]
            return VideoSize(announced or 1 + sum(1 for _ in decoder), height, width)


def video_rate(path: str | Path) -> float:
    """Frames per second of a file, as announced or guessed.

    Raises:
        VideoError: it is missing, or no video.
    """
    path = Path(path)
    with _explained(path):
        return _header(path)[1]


def read_video(
    path: str | Path,
    *,
    frames: int | None = None,
    fps: float | None = None,
    start: float | None = None,
    end: float | None = None,
    progress: Progress | None = None,
) -> Video:
    """Decode a video file, all of it or a sample. Only the frames asked for are kept in memory.

    Args:
        path: the file.
        frames: so many frames, spread evenly from the first to the last; all of them if there are fewer.
        fps: so many frames per second: the first frame at or after every 1 / fps seconds, none of them twice.
        start, end: only what is shown in this span of seconds, as if it were the whole file.
        progress: called after every decoded frame with (frames decoded, frames in the file if known).

    Returns:
        The frames with their times.

    Raises:
        VideoError: if both `frames` and `fps` are given or one is not positive; if the file is missing, is no video,
            has no video stream, has no frame that can be decoded, or was cut off; if nothing is shown in the span.

    Example:
        >>> video = read_video("holiday.mp4", frames=32)
        >>> video.frames.shape
        torch.Size([32, 720, 1280, 3])
    """
    path = Path(path)
    if frames is not None and fps is not None:
        raise VideoError(f"{path}: give frames= or fps=, not both (got frames={frames} and fps={fps})")
    if frames is not None and frames < 1:
        raise VideoError(f"{path}: frames must be at least 1, got {frames}")
    if fps is not None and not fps > 0:
        raise VideoError(f"{path}: fps must be above 0, got {fps}")
    span = _span(path, start, end)
    with _explained(path):
        announced, rate = _header(path)
        if span != Span():
            announced = None  # the file's, not the span's
        # What does not announce its length is decoded twice, once to count.
        total = sum(1 for _ in _decode(path, span)) if frames and not announced else announced
        wanted = set(np.linspace(0, total - 1, min(frames, total)).round().astype(int)) if frames and total else None
        return _collect(path, rate, announced, wanted, fps, span, progress)


def frames_of(
    path: str | Path, *, fps: float | None = None, start: float | None = None, end: float | None = None
) -> Generator[tuple[float, torch.Tensor], None, None]:
    """The frames that `read_video` would return, one after the other, so that only one is in memory.

    Args:
        path: the file.
        fps, start, end: as `read_video`.

    Yields:
        Seconds from the start of the span, and the frame, uint8 `[H, W, 3]`.

    Raises:
        VideoError: as `read_video`; that a file was cut off shows after its last frame.
    """
    path = Path(path)
    if fps is not None and not fps > 0:
        raise VideoError(f"{path}: fps must be above 0, got {fps}")
    span = _span(path, start, end)
    with _explained(path):
        announced, rate = _header(path)
        count, sampler = 0, RateSampler(fps, rate)
        with closing(_decode(path, span)) as decoder:
            for now, frame in decoder:
                count += 1
                if sampler.takes(now):
                    yield now, torch.from_numpy(upright(frame))
        if not count:
            raise _empty(path, span)
        _check_whole(path, announced if span == Span() else None, count)


def _span(path: Path, start: float | None, end: float | None) -> Span:
    span = Span(start or 0.0, math.inf if end is None else end)
    if not 0 <= span.start < span.end:
        raise VideoError(f"{path}: a span needs 0 <= start < end, got start={start} and end={end}")
    return span


@contextmanager
def _explained(path: Path) -> Generator[None, None, None]:
    """A file that is not there or cannot be decoded is a `VideoError`."""
    if not path.is_file():
        raise VideoError(f"{path}: {'this is a folder' if path.is_dir() else 'no such file'}; give a video file's path")
    try:
        yield
    except (StopIteration, RuntimeError) as error:  # a decoder that ends before its first frame
        raise VideoError(f"{path}: no frame could be decoded; the file is empty, cut off or damaged") from error
    except av.error.FFmpegError as error:
        message = f"{path}: not a video that FFmpeg can read, or one that is cut off or damaged ({error.strerror})"
        raise VideoError(message) from error


def _container(path: Path) -> InputContainer:
    # Titles and other texts may be in any encoding; they are of no interest here.
    return av.open(str(path), metadata_errors="replace")


def _header(path: Path) -> tuple[int | None, float]:
    """The number of frames a file announces, if it does, and its frames per second."""
    with _container(path) as container:
        if not container.streams.video:
            raise VideoError(f"{path}: no video stream in this file (is it sound only?)")
        stream = container.streams.video[0]
        return stream.frames or None, float(stream.average_rate or stream.guessed_rate or 1)


def _decode(path: Path, span: Span) -> Generator[tuple[float, av.VideoFrame], None, None]:
    """The frames of a span, each with its seconds from the span's start; the first may have been on screen before."""
    with _container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        clock = stream.time_base or Fraction(1, 1000)
        first = None
        if span.start > 0:
            first = next(container.decode(video=0)).time or 0.0
            for target in (first + span.start, first):  # containers without an index may land behind the target
                container.seek(int(target / clock), stream=stream, backward=True)
                landed = next(container.decode(video=0), None)
                if landed is not None and (landed.time or 0.0) <= target:
                    break
            container.seek(int(target / clock), stream=stream, backward=True)
        rate = float(stream.average_rate or stream.guessed_rate or 1)
        shown = None  # the frame on screen when the span starts
        for count, frame in enumerate(container.decode(video=0)):
            time = frame.time if frame.time is not None else count / rate
            first = time if first is None else first
            # Times are rounded to the container's clock, hence a tolerance.
            since = time - first - span.start
            if since < -1e-4:
                shown = frame
                continue
            if shown is not None and since > 1e-4:
                yield 0.0, shown
            shown = None
            if since >= span.end - span.start - 1e-4:
                return
            yield max(0.0, since), frame
        if shown is not None and span.start < (shown.time or 0.0) - (first or 0.0) + 1 / rate:
            yield 0.0, shown


def _collect(
    path: Path,
    rate: float,
    announced: int | None,
    wanted: set[int] | None,
    fps: float | None,
    span: Span,
    progress: Progress | None,
) -> Video:
    images: list[np.ndarray] = []
    times: list[float] = []
    frame, count, now = None, 0, 0.0
    sampler = RateSampler(fps, rate)
    with closing(_decode(path, span)) as decoder:
        for count, (now, frame) in enumerate(decoder, start=1):
            if sampler.takes(now) and (wanted is None or count - 1 in wanted):
                images.append(upright(frame))
                times.append(now)
            if progress:
                progress(count, announced)
    if frame is None:
        raise _empty(path, span)
    _check_whole(path, announced, count)
    if wanted and len(images) < len(wanted) and times[-1] < now:  # a little shorter than announced
        images.append(upright(frame))
        times.append(now)
    if len({image.shape for image in images}) > 1:
        raise VideoError(f"{path}: frames change their size within the file, which is not supported")
    return Video(torch.from_numpy(np.stack(images)), tuple(times), rate, now + 1 / rate, path)


def _check_whole(path: Path, announced: int | None, count: int) -> None:
    if announced and count < (1 - _TOLERATED_LOSS) * announced:
        raise VideoError(f"{path}: cut off or damaged: of {announced} frames only {count} could be decoded")


def _empty(path: Path, span: Span) -> VideoError:
    if span != Span():
        return VideoError(f"{path}: nothing is shown from {span.start} to {span.end} seconds; the file is shorter")
    return VideoError(f"{path}: no frame could be decoded; the file is empty, cut off or damaged")


def upright(frame: av.VideoFrame, size: tuple[int, int] | None = None) -> np.ndarray:
    """RGB uint8 `[H, W, 3]`, turned as the file's display matrix says (to the nearest right angle), scaled to `size`
    (height, width) if one is given."""
    turns = round(frame.rotation / 90) % 4
    scaled: dict[str, Any] = {}
    if size is not None:
        height, width = reversed(size) if turns % 2 else size
        scaled = {"height": height, "width": width, "interpolation": "AREA"}
    image = frame.to_ndarray(format="rgb24", **scaled)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
