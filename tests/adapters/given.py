"""Compressors that keep what a test tells them to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compressors.base import Compression, Compressor
from compressors.budget import Budget
from compressors.merge_map import MergeMap
from compressors.requirements import Requirement
from compressors.tokens import VideoTokens


class Prescribed(Compressor):
    """Base: keeps `chosen(tokens)`, whatever the budget. An empty set drops the whole video."""

    @property
    def exact(self) -> bool:
        return False

    def chosen(self, tokens: VideoTokens) -> Tensor:
        """Sorted flat indices `t·N + n`."""
        raise NotImplementedError

    def __call__(self, tokens: VideoTokens, budget: Budget | None = None) -> Compression:
        keep = self.chosen(tokens).to(tokens.device)
        return Compression(tokens, keep, torch.bincount(keep // tokens.places, minlength=tokens.frames))

    def _compress(self, tokens: VideoTokens, total: int) -> Compression:
        raise NotImplementedError("prescribed keep sets ignore the budget")


@dataclass(frozen=True, eq=False)
class Given(Prescribed):
    """Keeps `keeps[i]` of the i-th distinct video of a call, in order of appearance over the batch rows."""

    keeps: tuple[Tensor, ...]

    def chosen(self, tokens: VideoTokens) -> Tensor:
        return self.keeps[tokens.index]


@dataclass(frozen=True, eq=False)
class Chosen(Prescribed):
    """Keeps what `choose` returns for a video."""

    choose: Callable[[VideoTokens], Tensor]

    def chosen(self, tokens: VideoTokens) -> Tensor:
        return self.choose(tokens)


@dataclass(frozen=True, eq=False)
class Recorded(Compressor):
    """Another compressor, and what it made of the i-th distinct video of a call."""

    inner: Compressor
    results: dict[int, Compression] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        return self.inner.exact

    @property
    def merges(self) -> bool:
        return self.inner.merges

    @property
    def requirements(self) -> frozenset[Requirement]:
        return self.inner.requirements

    def __call__(self, tokens: VideoTokens, budget: Budget | None = None) -> Compression:
        self.results[tokens.index] = self.inner(tokens, budget)
        return self.results[tokens.index]

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        raise NotImplementedError("calls go to the other compressor")


@dataclass(frozen=True, eq=False)
class GivenMerge(Given):
    """As `Given`, and every kept row becomes a fixed random mixture of three tokens of its video."""

    @property
    def merges(self) -> bool:
        return True

    def __call__(self, tokens: VideoTokens, budget: Budget | None = None) -> Compression:
        plain = super().__call__(tokens, budget)
        rows, generator = plain.kept, torch.Generator().manual_seed(tokens.index)
        source = torch.randint(tokens.total, (3 * rows,), generator=generator)
        if tokens.valid is not None:
            source = tokens.valid.flatten().nonzero().squeeze(1)[source]
        weight = torch.rand(rows, 3, generator=generator).softmax(dim=1).flatten()
        merge = MergeMap(source, torch.arange(rows).repeat_interleave(3), weight, rows)
        return Compression(tokens, plain.keep, plain.budgets, merge=merge)


class Broken(Prescribed):
    """Fails in the middle of a call."""

    def chosen(self, tokens: VideoTokens) -> Tensor:
        raise RuntimeError("the compressor failed")
