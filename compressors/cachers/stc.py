"""STC-Cacher: most places of most frames of a stream are not encoded again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compressors.base import CacheReuser
from compressors.cachers.binding import ReuseBinding
from compressors.cachers.layers import LayerStack
from compressors.cachers.reuse import Feature, Recipe, Reuse
from compressors.cachers.schedule import Reference, Rule
from compressors.errors import BuildError
from compressors.functional.change import Similarity
from compressors.registry import register


@register("cacher", "stc")
@dataclass(frozen=True)
class STC(CacheReuser):
    """Frames between full ones compute keys, the places whose keys changed most, and take the rest from a full frame.

    Frames never attend to one another in a vision tower, so every frame is either computed in full or, in each layer:
    keys of all places; U = the `update_ratio` of places whose keys are least similar to those of the reference frame;
    queries, values, attention, output projection and MLP for U alone, attention over new keys and the reference's
    values with U's in their place; the reference's attention and MLP outputs for all other places. Source: STC,
    arXiv 2512.00891, section on the cacher, and its release (defaults: interval 2, a quarter updated).

    Cost: a full frame costs what it costs; of the others, a layer costs the key projection and `update_ratio` of the
    rest (a quarter updated: 31 % of SigLIP-so400m's operations; at interval 2 65 % of all, at interval 4 48 %). With
    `selection="shared"`, `update_ratio` of everything behind the first layer. Memory per stream: three tensors `[N, C]`
    per layer. Host reads: 0; 1 per call of the tower with `refresh_above`, `max_update_ratio` or `reference="nearest"`.

    Attributes:
        interval: every how many chunks one is computed in full; null is the first only, 1 is no reuse.
        update_ratio: share of the places of a frame that is computed anew, in [0, 1].
        similarity: how features are compared: cosine, l1, l2 (minus the distance) or dot.
        feature: what is compared: key, value or the layer's input. It is computed for all places, and then used for
            all; keys or values that are not compared come from the reference outside U.
        selection: "layer", each layer chooses its own U, or "shared", the first layer chooses for all.
        reuse: what comes from the reference outside U: the outputs of attention, of the MLP, or of both.
        reference: which frame of a full chunk is reused: the last, the first, or the nearest by input.
        chunk: frames (temporal groups) to a chunk, however they are fed; null makes every call of the tower one chunk.
        refresh_above: compute a frame in full, and start counting chunks anew, when more than this share of its places
            changed since the reference; null is never.
        max_update_ratio: let the update ratio follow the share of places that changed, between `update_ratio` and this;
            null keeps it fixed.
        alike: places count as changed where the cosine between inputs of the tower is below this.
    """

    interval: int | None = 2
    update_ratio: float = 0.25
    similarity: Similarity = "cosine"
    feature: Feature = "key"
    selection: Literal["layer", "shared"] = "layer"
    reuse: Reuse = "both"
    reference: Reference = "last"
    chunk: int | None = 1
    refresh_above: float | None = None
    max_update_ratio: float | None = None
    alike: float = 0.9

    def __post_init__(self) -> None:
        for name in ("interval", "chunk"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise BuildError(f"cacher 'stc': {name}={value!r} must be a whole number, 1 or more, or null.")
        for name in ("update_ratio", "refresh_above", "max_update_ratio"):
            value = getattr(self, name)
            if value is None and name != "update_ratio":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
                raise BuildError(f"cacher 'stc': {name}={value!r} must be a share between 0 and 1.")
        if self.max_update_ratio is not None and self.max_update_ratio < self.update_ratio:
            raise BuildError(
                f"cacher 'stc': max_update_ratio={self.max_update_ratio} is below update_ratio={self.update_ratio}, "
                f"the least that is updated."
            )
        if not -1 <= self.alike <= 1:
            raise BuildError(f"cacher 'stc': alike={self.alike!r} is a cosine, between -1 and 1.")

    @property
    def rule(self) -> Rule:
        """The parameters that say which frames are computed in full."""
        return Rule(
            self.interval,
            self.chunk,
            self.update_ratio,
            self.max_update_ratio,
            self.refresh_above,
            self.reference,
        )

    @property
    def recipe(self) -> Recipe:
        """The parameters that say how the others are computed."""
        return Recipe(self.similarity, self.feature, self.reuse, self.selection == "shared")

    @property
    def host_reads(self) -> int:
        return int(self.rule.looks)

    def bind(self, layers: LayerStack) -> ReuseBinding:
        """Attach to the layers of one vision tower."""
        return ReuseBinding(layers, self.rule, self.recipe, self.alike)
