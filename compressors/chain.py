"""Two compressors, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from compressors.base import Compression, Compressor
from compressors.budget import Budget
from compressors.build import build
from compressors.errors import BuildError
from compressors.functional.ragged import row_of_place
from compressors.merge_map import MergeMap
from compressors.registry import register
from compressors.requirements import Requirement
from compressors.tokens import VideoTokens


@register("compressor", "chain")
@dataclass(frozen=True)
class Chain(Compressor):
    """Runs a compressor, and another one on what it leaves: prune coarsely, then merge, for example.

    With a budget of K of n tokens the first keeps `round(n·(K/n)^split)` of them and the second K of those, so that at
    0.5 both shrink the video by the same factor. The second sees the video with the first one's rows at their places
    and the other places empty; merge maps multiply.

    Cost: that of both, plus one read of T counts between them, plus one of a number when both merge.

    Attributes:
        first: a method's name, `{"name": …, parts and parameters}` as in `build`, or a compressor.
        second: likewise.
        split: share of the shrinking that the first one does, on a logarithmic scale: 0 none of it, 1 all of it.

    Raises:
        BuildError: split is outside [0, 1], a compressor does not keep an exact number of tokens, or the second cannot
            take the empty places that the first leaves.
    """

    first: str | Mapping[str, Any] | Compressor = "vidcom2"
    second: str | Mapping[str, Any] | Compressor = "tome"
    split: float = 0.5
    _stages: tuple[Compressor, Compressor] = field(init=False, repr=False)

    no_allocator: ClassVar[str] = (
        'each of its two methods has parts of its own, as first={"name": "vidcom2", "allocator": "uniform"}'
    )

    def __post_init__(self) -> None:
        if not 0 <= self.split <= 1:
            raise BuildError(f"chain: split={self.split} is outside [0, 1].")
        stages = (_made(self.first), _made(self.second))
        for stage in stages:
            if not stage.exact:
                raise BuildError(f"chain: {stage.title} does not keep an exact number of tokens; use its exact preset.")
        if not stages[1].takes_gaps:
            raise BuildError(
                f"chain: {stages[1].title} takes no empty places, and the first method leaves some: use it as the "
                f"first, or wrap its selector with batched=False."
            )
        if all(stage.stateful for stage in stages):
            raise BuildError(
                f"chain: {stages[0].title} and {stages[1].title} both carry a stream's state; only one can."
            )
        fields = [need.field for need in stages[0].requirements | stages[1].requirements]
        for name in {f for f in fields if fields.count(f) > 1}:
            raise BuildError(f"chain: {stages[0].title} and {stages[1].title} need different {name}; use one of them.")
        object.__setattr__(self, "_stages", stages)

    @property
    def takes_gaps(self) -> bool:
        return self._stages[0].takes_gaps

    @property
    def merges(self) -> bool:
        return any(stage.merges for stage in self._stages)

    @property
    def requirements(self) -> frozenset[Requirement]:
        return self._stages[0].requirements | self._stages[1].requirements

    @property
    def host_reads(self) -> int:
        first, second = self._stages
        return first.host_reads + second.host_reads + 1 + (first.merges and second.merges)

    def describe(self) -> Mapping[str, str]:
        return {kind: stage.title for kind, stage in zip(("first", "second"), self._stages, strict=True)}

    def who_needs(self, need: Requirement) -> str:
        return " and ".join(stage.who_needs(need) for stage in self._stages if need in stage.requirements)

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        first, second = self._stages
        between = round(tokens.total * (total / tokens.total) ** self.split)
        left = first(tokens, Budget(tokens=min(tokens.total, max(total, between))))
        remaining = _as_video(left)
        result = second(remaining, Budget(tokens=total))
        tokens._checks.extend(remaining._checks)
        return replace(result, tokens=tokens, merge=_product(left, result), _lazy={})


def _made(spec: str | Mapping[str, Any] | Compressor) -> Compressor:
    if not isinstance(spec, Mapping):
        return build(spec)
    if "name" not in spec:
        raise BuildError(f"chain: {dict(spec)!r} needs 'name' beside the parts and parameters.")
    return build(spec["name"], **{str(key): value for key, value in spec.items() if key != "name"})


def _as_video(left: Compression) -> VideoTokens:
    """What a compression leaves, as a video: its rows at their places, every other place empty."""
    tokens = left.tokens
    if left.identity:
        return tokens.with_(history=left.history, planes={})
    features = tokens.features
    if left.merge is not None:
        features = features.flatten(0, 1).index_copy(0, left.keep, left.features).view_as(features)
    counts = tuple(left.budgets.tolist())
    return tokens.with_(features=features, valid=left.mask, counts=counts, history=left.history, planes={})


def _product(left: Compression, right: Compression) -> MergeMap | None:
    """The merge map of both: what each of the last rows is of the input."""
    if left.merge is None:
        return right.merge
    if right.merge is None:
        target = row_of_place(right.keep, right.tokens)[left.keep[left.merge.target]]
        stays = target >= 0
        return MergeMap(
            torch.where(stays, left.merge.source, right.keep[:1]),
            target.clamp_min(0),
            torch.where(stays, left.merge.weight, 0.0),
            right.kept,
        )
    # Rows of the first map stand side by side in `order`; every edge of the second one draws a whole row of it.
    alive = torch.where(left.merge.weight != 0, left.merge.target, left.kept)
    order = torch.sort(alive, stable=True).indices
    size = torch.zeros(left.kept + 1, dtype=torch.int64, device=alive.device).scatter_add_(
        0, alive, torch.ones_like(alive)
    )
    drawn = row_of_place(left.keep, left.tokens)[right.merge.source]
    count = torch.where(right.merge.weight != 0, size[drawn], 0)
    edge = torch.arange(count.shape[0], device=count.device).repeat_interleave(count, output_size=int(count.sum()))
    within = torch.arange(edge.shape[0], device=edge.device) - (count.cumsum(0) - count)[edge]
    chosen = order[(size.cumsum(0) - size)[drawn[edge]] + within]
    weight = right.merge.weight[edge] * left.merge.weight[chosen]
    return MergeMap(left.merge.source[chosen], right.merge.target[edge], weight, right.kept)
