"""Memories: how much of a stream's keys and values stays, where, and what a question sees of it. One per file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from adapters.streaming.memory.base import Memory, Store
from adapters.streaming.memory.full import FullMemory
from adapters.streaming.memory.retrieval import RetrievalMemory
from adapters.streaming.memory.window import WindowMemory
from compressors.errors import BuildError, UnknownNameError

_MEMORIES: dict[str, type[Memory]] = {cls.name: cls for cls in (FullMemory, WindowMemory, RetrievalMemory)}


def memory_names() -> list[str]:
    """Names for `build_memory`."""
    return sorted(_MEMORIES)


def build_memory(memory: str | Mapping[str, Any] | Memory, **params: Any) -> Memory:
    """A memory from its name and parameters.

    Args:
        memory: a name, a mapping with `name` and parameters, or a memory, which is returned as it is.
        **params: its parameters.

    Raises:
        UnknownNameError: no such memory.
        BuildError: a parameter it does not have, or one out of range.

    Example:
        >>> build_memory("window", recent=2048)
    """
    if isinstance(memory, Memory):
        if params:
            raise BuildError(f"a finished memory takes no {', '.join(params)}; set them when building it.")
        return memory
    if isinstance(memory, Mapping):
        given: dict[str, Any] = {str(key): value for key, value in memory.items()} | params
        if "name" not in given:
            raise BuildError(f"memory={dict(memory)!r}: a mapping needs 'name' beside the parameters.")
        return build_memory(given.pop("name"), **given)
    if memory not in _MEMORIES:
        raise UnknownNameError("memory", memory, _MEMORIES)
    cls: Any = _MEMORIES[memory]
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise BuildError(f"memory {memory} has no {', '.join(unknown)}. Its parameters: {', '.join(known)}.")
    made: Memory = cls(**params)
    return made


__all__ = ["FullMemory", "Memory", "RetrievalMemory", "Store", "WindowMemory", "build_memory", "memory_names"]
