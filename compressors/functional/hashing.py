"""Reproducible pseudo-random integers: the same on every device, and when a model encodes a video twice."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_FACTOR = 0x045D9F3B  # below 2**31, so that products of 32-bit values fit an int64
_STEP = 0x9E3779B9  # 2**32 over the golden ratio; keeps small inputs away from 0, which mixes to itself


def hash_tokens(seed: int, index: int, count: int, device: torch.device) -> Tensor:
    """A 32-bit hash of (seed, video index, token index) for `count` tokens, `int64 [count]` in 0 … 2**32 - 1."""
    key = _mix_int(_mix_int((seed + 1) & _MASK) ^ ((index * _STEP) & _MASK))
    return _mix(_mix((torch.arange(count, device=device) + _STEP) & _MASK) ^ key)


def _mix(value: Tensor) -> Tensor:
    for _ in range(2):
        value = ((value ^ (value >> 16)) * _FACTOR) & _MASK
    return value ^ (value >> 16)


def _mix_int(value: int) -> int:
    for _ in range(2):
        value = ((value ^ (value >> 16)) * _FACTOR) & _MASK
    return value ^ (value >> 16)
