"""Video that comes in over time: files, devices, URLs and byte streams, decoded frame by frame."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from adapters.video import VideoError, upright

_POLL = 0.1  # seconds between looks at a flag


class StalledError(VideoError):
    """Nothing came for longer than the time that was allowed."""


@dataclass(frozen=True)
class Picture:
    """A decoded frame, not yet converted: what is passed over costs no conversion.

    Attributes:
        time: seconds on the input's own clock, which may begin anywhere.
        frame: as it was decoded.
    """

    time: float
    frame: av.VideoFrame

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, upright."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if round(self.frame.rotation / 90) % 2 else (height, width)

    def image(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """RGB uint8 `[H, W, 3]`, upright, scaled to `size` (height, width) if it is given.

        Raises:
            VideoError: it cannot be converted.
        """
        try:
            return upright(self.frame, size)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"a frame could not be converted ({error})") from error


class LiveInput:
    """An open video input: anything FFmpeg opens, or an object with `read(size) -> bytes`.

    Args:
        target: a path, URL or device, or the object to read from.
        name: what messages call it.
        format: of the container or device, such as v4l2; None lets FFmpeg find out.
        options: FFmpeg's own, for the container or device.
        open_timeout, read_timeout: seconds without a byte after which it counts as stalled; None waits for ever.
            Devices and objects with `read` are not watched.
        low_delay: hand every frame on at once, instead of decoding several at a time.

    Attributes:
        rate: frames per second, as announced or guessed from the first ones.
        frames: number of frames announced; None where there is none.
        duration: seconds announced; None where there is none, as for anything without end.

    Raises:
        StalledError: it did not answer in time.
        VideoError: it cannot be opened, or has no video stream.
    """

    def __init__(
        self,
        target: Any,
        *,
        name: str,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        open_timeout: float | None = None,
        read_timeout: float | None = None,
        low_delay: bool = True,
    ) -> None:
        self.name, self._read_timeout = name, read_timeout
        try:
            self._container = av.open(
                target,
                format=format,
                options=dict(options or {}),
                timeout=(open_timeout, read_timeout),
                metadata_errors="replace",
            )
        except av.error.ExitError as error:
            raise StalledError(f"{name}: no video within {open_timeout:g} s") from error
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"{name}: cannot be opened as a video ({_reason(error)})") from error
        if not self._container.streams.video:
            self.close()
            raise VideoError(f"{name}: no video stream in it (is it sound only?)")
        self._stream = stream = self._container.streams.video[0]
        # Decoding frames in parallel holds as many of them back.
        stream.thread_type = "SLICE" if low_delay else "AUTO"
        self.rate = float(stream.average_rate or stream.guessed_rate or 25)
        self.frames: int | None = stream.frames or None
        self.duration: float | None = None
        if stream.duration and stream.time_base:
            self.duration = float(stream.duration * stream.time_base)
        elif self._container.duration:
            self.duration = self._container.duration / av.time_base

    def pictures(self) -> Iterator[Picture | None]:
        """Frames in the order of showing, until the input ends; None for every one that could not be decoded.

        Raises:
            StalledError: nothing came within `read_timeout`.
            VideoError: the input broke off.
        """
        shown: float | None = None
        for packet in self._packets():
            if packet is None:
                yield None
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                yield None
                continue
            for frame in frames:
                now = frame.time
                if now is None:
                    now = 0.0 if shown is None else shown + 1 / self.rate
                shown = now
                # What a decoder had to make up is no frame of this video.
                yield None if frame.is_corrupt else Picture(now, frame)

    def _packets(self) -> Iterator[Any]:
        """Packets; None where the input could not be read as one."""
        lost = False
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    lost = False
                    yield packet
                return
            except av.error.ExitError as error:
                raise StalledError(f"{self.name}: nothing came for {self._read_timeout:g} s") from error
            except av.error.FFmpegError as error:
                # A demuxer may find its way again behind what it cannot read; if not, it fails at once again.
                if lost or not isinstance(error, av.error.InvalidDataError):
                    raise VideoError(f"{self.name}: broke off ({_reason(error)})") from error
            lost = True
            yield None

    def close(self) -> None:
        """Let go of the file, device or connection."""
        self._container.close()


class Pipe:
    """The bytes that come through a file descriptor, for `LiveInput`; ends at its end, on `stop`, or when it stalls.

    Args:
        descriptor: to read from, such as 0 for standard input.
        timeout: seconds without a byte after which it counts as stalled; None waits for ever.
        stop: set from another thread.

    Attributes:
        stalled: whether it ended because nothing came. A flag, for PyAV prints what is raised while it reads.
        received: bytes so far.
    """

    def __init__(self, descriptor: int, timeout: float | None, stop: threading.Event) -> None:
        self._descriptor, self._timeout, self._stop = descriptor, timeout, stop
        self.stalled, self.received = False, 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        since = time.monotonic()
        while not self._stop.is_set() and not self.stalled:
            if select.select([self._descriptor], [], [], _POLL)[0]:
                data = os.read(self._descriptor, size)
                self.received += len(data)
                return data
            self.stalled = self._timeout is not None and time.monotonic() - since > self._timeout
        return b""


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
