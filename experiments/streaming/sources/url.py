"""A stream or file behind a URL: RTSP, HTTP and whatever else FFmpeg speaks; with reconnections."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from adapters.live_video import LiveInput, Picture, StalledError
from adapters.video import VideoError
from experiments.streaming.sources.base import Broken, Notice, Source, SourceError, Timeline

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
# A container's length may be that of its sound, which is a little longer than its pictures.
_AT_ITS_END = 0.95


@dataclass(frozen=True)
class Reconnection:
    """When to try again.

    Attributes:
        attempts: in a row without a frame, after which the source counts as lost; 0 never tries again.
        delay: seconds before the first; each further one waits twice as long.
        longest: seconds that none waits longer than.
    """

    attempts: int = 5
    delay: float = 1.0
    longest: float = 30.0

    def wait(self, attempt: int) -> float:
        """Seconds before an attempt, counted from 1."""
        return min(self.longest, self.delay * 2.0 ** min(attempt - 1, 60))


class UrlSource(Source):
    """Frames from a URL.

    What announces no length is live: it has no end, so wherever it ends or stalls it is connected again, and the times
    go on by the clock on the wall. What announces one is a file: it ends at its end, and after a reconnection the
    frames that were there before are passed over.

    Args:
        url: a name and a password in it are kept out of messages and results.
        options: FFmpeg's own, such as rtsp_transport.
        open_timeout, read_timeout: seconds without a byte.
        reconnection: when to try again.
        paced: whether what announces a length is shown at its own pace; False takes it as fast as frames are handled.
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, str],
        open_timeout: float,
        read_timeout: float,
        reconnection: Reconnection,
        paced: bool = True,
    ) -> None:
        self._url, self._options, self._reconnection = url, dict(options), reconnection
        self._timeouts: dict[str, Any] = {"open_timeout": open_timeout, "read_timeout": read_timeout}
        self.title, self.live, self._paced = without_password(url), paced, paced

    def check(self) -> None:
        """Raises SourceError: not a URL of a kind that streams."""
        scheme = urlsplit(self._url).scheme.lower()
        if scheme not in SCHEMES:
            hint = " Files: source=file source.path=…" if scheme in ("", "file") else ""
            raise SourceError(f"{self.title}: write {', '.join(SCHEMES)}://….{hint}", "missing")

    def pictures(self, stop: threading.Event, notice: Notice) -> Iterator[Picture | Broken]:
        line, shown, anchor, failed = Timeline(), None, math.inf, 0
        while not stop.is_set():
            before = shown
            try:
                with closing(LiveInput(self._url, name=self.title, options=self._options, **self._timeouts)) as video:
                    self.rate, length = video.rate, video.duration
                    # What is live comes at its own pace; holding it back would let it pile up on the way.
                    self.paced = self._paced and length is not None
                    if length is not None:
                        line = Timeline()  # it begins at its beginning again
                    elif shown is not None:
                        line.join(max(0.0, time.monotonic() - anchor - shown))
                    for picture in line.along(video, notice):
                        if isinstance(picture, Picture):
                            if length is not None and before is not None and picture.time <= before:
                                continue
                            # The frame that came soonest says when the stream's time was 0.
                            shown, failed = picture.time, 0
                            anchor = min(anchor, time.monotonic() - shown)
                        yield picture
                # Sound may be longer than the pictures: what ends twice in the same place has ended.
                if length is not None and shown is not None:
                    whole = shown + 1 / self.rate >= _AT_ITS_END * length
                    if whole or shown == before:
                        if not whole:
                            notice(f"{self.title}: ended after {shown:.2f} s of the {length:.2f} s announced")
                        return
                error = SourceError(f"{self.title}: the connection ended", "lost")
            except VideoError as cause:
                error = SourceError(str(cause), "stalled" if isinstance(cause, StalledError) else "lost")
            failed += 1
            if failed > self._reconnection.attempts:
                raise error
            pause = self._reconnection.wait(failed)
            notice(f"{error}; attempt {failed} of {self._reconnection.attempts} in {pause:g} s")
            self.reconnections += 1
            stop.wait(pause)


def without_password(url: str) -> str:
    """The URL without a user's name and password.

    Raises:
        SourceError: it is none.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SourceError(f"source.url cannot be read ({error}).", "missing") from error
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
