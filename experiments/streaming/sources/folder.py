"""A folder of frames: PNG, JPEG and other pictures that FFmpeg reads, in the order of their names."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from adapters.live_video import LiveInput, Picture
from adapters.video import VideoError
from experiments.streaming.sources.base import Broken, Notice, Source, SourceError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class FolderSource(Source):
    """Frames that lie in a folder, one file each.

    Args:
        path: the folder; subfolders and other files are left alone.
        rate: frames per second that the files stand for.
        paced: at that pace, else as fast as frames are handled.
        loop: from the first again after the last; the times go on.
    """

    def __init__(self, path: Path, *, rate: float, paced: bool, loop: bool = False) -> None:
        self._path, self.rate, self.paced, self._loop = path, rate, paced, loop
        self.title = str(path)

    def check(self) -> None:
        """Raises SourceError: no such folder, or no picture in it."""
        if not self._path.is_dir():
            what = "this is a file (source=file plays it)" if self._path.is_file() else "no such folder"
            raise SourceError(f"{self._path}: {what}; give a folder of pictures.", "missing")
        if not self._files():
            raise SourceError(f"{self._path}: no picture in this folder ({', '.join(SUFFIXES)}).", "missing")

    def pictures(self, stop: threading.Event, notice: Notice) -> Iterator[Picture | Broken]:
        files, count = self._files(), 0
        while not stop.is_set():
            for path in files:
                picture = _picture(path)
                # A file that cannot be read has its moment all the same.
                yield Broken() if picture is None else replace(picture, time=count / self.rate)
                count += 1
            if not self._loop:
                return

    def _files(self) -> list[Path]:
        found = (path for path in self._path.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Numbers in names count as numbers: frame_2 comes before frame_10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], name


def _picture(path: Path) -> Picture | None:
    try:
        with closing(LiveInput(str(path), name=str(path))) as file:
            return next(file.pictures(), None)
    except VideoError:
        return None
