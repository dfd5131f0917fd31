"""What parts share that compare tokens either by their features or by a vision tower's keys."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compressors.base import Part
from compressors.requirements import Keys, Requirement
from compressors.tokens import VideoTokens


class ByMetric(Part):
    """Attributes of its subclasses, which are dataclasses.

    Attributes:
        metric: what is compared: token "features", or the vision tower's "keys".
        layer: of the keys.
    """

    metric: Literal["features", "keys"]
    layer: int

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Keys(self.layer)}) if self.metric == "keys" else frozenset()

    def compared(self, tokens: VideoTokens) -> Tensor:
        """`[T, N, D]` of any float dtype."""
        values = tokens.features if self.metric == "features" else tokens.keys
        assert values is not None
        return values
