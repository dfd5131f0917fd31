"""A camera: a video device that FFmpeg knows, such as Video4Linux's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from adapters.live_video import LiveInput, Picture
from experiments.streaming.sources.base import Broken, Notice, Source, SourceError, Timeline


class CameraSource(Source):
    """Frames of a camera.

    Args:
        device: its name under the format: /dev/video0 for v4l2.
        format: FFmpeg's name of the kind of device: v4l2, avfoundation, dshow.
        options: for the device, such as video_size and framerate.
        timeout: seconds without a frame after which it counts as stalled.
    """

    live = True

    def __init__(self, device: str, *, format: str, options: Mapping[str, str], timeout: float) -> None:
        self._device, self._format, self._options = device, format, dict(options)
        self.title = device
        self.watched = timeout  # FFmpeg's time-outs do not reach into devices

    def check(self) -> None:
        """Raises SourceError: no such device."""
        if self._device.startswith("/dev/") and not Path(self._device).exists():
            known = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
            raise SourceError(f"{self._device}: no such device. Cameras here: {known}.", "missing")

    def pictures(self, stop: threading.Event, notice: Notice) -> Iterator[Picture | Broken]:
        with closing(LiveInput(self._device, name=self.title, format=self._format, options=self._options)) as video:
            self.rate = video.rate
            yield from Timeline().along(video, notice)
        raise SourceError(f"{self.title}: the camera stopped sending", "lost")
