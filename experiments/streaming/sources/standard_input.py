"""Standard input: a video's bytes from another program, such as `ffmpeg … -f matroska -`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing

from adapters.live_video import LiveInput, Picture, Pipe
from adapters.video import VideoError
from experiments.streaming.sources.base import Broken, Notice, Source, SourceError, Timeline


class StandardInputSource(Source):
    """Frames of a video stream on a file descriptor.

    Args:
        format: of the container, as FFmpeg calls it; None finds out.
        timeout: seconds without a byte after which it counts as stalled.
        paced: at its own pace, else as fast as frames are handled: the program before the pipe then waits.
        descriptor: 0 is standard input.
    """

    title = "standard input"

    def __init__(self, *, format: str | None, timeout: float, paced: bool, descriptor: int = 0) -> None:
        self._format, self._timeout, self.paced, self._descriptor = format, timeout, paced, descriptor

    def check(self) -> None:
        """Raises SourceError: it is a terminal."""
        if os.isatty(self._descriptor):
            raise SourceError(
                "source=stdin reads a video from a pipe: ffmpeg -i a.mp4 -c copy -f matroska - | python run.py "
                "task=stream source=stdin",
                "missing",
            )

    def pictures(self, stop: threading.Event, notice: Notice) -> Iterator[Picture | Broken]:
        pipe = Pipe(self._descriptor, self._timeout, stop)
        try:
            with closing(LiveInput(pipe, name=self.title, format=self._format)) as video:
                self.rate = video.rate
                yield from Timeline().along(video, notice)
        except VideoError as error:
            if pipe.stalled or stop.is_set():
                pass  # what was left of the bytes need not make sense
            elif not pipe.received:
                raise SourceError(f"{self.title}: nothing came; pipe a video into it", "missing") from error
            else:
                hint = " (mp4 cannot be read from a pipe unless it is fragmented: use -f matroska or -f mpegts)"
                raise SourceError(f"{error}{hint}", "broken") from error
        if pipe.stalled:
            raise SourceError(f"{self.title}: nothing came for {self._timeout:g} s", "stalled")
