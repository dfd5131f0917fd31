"""Operations of a tower under a cacher, counted from sizes alone: what its time is to be compared with."""

from __future__ import annotations

from dataclasses import dataclass

from compressors.cachers.schedule import Progress
from compressors.cachers.stc import STC


@dataclass(frozen=True)
class LayerSize:
    """A tower's layer.

    Attributes:
        width: C.
        mlp: entries of the MLP's matrices (2·C·I, or 3·C·I with a gate).
        seen: places that one place sees in attention; None is all of its frame. Windows are computed whole.
    """

    width: int
    mlp: int
    seen: float | None = None

    def full(self, places: int) -> float:
        """Operations (two per multiplication with addition) of a frame of so many places."""
        projections = 4 * self.width**2
        return 2 * places * (projections + self.mlp) + self._attention(places, places)

    def selective(self, cacher: STC, places: int, update: int, *, chooses: bool) -> float:
        """The same for a frame of which `update` places are computed anew; `chooses`: the layer compares features."""
        if update == places:
            return self.full(places)
        if cacher.reuse == "mlp":
            return self.full(places) - 2 * (places - update) * self.mlp
        mlp = 2 * (places if cacher.reuse == "attention" else update) * self.mlp
        if not update:
            return mlp
        compared = 1 if chooses and cacher.feature != "input" else 0
        projections = 2 * self.width**2 * (compared * places + (4 - compared) * update)
        return projections + self._attention(update, places) + mlp

    def _attention(self, queries: int, places: int) -> float:
        rows, columns = (queries, places) if self.seen is None else (places, self.seen)
        return 4 * rows * columns * self.width


def tower_operations(cacher: STC | None, layers: list[LayerSize], places: int, frames: int) -> float:
    """Operations of a stream's first frames in a tower's layers.

    What depends on the frames themselves is left out: no refresh on change, and the least update ratio.

    Args:
        cacher: None is the tower as it is.
        layers: one entry per layer.
        places: N of a frame.
        frames: how many.
    """
    if cacher is None:
        return frames * sum(size.full(places) for size in layers)
    fates, _, _ = cacher.rule.plan(Progress(), 0, frames, places)
    total = 0.0
    for fate in fates:
        for number, size in enumerate(layers):
            chooses = cacher.selection == "layer" or number == 0
            total += size.selective(cacher, places, fate.update, chooses=chooses)
    return total
