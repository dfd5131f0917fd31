"""The stream state of methods that compare a frame with the one before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.errors import InputError
from compressors.tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class LastFrame:
    """The last frame of a chunk, before pruning.

    Attributes:
        features: `[N, C]`, zero at empty places.
    """

    features: Tensor

    @classmethod
    def of(cls, tokens: VideoTokens) -> LastFrame:
        """The last frame of these tokens, copied, so that the chunk itself can be freed."""
        last = tokens.features[-1].clone()
        if tokens.valid is not None:
            last = torch.where(tokens.valid[-1].unsqueeze(1), last, 0.0)
        return cls(last)

    @classmethod
    def before(cls, tokens: VideoTokens) -> Tensor | None:
        """The frame before these tokens, from their history; None at the start of a stream.

        Raises:
            InputError: the history is another method's, or of another frame size.
        """
        history = tokens.history
        if history is None:
            return None
        if not isinstance(history, cls):
            raise InputError(
                f"history is a {type(history).__name__}; this method continues a {cls.__name__}, which its own "
                f"Compression.history gave. Pass None at the start of a stream."
            )
        if history.features.shape != tokens.features.shape[1:]:
            raise InputError(
                f"history holds a frame of shape {list(history.features.shape)}, but frames are "
                f"{list(tokens.features.shape[1:])} now: start a new stream with history=None."
            )
        return history.features
