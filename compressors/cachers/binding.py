"""`ReuseBinding`: a cacher at work in one tower, for any number of streams, batches of them and threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from compressors.base import CacheBinding, CacheState
from compressors.cachers.call import Call, Watcher
from compressors.cachers.layers import FrameGroup, LayerStack
from compressors.cachers.reuse import Recipe
from compressors.cachers.schedule import Rule
from compressors.cachers.state import ReferenceState
from compressors.errors import InputError


class _Use:
    """One thread's `using` block."""

    def __init__(self, states: Sequence[ReferenceState], frames: Sequence[int] | None) -> None:
        self.states, self.frames = states, frames
        self.call: Call | None = None

    def abandon(self) -> None:
        if self.call is not None:
            self.call.abandon()
            self.call = None


class ReuseBinding(CacheBinding):
    """Takes over the layers of a tower inside `using`; elsewhere they run as they always do.

    Attributes:
        watch: called with (layer, frames, places updated `[F, U]`, similarity `[F, N]` or None) at every selective
            computation, for pictures and tests. None by default.
    """

    def __init__(self, layers: LayerStack, rule: Rule, recipe: Recipe, alike: float) -> None:
        self._layers, self._rule, self._recipe, self._alike = layers, rule, recipe, alike
        self._local = threading.local()
        self.watch: Watcher | None = None
        layers.install(self)

    def new_state(self, *, keep: bool = True) -> ReferenceState:
        return ReferenceState(self._layers.depth, self._recipe.remembered, looks=self._rule.looks, keep=keep)

    @contextmanager
    def using(self, state: CacheState | Sequence[CacheState], frames: Sequence[int] | None = None) -> Iterator[None]:
        states: list[Any] = [state] if isinstance(state, CacheState) else list(state)
        kind = (self._layers.depth, self._recipe.remembered, self._rule.looks)
        if not states or any(not isinstance(one, ReferenceState) or one.kind != kind for one in states):
            raise InputError("using() takes states that new_state() of this binding made, one per stream.")
        with ExitStack() as stack:
            for one in states:
                if not one.lock.acquire(blocking=False):
                    raise InputError("this stream's state is in use already: one call at a time, one state per stream.")
                stack.callback(one.lock.release)
            before, use = self._use, _Use(states, frames)
            self._local.use = use
            try:
                yield
            finally:
                self._local.use = before
                use.abandon()

    def remove(self) -> None:
        self._layers.remove()

    @property
    def active(self) -> bool:
        """Whether this thread is inside `using`."""
        return self._use is not None

    def run(self, layer: int, groups: Sequence[FrameGroup]) -> list[Tensor]:
        """One layer's call, for `LayerStack`."""
        use = self._use
        assert use is not None
        if layer == 0:
            use.abandon()  # of a call before that failed
            use.call = Call(self._rule, self._recipe, self._alike, use.states, use.frames, groups, self.watch)
        call = use.call
        if call is None or call.layer != layer:
            raise InputError(f"layer {layer} of the tower was called out of turn: layers run in order, each once.")
        outputs = call.run(groups)
        if call.layer == self._layers.depth:
            call.finish()
            use.call = None
        return outputs

    @property
    def _use(self) -> _Use | None:
        return getattr(self._local, "use", None)
