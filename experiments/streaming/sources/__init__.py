"""Where frames come from: what `source=` chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from adapters.micro import clip_path
from compressors.errors import InputError
from experiments.streaming.settings import number, one_of, path, texts
from experiments.streaming.sources.base import Broken, Notice, Source, SourceError
from experiments.streaming.sources.camera import CameraSource
from experiments.streaming.sources.file import FileSource
from experiments.streaming.sources.folder import FolderSource
from experiments.streaming.sources.standard_input import StandardInputSource
from experiments.streaming.sources.url import Reconnection, UrlSource, without_password

PACES = ("own", "fast")

__all__ = ["Broken", "Notice", "Source", "SourceError", "source_from", "without_password"]


def source_from(cfg: DictConfig) -> Source:
    """The source that the group `source` describes, not yet opened.

    Raises:
        InputError: a setting that is missing or cannot be.
    """
    chosen: Any = cfg.source
    if chosen.name not in _MAKERS:
        raise InputError(f"source={chosen.name}: task=stream needs one of {', '.join(_MAKERS)}.")
    return _MAKERS[chosen.name](chosen)


def _paced(chosen: Any) -> bool:
    return bool(one_of("source.pace", chosen.pace, PACES) == "own")


def _loop(chosen: Any) -> bool:
    return bool(one_of("source.loop", chosen.loop, (True, False)))


def _file(chosen: Any) -> Source:
    return FileSource(path("source.path", chosen.path, "a.mp4"), paced=_paced(chosen), loop=_loop(chosen))


def _clip(chosen: Any) -> Source:
    return FileSource(clip_path(), paced=_paced(chosen), loop=_loop(chosen), title="the embedded clip")


def _folder(chosen: Any) -> Source:
    where: Path = path("source.path", chosen.path, "frames/")
    rate = number("source.rate", chosen.rate, 0.001)
    return FolderSource(where, rate=rate, paced=_paced(chosen), loop=_loop(chosen))


def _camera(chosen: Any) -> Source:
    return CameraSource(
        str(chosen.device),
        format=str(chosen.format),
        options=texts("source.options", chosen.options),
        timeout=number("source.timeout", chosen.timeout, 0.1),
    )


def _url(chosen: Any) -> Source:
    if not chosen.url:
        raise InputError("source=url needs an address: source.url=rtsp://host/path")
    return UrlSource(
        str(chosen.url),
        options=texts("source.options", chosen.options),
        open_timeout=number("source.open_timeout", chosen.open_timeout, 0.1),
        read_timeout=number("source.read_timeout", chosen.read_timeout, 0.1),
        reconnection=Reconnection(
            attempts=int(number("source.attempts", chosen.attempts, 0, whole=True)),
            delay=number("source.delay", chosen.delay, 0),
            longest=number("source.longest", chosen.longest, 0),
        ),
        paced=_paced(chosen),
    )


def _stdin(chosen: Any) -> Source:
    return StandardInputSource(
        format=None if chosen.format is None else str(chosen.format),
        timeout=number("source.timeout", chosen.timeout, 0.1),
        paced=_paced(chosen),
    )


_MAKERS: dict[str, Callable[[Any], Source]] = {
    "clip": _clip,
    "file": _file,
    "folder": _folder,
    "camera": _camera,
    "url": _url,
    "stdin": _stdin,
}
