"""Every error that vidpress raises on purpose; each message says what was wrong, where, and what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class VidpressError(Exception):
    """Base of all errors raised by vidpress."""


class InputError(VidpressError, ValueError):
    """A tensor handed to vidpress has the wrong shape, type or values."""


class BudgetError(VidpressError, ValueError):
    """A budget is impossible or contradictory."""


class BuildError(VidpressError, ValueError):
    """Parts or parameters do not fit together; raised when a compressor is built, never while it runs."""


class RequirementError(VidpressError, ValueError):
    """A component needs something (attention, keys, a query, a grid, a history) that was not supplied."""


class SelectionError(VidpressError, ValueError):
    """A selector returned something that is not a valid set of token indices."""


class KernelError(VidpressError, RuntimeError):
    """The fused kernels were asked for by name and cannot run."""


class UnknownNameError(VidpressError, LookupError):
    """A name that no registry knows."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        self._given = (kind, name, names)
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes, and are made again from what they were made of, not from their message."""
        return type(self), self._given
