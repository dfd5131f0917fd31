"""What the host knows, as tensors made on the device.

`torch.tensor(list, device=…)` on a GPU copies from pageable memory: the host waits for everything that was launched
before, and a CUDA graph cannot capture it. Nothing here copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def integers(values: Sequence[int], device: torch.device) -> Tensor:
    """`int64 [len(values)]` of small integers, 0 or more, cut from a count up to the greatest."""
    if not values:
        return torch.zeros(0, dtype=torch.int64, device=device)
    count = torch.arange(max(values) + 1, device=device)
    return torch.cat([count[value : value + 1] for value in values])


def at_frames(values: Tensor, frames: Sequence[int]) -> Tensor:
    """`values[frames]` along the first dimension, for at least one frame."""
    return torch.stack([values[frame] for frame in frames])
