"""A video file, at its own pace or as fast as possible, once or over and over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from adapters.live_video import LiveInput, Picture
from adapters.video import video_size
from experiments.streaming.sources.base import Broken, Notice, Source, SourceError, Timeline

# A header may announce a few frames more than can be shown; if more than this share is missing, it was cut off.
_TOLERATED_LOSS = 0.05


class FileSource(Source):
    """Frames of a video file.

    Args:
        path: the file.
        paced: at its own pace, else as fast as frames are handled.
        loop: from the start again at the end; the times go on.
        title: null is the path.
    """

    def __init__(self, path: Path, *, paced: bool, loop: bool = False, title: str | None = None) -> None:
        self._path, self.paced, self._loop = path, paced, loop
        self.title = title or str(path)

    def check(self) -> None:
        """Raises VideoError: not there, or no frame in it can be decoded."""
        video_size(self._path)
        with closing(LiveInput(str(self._path), name=self.title)) as video:
            self.rate = video.rate

    def pictures(self, stop: threading.Event, notice: Notice) -> Iterator[Picture | Broken]:
        line = Timeline()
        while True:
            yield from self._once(line, notice)
            if not self._loop or stop.is_set():
                return
            line.join(1 / self.rate)

    def _once(self, line: Timeline, notice: Notice) -> Iterator[Picture | Broken]:
        count = good = 0
        with closing(LiveInput(str(self._path), name=str(self._path), low_delay=self.paced)) as video:
            self.rate = video.rate
            for picture in line.along(video, notice):
                count += 1
                good += isinstance(picture, Picture)
                yield picture
            announced = video.frames
        if announced and count < (1 - _TOLERATED_LOSS) * announced:
            raise SourceError(f"{self.title}: cut off: of {announced} frames only {count} came", "cut_off")
        if not good:
            raise SourceError(f"{self.title}: no frame could be decoded", "broken")
