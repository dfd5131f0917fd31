"""`Places`: touching a model instance so that every touch can be undone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from adapters.errors import UnsupportedError


class Places:
    """What was attached to a model; `remove()` leaves the model as it was found."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def remove(self) -> None:
        """Undo every attachment, in reverse order; calling it twice is harmless."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, owner: nn.Module, name: str, wrapper: Callable[..., Any]) -> None:
        """Shadow a method by an instance attribute of the same signature; one already there is put back later."""
        if not hasattr(owner, name):
            raise UnsupportedError(
                f"{type(owner).__name__} has no {name}: this version of transformers has moved an attachment point of "
                f"vidpress. Install a supported version (see pyproject.toml)."
            )
        missing = object()
        shadowed = vars(owner).get(name, missing)
        original = getattr(owner, name)

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            return wrapper(original, *args, **kwargs)

        setattr(owner, name, replacement)
        self._undo.append(lambda: delattr(owner, name) if shadowed is missing else setattr(owner, name, shadowed))

    def _hook(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        self._undo.append(handle.remove)
