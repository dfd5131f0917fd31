"""Video files to frames, with PyAV: any container FFmpeg reads, sampled while decoding."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

# A header may announce a few frames more than can be shown (edit lists, open groups of pictures); if more than this
# share is missing, the file was cut off.
_TOLERATED_LOSS = 0.05

Progress = Callable[[int, int | None], None]


class VideoError(ValueError):
    """A video file that cannot be read as asked; the message names the file and the reason."""


@dataclass(frozen=True)
class Video:
    """Frames of a video file.

    Attributes:
        frames: uint8 `[F, H, W, 3]`, RGB, turned upright.
        timestamps: seconds from the first frame of the file, one per frame.
        fps: frames per second of the file, not of the sample.
        duration: seconds of the whole file.
        path: where it came from.
    """

    frames: torch.Tensor
    timestamps: tuple[float, ...]
    fps: float
    duration: float
    path: Path


@dataclass(frozen=True)
class VideoSize:
    """What is known of a video file after its first frame.

    Attributes:
        frames: frames in the file: as announced, which may be a few more than can be shown, or else counted.
        height, width: of a frame turned upright.
    """

    frames: int
    height: int
    width: int


def video_size(path: str | Path) -> VideoSize:
    """The number and size of a file's frames. Decodes one frame; all of them where the container announces no number.

    Raises:
        VideoError: as `read_video`.
    """
    path = Path(path)
    with _explained(path):
        announced, _ = _header(path)
        with closing(_decode(path)) as decoder:
            first = next(decoder, None)
            if first is None:
                raise VideoError(f"{path}: no frame could be decoded; the file is empty, cut off or damaged")
            height, width = _upright(first).shape[:2]
            return VideoSize(announced or 1 + sum(1 for _ in decoder), height, width)


def read_video(
    path: str | Path, *, frames: int | None = None, fps: float | None = None, progress: Progress | None = None
) -> Video:
    """Decode a video file, all of it or a sample. Only the frames asked for are kept in memory.

    Args:
        path: the file.
        frames: so many frames, spread evenly from the first to the last; all of them if there are fewer.
        fps: so many frames per second: the first frame at or after every 1 / fps seconds, none of them twice.
        progress: called after every decoded frame with (frames decoded, frames in the file if known).

    Returns:
        The frames with their times.

    Raises:
        VideoError: if both `frames` and `fps` are given or one is not positive; if the file is missing, is no video,
            has no video stream, has no frame that can be decoded, or was cut off.

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
    with _explained(path):
        announced, rate = _header(path)
        # A container that does not announce its length is decoded twice, once to count.
        total = sum(1 for _ in _decode(path)) if frames and not announced else announced
        wanted = set(np.linspace(0, total - 1, min(frames, total)).round().astype(int)) if frames and total else None
        return _collect(path, rate, announced, wanted, fps, progress)


@contextmanager
def _explained(path: Path) -> Generator[None, None, None]:
    """A file that is not there or cannot be decoded is a `VideoError`."""
    if not path.is_file():
        raise VideoError(f"{path}: {'this is a folder' if path.is_dir() else 'no such file'}; give a video file's path")
    try:
        yield
    except av.error.FFmpegError as error:
        message = f"{path}: not a video that FFmpeg can read, or one that is cut off or damaged ({error.strerror})"
        raise VideoError(message) from error


def _header(path: Path) -> tuple[int | None, float]:
    """The number of frames a file announces, if it does, and its frames per second."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise VideoError(f"{path}: no video stream in this file (is it sound only?)")
        stream = container.streams.video[0]
        return stream.frames or None, float(stream.average_rate or stream.guessed_rate or 1)


def _decode(path: Path) -> Generator[av.VideoFrame, None, None]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        yield from container.decode(video=0)


def _collect(
    path: Path,
    rate: float,
    announced: int | None,
    wanted: set[int] | None,
    fps: float | None,
    progress: Progress | None,
) -> Video:
    images: list[np.ndarray] = []
    times: list[float] = []
    frame, count, start, now = None, 0, 0.0, 0.0
    with closing(_decode(path)) as decoder:
        for count, frame in enumerate(decoder, start=1):
            time = frame.time if frame.time is not None else (count - 1) / rate
            start = time if count == 1 else start
            now = time - start
            # Times are rounded to the container's clock, hence a tolerance of a tenth of a frame.
            due = now + 0.1 / rate >= len(times) / fps if fps else wanted is None or count - 1 in wanted
            if due:
                images.append(_upright(frame))
                times.append(now)
            if progress:
                progress(count, announced)
    if frame is None:
        raise VideoError(f"{path}: no frame could be decoded; the file is empty, cut off or damaged")
    if announced and count < (1 - _TOLERATED_LOSS) * announced:
        raise VideoError(f"{path}: cut off or damaged: of {announced} frames only {count} could be decoded")
    if wanted and len(images) < len(wanted) and times[-1] < now:  # a little shorter than announced
        images.append(_upright(frame))
        times.append(now)
    if len({image.shape for image in images}) > 1:
        raise VideoError(f"{path}: frames change their size within the file, which is not supported")
    return Video(torch.from_numpy(np.stack(images)), tuple(times), rate, now + 1 / rate, path)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """RGB uint8 `[H, W, 3]`, turned as the file's display matrix says (to the nearest right angle)."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
