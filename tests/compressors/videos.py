"""Small inputs for the tests, and counters of what passes between a compressor and the host."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressors import VideoTokens


def noise(frames: int, places: int, channels: int, seed: int = 0) -> Tensor:
    """Independent normal features `[T, N, C]`."""
    return torch.randn(frames, places, channels, generator=torch.Generator().manual_seed(seed))


def scene_cut(frames: int = 8, places: int = 36, channels: int = 32, cut: int = 6, seed: int = 0) -> Tensor:
    """Two scenes `[T, N, C]`, the second one short; tokens differ little within a scene."""
    random = torch.Generator().manual_seed(seed)
    scenes = torch.randn(2, 1, channels, generator=random)
    still = torch.randn(2, places, channels, generator=random)
    which = (torch.arange(frames) >= cut).long()
    return scenes[which] * 2 + still[which] * 0.5 + 0.1 * torch.randn(frames, places, channels, generator=random)


def ragged(frames: int, places: int, channels: int, counts: list[int], seed: int = 0) -> VideoTokens:
    """Noise with `counts` tokens per frame at random places; empty places hold NaN."""
    random = torch.Generator().manual_seed(seed)
    order = torch.rand(frames, places, generator=random).argsort(dim=1).argsort(dim=1)
    valid = order < torch.tensor(counts).unsqueeze(1)
    features = torch.where(valid.unsqueeze(-1), noise(frames, places, channels, seed), float("nan"))
    return VideoTokens(features, valid=valid, counts=tuple(counts))


def supplied(tokens: VideoTokens) -> VideoTokens:
    """The video with everything that any method needs."""
    frames, places, channels = tokens.features.shape
    return tokens.with_(
        query=noise(1, 3, channels, seed=1)[0].to(tokens.features.dtype),
        attention=noise(1, frames, places, seed=2)[0].softmax(1),
        keys=noise(frames, places, 4, seed=3),
        frame_features=noise(1, frames, 5, seed=4)[0],
    )


_READS = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten._unique2,
    torch.ops.aten.unique_dim,
    torch.ops.aten.unique_consecutive,
    torch.ops.aten.equal,
    torch.ops.aten.bincount,
}
_METHODS = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__}
_MADE_OF_DATA = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class HostReads:
    """Counts what would make the host wait for a GPU: reads of tensor values, operations whose output size depends on
    values, and copies from the host (tensors made of Python data, lists as indices, `.to(device)` of a CPU tensor)."""

    def __init__(self) -> None:
        self.found: list[str] = []
        found = self.found

        class Operations(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                masks = func.overloadpacket is torch.ops.aten.index and any(
                    index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
                )
                # Python data comes in here, also where a list is an index. So does the number of `x[i] = 0`, which is
                # a kernel's argument on a GPU; as a tensor, a number is seen below.
                lifted = func.overloadpacket is torch.ops.aten.lift_fresh and args[0].dim() > 0
                if func.overloadpacket in _READS or masks or lifted:
                    found.append(str(func))
                return func(*args, **(kwargs or {}))

        class Methods(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                data = args[1:2] if func is Tensor.new_tensor else args[:1]
                number = func in _MADE_OF_DATA and result.dim() == 0 and not isinstance(data[0], Tensor)
                if func in _METHODS or number or _leaves_the_host(func, args, kwargs or {}):
                    found.append(func.__name__)
                return result

        self._modes = [Operations(), Methods()]

    def __enter__(self) -> HostReads:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)

    @property
    def count(self) -> int:
        return len(self.found)


def _leaves_the_host(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether this is `.to(device)`, `.to(other)` or `.cuda()` of a tensor on the CPU, wherever it goes."""
    if func not in (Tensor.to, Tensor.cuda) or args[0].device.type != "cpu":
        return False
    targets = [*args[1:2], kwargs.get("device"), kwargs.get("other")]
    return func is Tensor.cuda or any(isinstance(target, (torch.device, str, Tensor)) for target in targets)


class OffDevice(TorchDispatchMode):
    """Lists what uses a tensor that no operation made on the features' device: one on the CPU, or one of Python data.

    On "meta" this holds for any device, and nothing computes.
    """

    def __init__(self, tokens: VideoTokens) -> None:
        super().__init__()
        self.found: list[str] = []
        self._device = tokens.device
        self._known = {id(tensor): tensor for tensor in vars(tokens).values() if isinstance(tensor, Tensor)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given, made = ([x for x in tree_leaves(tree) if isinstance(x, Tensor)] for tree in ((args, kwargs), result))
        if any(id(x) not in self._known for x in given) or any(x.device != self._device for x in [*given, *made]):
            self.found.append(str(func))
        self._known |= {id(x): x for x in made}
        return result


def on(device: str, tokens: VideoTokens) -> VideoTokens:
    """The same video on a device; on "meta" without values."""
    values = {name: value for name, value in vars(tokens).items() if isinstance(value, Tensor)}
    return tokens.with_(**{name: value.to(device) for name, value in values.items()})
