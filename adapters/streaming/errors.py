"""What can go wrong with a stream."""

from __future__ import annotations

from compressors.errors import VidpressError


class StreamError(VidpressError, RuntimeError):
    """A session cannot take what it was given, or answer, in the state it is in; it stays usable."""


class SaveError(VidpressError, OSError):
    """A session's file is damaged, foreign or does not fit; the session is as it was."""
