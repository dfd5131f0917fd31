"""`Taps`: reading one layer of a vision tower while it runs, without changing what it computes.

*Attention* is read inside the attention function, where queries and keys have got their rotary embedding. The one
attention module that is tapped gets a configuration of its own (a shallow copy, as an instance attribute), which names
an attention function of our own; that one notes the row wanted and hands the same arguments on to the function in use
before. So every backend stays as it was, in this layer and elsewhere, and outputs are the same bit by bit.

*Keys* are read from the key projection, before rotary embedding: similar keys mean similar content, not nearby places.

What is noted belongs to the thread and the `recording()` it happened in; without one, taps are inert.
"""

from __future__ import annotations

import copy
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import modeling_utils

from adapters.attention_rows import attention_received, pooling_row
from adapters.errors import UnsupportedError
from adapters.recording import Recording
from adapters.tower import Tower, key_projection, mean_key
from compressors.requirements import Attention, FrameFeatures, Keys, Requirement

_numbers = itertools.count(1)


class Taps:
    """Taps on a vision tower for whatever of attention, keys and frame features is needed; nothing else is touched.

    Memory during a call: see `attention_received`. Between the call and the decoder's entry: `[P]` and `[P, d]`
    float32, and, for the frame features of a tower that pools nothing, a reference to its output.

    Args:
        tower: None if nothing is needed from it.
        needs: requirements; those that are not about the tower are ignored.

    Raises:
        UnsupportedError: the tower cannot give what is needed.
    """

    def __init__(self, tower: Tower | None, needs: Iterable[Requirement]) -> None:
        self._current = threading.local()
        self._undo: list[Callable[[], None]] = []
        wanted = [need for need in needs if isinstance(need, (Attention, Keys, FrameFeatures))]
        if not wanted:
            return
        if tower is None:
            raise UnsupportedError(f"{wanted[0]} is needed, but this family says nothing about its vision tower.")
        self._tower = tower
        try:
            for need in wanted:
                self._attach(tower, need)
        except BaseException:
            self.remove()
            raise

    def _attach(self, tower: Tower, need: Requirement) -> None:
        reason = tower.lacks(need)
        if reason is not None:
            raise UnsupportedError(f"{need} cannot be read: {reason}.")
        if isinstance(need, FrameFeatures):
            self._hook(tower.module.register_forward_hook(self._note_output))
        elif isinstance(need, Keys):
            attention = tower.attention(need.layer)

            def note_keys(module: nn.Module, args: Any, output: Tensor) -> None:
                if (recording := self._recording) is not None:
                    recording.keys.append(self._patches(mean_key(attention, output)))

            self._hook(key_projection(attention).register_forward_hook(note_keys))
        elif isinstance(need, Attention) and need.row == "pool_head":
            assert tower.head is not None
            self._hook(tower.head.register_forward_pre_hook(self._note_pooling))
        elif isinstance(need, Attention):
            self._tap(tower.attention(need.layer), class_row=need.row == "cls")

    def remove(self) -> None:
        """Take the taps out; the tower is as it was found. Calling it twice is harmless."""
        while self._undo:
            self._undo.pop()()

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Note what this thread's calls of the tower compute until the block ends."""
        before, self._current.recording = self._recording, Recording()
        try:
            yield self._current.recording
        finally:
            self._current.recording = before

    @property
    def _recording(self) -> Recording | None:
        return getattr(self._current, "recording", None)

    def _hook(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        self._undo.append(handle.remove)

    def _patches(self, values: Tensor) -> Tensor:
        """`[F, n, ...]` without the class token."""
        return values[:, 1:] if self._tower.class_token else values

    def _note_output(self, module: nn.Module, args: Any, output: Any) -> None:
        if (recording := self._recording) is None:
            return
        if self._tower.pooled:
            recording.frames.append(output.pooler_output.detach())
        else:
            recording.hidden.append(self._patches(output.last_hidden_state.detach()))

    def _note_pooling(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if (recording := self._recording) is not None:
            recording.attention.append(pooling_row(module, args[0].detach()))
            recording.queries = 1

    def _tap(self, module: nn.Module, class_row: bool) -> None:
        """Give one attention module an attention function that listens."""
        config: Any = module.config
        library = vars(sys.modules[type(module).__module__])
        functions = library.get("ALL_ATTENTION_FUNCTIONS", modeling_utils.ALL_ATTENTION_FUNCTIONS)
        implementation: str | None = config._attn_implementation
        # Attention functions read their module's configuration again: let them see the real one.
        twin = copy.copy(module)
        vars(twin)["config"] = config

        def listen(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
        ) -> Any:
            if (recording := self._recording) is not None:
                self._note_attention(recording, class_row, query, key, attention_mask, kwargs)
            twin.training = module.training
            function = functions.get_interface(implementation, library.get("eager_attention_forward"))
            return function(twin, query, key, value, attention_mask, **kwargs)

        # Towers look for "flash" in the name to decide whether frames are packed: keep the name in it.
        name = f"vidpress_tap_{next(_numbers)}_{implementation}"
        functions[name] = listen
        self._undo.append(lambda: functions.__delitem__(name))
        own = copy.copy(config)
        vars(own)["_attn_implementation_internal"] = (
            name  # the property would write through to shared sub-configurations
        )
        if own._attn_implementation != name or config._attn_implementation != implementation:
            raise UnsupportedError(
                "this version of transformers keeps the attention implementation elsewhere, so layers cannot be "
                "tapped: install a supported version (see pyproject.toml)."
            )
        module.config = own
        self._undo.append(lambda: setattr(module, "config", config))

    def _note_attention(
        self,
        recording: Recording,
        class_row: bool,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
    ) -> None:
        if mask is not None:
            raise UnsupportedError(f"{self._tower.kind} masks places in its attention; taps do not support that yet.")
        scaling = kwargs.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        query, key = query.detach(), key.detach()
        if not self._tower.packed:
            query = query[:, :, :1] if class_row else query
            recording.attention.append(self._patches(attention_received(query, key, scaling)))
            recording.queries = query.shape[2]
            return
        lengths = kwargs.get("cu_seq_lens_q")
        if lengths is None:
            recording.attention.append(attention_received(query, key, scaling)[0])
            return
        # Flash backends get all sequences in one call: their lengths are read on the host, once per call of the tower.
        sizes = lengths.diff().tolist()
        for rows, columns in zip(torch.split(query, sizes, dim=2), torch.split(key, sizes, dim=2), strict=True):
            recording.attention.append(attention_received(rows, columns, scaling)[0])
