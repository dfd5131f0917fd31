"""`Rotation`: keys that carry a rotary embedding, moved to other positions.

A key at position p is R(p)·k, a rotation of each pair of channels by p times the pair's frequency; rotations add up:
R(p + δ)·k = R(δ)·R(p)·k. With M-RoPE each pair turns by one of three axes, and δ has three numbers. Which pair belongs
to which axis (sections side by side, or interleaved) is the model's own business: its rotary module is asked for R(δ).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.errors import UnsupportedError

_CHANGING = ("dynamic", "longrope")  # their frequencies depend on how long the sequence is


class Rotation:
    """Moves the keys of one language model.

    Args:
        decoder: the language model.
        axes: of its positions, 1 or 3.

    Raises:
        UnsupportedError: it has no rotary module, or one whose frequencies change with the sequence.
    """

    def __init__(self, decoder: PreTrainedModel, axes: int) -> None:
        self._rotary: Any = getattr(decoder, "rotary_emb", None)
        kind = getattr(self._rotary, "rope_type", "default")
        if self._rotary is None or kind in _CHANGING:
            what = f"rotary embeddings of type {kind!r}" if self._rotary is not None else "no rotary_emb"
            raise UnsupportedError(
                f"{type(decoder).__name__} has {what}, so keys cannot be moved to other positions: use memory=full."
            )
        self.axes = axes

    def move(self, keys: Tensor, by: Sequence[int]) -> Tensor:
        """Keys `[..., n, D]` as they would be `by` positions further on; the same dtype."""
        if not any(by):
            return keys
        return self._turn(keys, torch.tensor(by, device=keys.device).unsqueeze(1)).to(keys.dtype)

    def undo(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys `[..., n, D]` at positions `[axes, n]` as they were before their embedding; float32."""
        return self._turn(keys, -positions.to(keys.device))

    def _turn(self, keys: Tensor, positions: Tensor) -> Tensor:
        ids = positions.unsqueeze(1) if self.axes == 3 else positions
        probe = torch.empty(0, dtype=torch.float32, device=keys.device)
        cosine, sine = self._rotary(probe, ids)
        scale = float(getattr(self._rotary, "attention_scaling", 1.0))
        if cosine.shape[-1] != keys.shape[-1]:
            raise UnsupportedError(
                f"rotary embeddings cover {cosine.shape[-1]} of {keys.shape[-1]} channels; moving such keys is not "
                f"supported: use memory=full."
            )
        values = keys.float()
        low, high = values.chunk(2, dim=-1)
        turned: Tensor = (values * cosine[0] + torch.cat([-high, low], dim=-1) * sine[0]) / scale
        return turned
