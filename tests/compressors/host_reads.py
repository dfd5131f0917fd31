"""Counting how often a computation waits for a tensor's value on the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten._unique", "aten.unique")


class _Counter(TorchDispatchMode):
    """Counts operators that read values, and boolean indexing, which does so inside."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        indexed = name.startswith("aten.index.") or name.startswith("aten.index_put")
        masks = indexed and any(part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1])
        repeats = name.startswith("aten.repeat_interleave") and not (kwargs or {}).get("output_size")
        if name.startswith(_READS) or masks or repeats:
            self.reads.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[list[str]]:
    """The names of all reads on the host inside the block."""
    counter = _Counter()
    plain = torch.Tensor.tolist

    def tolist(tensor: torch.Tensor) -> Any:
        counter.reads.append("tolist")
        return plain(tensor)

    with mock.patch.object(torch.Tensor, "tolist", tolist), counter:
        yield counter.reads
