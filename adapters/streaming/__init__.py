"""Streams: frames without end, questions at any time; see `StreamSession`."""

from adapters.streaming.errors import SaveError, StreamError
from adapters.streaming.memory import Memory, build_memory, memory_names
from adapters.streaming.session import StreamSession
from adapters.streaming.status import Answer, Fed, StreamStatus

__all__ = [
    "Answer",
    "Fed",
    "Memory",
    "SaveError",
    "StreamError",
    "StreamSession",
    "StreamStatus",
    "build_memory",
    "memory_names",
]
