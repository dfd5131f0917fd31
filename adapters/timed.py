"""`timed`: the stage timers of a press on a model that is not pressed, to compare with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

from adapters.clock import WHOLE, Clock
from adapters.errors import AlreadyPressed
from adapters.family import family_of
from adapters.places import Places


class _Call(threading.local):
    """One thread's `generate` in progress: when its prompt's forward began, and when it was through."""

    generating: bool = False
    started: Any = None
    prefilled: Any = None


class Stopwatch(Places):
    """Timers in a plain model, at the places where a press has its own; nothing else is touched."""

    def __init__(self, model: PreTrainedModel, clock: Clock) -> None:
        super().__init__()
        self._clock, self._call = clock, _Call()
        self._family = family_of(model)
        base = self._family.base(model)
        self._device = base.device
        self._replace(base, self._family.encoder, self._get_video_features)
        self._hook(base.register_forward_pre_hook(self._begin))
        self._hook(base.register_forward_hook(self._end))
        self._replace(model, "generate", self._generate)

    def _get_video_features(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = self._clock.start("encode", self._device)
        output = original(*args, **kwargs)
        end = self._clock.stop("encode", start, self._device)
        if self._call.started is not None:
            self._clock.subtract("prefill", start, end)
        return output

    def _begin(self, module: Any, args: Any) -> None:
        if self._call.generating and self._call.prefilled is None:
            self._call.started = self._clock.start("prefill", self._device)

    def _end(self, module: Any, args: Any, output: Any) -> None:
        call = self._call
        if call.started is not None:
            self._clock.stop("prefill", call.started, self._device)
            call.started, call.prefilled = None, self._clock.start("decode", self._device)

    def _generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call, clock = self._call, self._clock
        call.generating, call.started, call.prefilled = True, None, None
        start = clock.start(WHOLE, self._device)
        kwargs = {name: value for name, value in kwargs.items() if name not in self._family.told}
        try:
            return original(*args, **kwargs)
        finally:
            if call.prefilled is not None:
                clock.stop("decode", call.prefilled, self._device)
            clock.stop(WHOLE, start, self._device)
            call.generating, call.started, call.prefilled = False, None, None


@contextmanager
def timed(model: PreTrainedModel) -> Iterator[Clock]:
    """Time the stages of a plain model inside the `with` block: of what runs through `generate`.

    Raises:
        AlreadyPressed: the model is under a press, whose report has the times.
        UnsupportedError: the model is of no known family.
    """
    if "_vidpress" in vars(model):
        raise AlreadyPressed(f"this {type(model).__name__} is pressed: its report has the times.")
    clock = Clock()
    stopwatch = Stopwatch(model, clock)
    try:
        yield clock
    finally:
        stopwatch.remove()
