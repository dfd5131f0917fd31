"""Errors raised where vidpress meets a model."""

from __future__ import annotations

from compressors.errors import VidpressError


class UnsupportedError(VidpressError, ValueError):
    """A model, or a feature of one, that vidpress does not support; never a silent full-length run."""


class AlreadyPressed(VidpressError, RuntimeError):
    """The model is already under a press; detach that one first."""


class AlreadyBound(VidpressError, RuntimeError):
    """The vision tower has another cacher already; remove that one first."""


class LoadError(VidpressError, OSError):
    """A model, processor or optional package could not be loaded."""


__all__ = ["AlreadyBound", "AlreadyPressed", "LoadError", "UnsupportedError", "VidpressError"]
