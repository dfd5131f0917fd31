"""The two ways of computing a layer: in full, and from a reference frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.cachers.layers import LayerParts
from compressors.functional.change import Similarity, least_similar, place_similarity, row_norms

Reuse = Literal["both", "attention", "mlp"]
Feature = Literal["key", "value", "input"]
References = Mapping[str, Tensor]  # "key", "value", "input", "norm", "residual": what is remembered of frames


@dataclass(frozen=True)
class Recipe:
    """What is compared and what is reused: see `STC` for the parameters' meaning."""

    similarity: Similarity = "cosine"
    feature: Feature = "key"
    reuse: Reuse = "both"
    shared: bool = False

    @property
    def remembered(self) -> tuple[str, ...]:
        """Names of the tensors to remember of a reference frame."""
        mixed = ("key", "value") if self.reuse != "mlp" else ()
        norm = ("norm",) if self.similarity == "cosine" else ()
        return tuple(dict.fromkeys((*mixed, self.feature, *norm, "residual")))

    def full(self, parts: LayerParts, hidden: Tensor, *, remember: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """A layer as it is: its output `[F, N, C]`, and what to remember of every frame."""
        query, key, value = parts.qkv(parts.norm1(hidden))
        attention = parts.output(parts.attend(query, key, value, None))
        between = hidden + attention
        mlp = parts.mlp(parts.norm2(between))
        if not remember:
            return between + mlp, {}
        # One tensor does for both residuals: places that reuse them add both.
        residual = attention + mlp if self.reuse == "both" else attention if self.reuse == "attention" else mlp
        made = {"key": key, "value": value, "input": hidden, "residual": residual}
        if self.similarity == "cosine":
            made["norm"] = row_norms(made[self.feature])
        return between + mlp, {name: made[name] for name in self.remembered}

    def selective(
        self, parts: LayerParts, hidden: Tensor, reference: References, update: int, places: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """A layer that computes `update` places of every frame and takes the others from a reference.

        What is computed for all places in order to compare them (keys, as released) is used for all; keys and values
        that are not come from the reference.

        Args:
            parts: the layer.
            hidden: `[F, N, C]`.
            reference: `[F, N, …]` of each frame, or `[1, N, …]` for all.
            update: U, at least 1 and below N.
            places: `[F, U]` to update, where an earlier layer chose them.

        Returns:
            `[F, N, C]`, the places updated `[F, U]`, their similarity `[F, N]` if it was computed here.
        """
        if self.reuse == "mlp":
            return self._mlp_only(parts, hidden, reference, update, places)
        fresh: dict[str, Tensor] = {}
        similarity = None
        if places is None:
            normed = parts.norm1(hidden)
            if self.feature == "input":
                compared = hidden
            else:
                compared = fresh[self.feature] = (parts.key if self.feature == "key" else parts.value)(normed)
            similarity = place_similarity(compared, reference[self.feature], self.similarity, reference.get("norm"))
            places = least_similar(similarity, update)
            rows = Rows(places, hidden.shape[1])
            updated = rows.take(normed)
        else:
            rows = Rows(places, hidden.shape[1])
            updated = parts.norm1(rows.take(hidden))
        key = fresh["key"] if "key" in fresh else rows.put(reference["key"], parts.key(updated))
        value = fresh["value"] if "value" in fresh else rows.put(reference["value"], parts.value(updated))
        attention = parts.output(parts.attend(parts.query(updated), key, value, places))
        between = rows.take(hidden) + attention
        out = (hidden + reference["residual"]).contiguous()
        if self.reuse == "attention":
            out = rows.fill(out, between)
            return out + parts.mlp(parts.norm2(out)), places, similarity
        return rows.fill(out, between + parts.mlp(parts.norm2(between))), places, similarity

    def _mlp_only(
        self, parts: LayerParts, hidden: Tensor, reference: References, update: int, places: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        query, key, value = parts.qkv(parts.norm1(hidden))
        between = hidden + parts.output(parts.attend(query, key, value, None))
        similarity = None
        if places is None:
            compared = {"key": key, "value": value, "input": hidden}[self.feature]
            similarity = place_similarity(compared, reference[self.feature], self.similarity, reference.get("norm"))
            places = least_similar(similarity, update)
        rows = Rows(places, hidden.shape[1])
        updated = rows.take(between)
        out = (between + reference["residual"]).contiguous()
        return rows.fill(out, updated + parts.mlp(parts.norm2(updated))), places, similarity

    def untouched(self, parts: LayerParts, hidden: Tensor, reference: References) -> Tensor:
        """A layer that computes no place anew: U = 0."""
        if self.reuse == "mlp":
            query, key, value = parts.qkv(parts.norm1(hidden))
            hidden = hidden + parts.output(parts.attend(query, key, value, None))
        out = hidden + reference["residual"]
        return out + parts.mlp(parts.norm2(out)) if self.reuse == "attention" else out


class Rows:
    """The same number of places in each of several frames, as rows of all frames' places: real gathers, whole rows."""

    def __init__(self, places: Tensor, per_frame: int) -> None:
        frames, self.count = places.shape
        offset = torch.arange(frames, device=places.device).unsqueeze(1) * per_frame
        self.index = (places + offset).flatten()

    def take(self, features: Tensor) -> Tensor:
        """`[F, N, C]` -> `[F, U, C]`."""
        return features.flatten(0, 1).index_select(0, self.index).view(-1, self.count, features.shape[2])

    def fill(self, features: Tensor, values: Tensor) -> Tensor:
        """Write `[F, U, C]` into contiguous `[F, N, C]`, in place."""
        # References may be of another dtype than what autocast makes of this call.
        features.view(-1, features.shape[2]).index_copy_(0, self.index, values.flatten(0, 1).to(features.dtype))
        return features

    def put(self, reference: Tensor, values: Tensor) -> Tensor:
        """A copy of the reference, `[F, N, C]` or `[1, N, C]`, with `[F, U, C]` written into it."""
        mixed = reference.expand(values.shape[0], -1, -1).clone(memory_format=torch.contiguous_format)
        return self.fill(mixed, values)
