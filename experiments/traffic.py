"""What a compressor costs, counted instead of timed: bytes moved by its operations, and bytes held beside its input."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FACTORIES = {
    getattr(torch.ops.aten, name)
    for name in ("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like")
}


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what operations read and write, in bytes of the tensors they are given and give (views cost nothing).

    Attributes:
        operations: operations that compute or copy.
        read: bytes read from the features, in any of their views.
        moved: bytes read and written, features, scratch and results together.
        peak: the most bytes that tensors made inside held at one time.
    """

    def __init__(self, features: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.read = self.moved = self.peak = 0
        self._features = features.untyped_storage()._cdata
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(leaf): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        known = {tensor.untyped_storage()._cdata for tensor in given.values()}
        if not func._schema.is_mutable and made and all(m.untyped_storage()._cdata in known for m in made):
            return result  # a view
        self.operations += 1
        if func.overloadpacket in _FACTORIES:
            given = {}  # they look at shapes alone
        self.read += sum(extent(t) for t in given.values() if t.untyped_storage()._cdata == self._features)
        self.moved += sum(extent(t) for t in [*given.values(), *(m for m in made if id(m) not in given)])
        for tensor in made:
            self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._held and key != self._features:
            self._held[key] = storage.nbytes()
            weakref.finalize(storage, self._held.pop, key, None)
            self.peak = max(self.peak, sum(self._held.values()))


def extent(tensor: Tensor) -> int:
    """Bytes of memory behind a tensor; what is expanded counts once."""
    values = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        values *= size if stride or not size else 1
    return values * tensor.element_size()
