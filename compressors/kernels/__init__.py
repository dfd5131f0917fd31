"""Fused GPU kernels (Triton) for what the plain operations in `compressors.functional` do in several launches.

They are used where the features are on a GPU and Triton is installed (`pip install 'vidpress[kernels]'`; PyTorch's CUDA
builds bring it along); everywhere else, under `torch.compile`, and for shapes that they do not cover, the plain
operations run. Both give the same numbers up to rounding, equal tokens get equal scores in both, and neither reads a
value on the host. `using("plain")` turns the kernels off, `using("fused")` insists on them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from compressors.errors import KernelError

Mode = Literal["auto", "plain", "fused"]

MOST_CHANNELS = 8192  # a token's channels are held in registers
MOST_PLACES = 2048  # a frame's scores are held in registers
_OLDEST = (3, 3)  # of Triton: tuples of constants
_MODE: ContextVar[Mode] = ContextVar("kernels", default="auto")


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Choose the path within a block, in this thread.

    Args:
        mode: "auto", "plain" or "fused"; the last runs the kernels on any device (on a processor, Triton interprets
            them when TRITON_INTERPRET=1 is set before it is imported) and fails where they cannot run.
    """
    token = _MODE.set(mode)
    try:
        yield
    finally:
        _MODE.reset(token)


def fused_for(features: Tensor) -> ModuleType | None:
    """`compressors.kernels.fused` if it is to work on these features `[T, N, C]`, or None: take the plain operations.

    Raises:
        KernelError: inside `using("fused")`, with the reason why it cannot.
    """
    if torch.compiler.is_compiling():
        return None
    mode = _MODE.get()
    if mode == "plain" or (mode == "auto" and not features.is_cuda):
        return None
    reason = _why_not(features)
    if reason is not None:
        if mode == "fused":
            raise KernelError(f"the fused kernels cannot run: {reason}; use kernels.using('auto').")
        return None
    from compressors.kernels import fused

    return fused


def _why_not(features: Tensor) -> str | None:
    if not installed():
        return "Triton 3.3 or newer is not installed (pip install 'vidpress[kernels]')"
    if features.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the features are {features.dtype}, not float32, float16 or bfloat16"
    if not features.is_contiguous():
        return "the features are not contiguous"
    if features.shape[1] > MOST_PLACES or features.shape[2] > MOST_CHANNELS:
        size = f"{features.shape[1]} places of {features.shape[2]} channels"
        return f"{size} are more than {MOST_PLACES} of {MOST_CHANNELS}"
    return None


@functools.cache
def installed() -> bool:
    """Whether a Triton is there that the kernels work with; looks at its version without importing it."""
    for name in ("triton", "pytorch-triton"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        return tuple(int(part) for part in found.split("+")[0].split(".")[:2]) >= _OLDEST
    return False
