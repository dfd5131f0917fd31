"""The contracts: parts that score, allocate, select and merge tokens, and the compressors made of them.

Shapes throughout: T frames (temporal groups) of one video, N token places per frame, C channels, K kept tokens.
Components are frozen dataclasses; their fields are their whole configuration, in plain Python values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.budget import Budget, FrameBudgets
from compressors.errors import RequirementError
from compressors.fates import Fates, fates_of
from compressors.merge_map import MergeMap
from compressors.requirements import History, Requirement
from compressors.tokens import VideoTokens


class Part(ABC):  # noqa: B024 (each kind of part has its own call)
    """What every exchangeable component states about itself.

    Attributes:
        name: the registered name, set by `register`.
        requirements: what must be on the `VideoTokens` beside features.
        host_reads: how many values-on-the-host reads one call needs (0 wherever the algorithm allows).
        takes_gaps: whether it takes videos with empty places (`VideoTokens.valid`).
    """

    name: ClassVar[str] = ""

    @property
    def host_reads(self) -> int:
        return 0

    @property
    def takes_gaps(self) -> bool:
        return True

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset()

    @property
    def stateful(self) -> bool:
        """Whether it carries something from chunk to chunk of a stream."""
        return any(isinstance(need, History) for need in self.requirements)

    def next_history(self, tokens: VideoTokens) -> Any:
        """The stream state after this chunk, even if all of it is kept; stateless parts pass on what came."""
        return tokens.history


class TokenScorer(Part):
    """VideoTokens -> `[T, N]` float32; higher = keep."""

    @abstractmethod
    def __call__(self, tokens: VideoTokens) -> Tensor: ...


class FrameScorer(Part):
    """VideoTokens -> `[T]` float32; higher = this frame deserves more tokens."""

    @abstractmethod
    def __call__(self, tokens: VideoTokens) -> Tensor: ...


class Allocator(Part):
    """(VideoTokens, token scores or None, total) -> budgets `int64 [T]`.

    Budgets sum to exactly `total` and never exceed a frame's capacity, unless `exact` is False: then they are what a
    release computes, their sum is data-dependent, and the composition reads it once.
    An allocator owns its frame scorer, so that its budgets are the same under every selector.

    Attributes:
        known_beforehand: its budgets depend on T, N and the total alone, so an engine can size its placeholders first.
    """

    known_beforehand: ClassVar[bool] = False

    @property
    def needs_scores(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        return True

    @abstractmethod
    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor: ...

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets from the retention as stated: called instead of `__call__` where `exact` is False."""
        raise NotImplementedError(f"{type(self).__name__} says exact = False but does not implement at_retention")

    def max_per_frame(self, frames: int, places: int, total: int) -> int:
        """A host-side upper bound on any frame's budget, in a video without empty places."""
        return min(places, total)

    def spend(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> FrameBudgets:
        """Budgets with sum `total`, and the best bound that the host knows of them."""
        bound = min(max(tokens.counts or (tokens.places,)), total)
        if tokens.counts is None:
            bound = min(bound, self.max_per_frame(tokens.frames, tokens.places, total))
        return FrameBudgets(total, self(tokens, scores, total), bound)


@dataclass(frozen=True, eq=False)
class Selection:
    """What a selector has to say beside which tokens stay.

    Attributes:
        keep: kept flat indices `t·N + n`, sorted, `int64 [K]`.
        targets: which kept tokens a merger may merge others into, bool `[K]`; None means all of them.
        merge: the merge map, where choosing and merging are one step (`Selector.merges`).
    """

    keep: Tensor
    targets: Tensor | None = None
    merge: MergeMap | None = None


class Selector(Part):
    """(VideoTokens, token scores or None, budgets) -> kept flat indices `t·N + n`, sorted, unique, `int64 [K]`.

    It never sees the retention ratio. With `budgets.per_frame` None (no allocator) it spends the total over the whole
    video; a selector that cannot says `needs_allocator = True`, one that can do nothing else `takes_allocator = False`.
    A selector that merges while it chooses says `merges = True` and implements `select` too.
    """

    needs_allocator: ClassVar[bool] = False
    takes_allocator: ClassVar[bool] = True
    merges: ClassVar[bool] = False

    @property
    def needs_scores(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor: ...

    def select(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Selection:
        """The same choice, with what a merger should know about it."""
        return Selection(self(tokens, scores, budgets))


class Merger(Part):
    """(VideoTokens, keep `[K]`, token scores or None, targets) -> MergeMap: what each kept row is a weighted sum of.

    `targets` is `Selection.targets`. `selectors` names the selectors whose keep sets it understands; None means any.
    """

    selectors: ClassVar[frozenset[str] | None] = None

    @abstractmethod
    def __call__(
        self, tokens: VideoTokens, keep: Tensor, scores: Tensor | None, targets: Tensor | None = None
    ) -> MergeMap: ...


class CacheReuser(Part):
    """Reuse of a vision tower's work between the frames of a stream.

    An adapter hands over the tower's layers (`compressors.cachers.layers.LayerStack`). What is remembered of a stream
    is a `CacheState` that the caller owns; the component and its binding remember nothing.
    """

    @abstractmethod
    def bind(self, layers: Any) -> CacheBinding:
        """Attach to the layers of one vision tower."""


class CacheBinding(ABC):
    """A `CacheReuser` attached to the layers of one vision tower, for any number of streams and threads."""

    @abstractmethod
    def new_state(self, *, keep: bool = True) -> CacheState:
        """The empty state of a new stream.

        Args:
            keep: False for a clip that is encoded in one call of the tower: nothing has to outlast it.
        """

    @abstractmethod
    def using(
        self, state: CacheState | Sequence[CacheState], frames: Sequence[int] | None = None
    ) -> AbstractContextManager[None]:
        """Inside, calls of the tower by this thread reuse from, and write to, the state; elsewhere nothing changes.

        Args:
            state: of the stream whose frames the calls hold, or one per stream for calls that hold several.
            frames: of each stream in a call, in the order of the call; None is an equal share each, in a packed tower
                a grid row each.
        """

    @abstractmethod
    def remove(self) -> None:
        """Leave the layers as they were found. Calling it twice is harmless."""


class CacheState(ABC):
    """What a cacher remembers of one stream.

    Attributes:
        reused: tokens so far that were served from a reference, in frames and their patches.
        total: all tokens so far.
    """

    reused: int = 0
    total: int = 0

    @property
    def reuse(self) -> float | None:
        """Share of the tokens so far that was served from a reference; None before the first frame."""
        return self.reused / self.total if self.total else None

    @abstractmethod
    def reset(self) -> None:
        """Forget everything: a new stream starts."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything remembered, for saving; `load` of it continues the stream as if nothing had happened."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave.

        Raises:
            InputError: it is not of a state of this cacher on this tower; the state is left as it was.
        """


@dataclass(frozen=True, eq=False)
class Compression:
    """The result for one video. Everything else (positions, newlines, pictures) follows from it.

    Attributes:
        tokens: what was compressed.
        keep: kept flat indices `t·N + n`, sorted, `int64 [K]`.
        budgets: tokens kept per frame, `int64 [T]`.
        scores: token scores `[T, N]` float32, or None where the method has none.
        merge: how kept rows are mixed from the input, or None for pure pruning.
        history: the stream state after this chunk.
    """

    tokens: VideoTokens
    keep: Tensor
    budgets: Tensor
    scores: Tensor | None = None
    merge: MergeMap | None = None
    history: Any = None
    _lazy: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def kept(self) -> int:
        """K."""
        return self.keep.shape[0]

    @property
    def retention(self) -> float:
        """Share of the video's tokens that was kept."""
        return self.kept / max(1, self.tokens.total)

    @property
    def identity(self) -> bool:
        """Every token was kept as it was."""
        return self.merge is None and self.kept == self.tokens.total

    @property
    def mask(self) -> Tensor:
        """`[T, N]` bool, True where a token is kept."""
        if "mask" not in self._lazy:
            flat = torch.zeros(self.tokens.frames * self.tokens.places, dtype=torch.bool, device=self.keep.device)
            self._lazy["mask"] = flat.scatter(0, self.keep, True).view(self.tokens.frames, self.tokens.places)
        mask: Tensor = self._lazy["mask"]
        return mask

    @property
    def features(self) -> Tensor:
        """`[K, C]` in the input's dtype: gathered (pruning) or mixed (merging) once, by whoever asks first."""
        if "features" not in self._lazy:
            self._lazy["features"] = self.follow(self.tokens.features)
        features: Tensor = self._lazy["features"]
        return features

    @property
    def planes(self) -> Mapping[str, Tensor]:
        """`[K, ...]` for each further plane, by the same map as the features."""
        return {name: self.follow(plane) for name, plane in self.tokens.planes.items()}

    def fates(self) -> Fates:
        """What became of every token: kept, merged into which row with what weight, or dropped."""
        return fates_of(self)

    def follow(self, plane: Tensor) -> Tensor:
        """Any per-token tensor `[T, N, ...]` -> its kept or merged rows `[K, ...]`."""
        flat = plane.flatten(0, 1)
        if self.merge is not None:
            return self.merge.apply(flat)
        return flat if self.kept == flat.shape[0] else flat.index_select(0, self.keep)


class Compressor(Part):
    """VideoTokens and a budget -> Compression. Call it; subclasses implement `_compress`.

    Attributes:
        stage: where it acts; "entry" is before the language model ("layer:<n>" is reserved).
        merges: whether kept rows are mixtures (then `Compression.merge` is set).
        exact: whether it keeps exactly `Budget.resolve(...)` tokens.
        no_allocator: why one that has no field `allocator` can take none, for the error.
    """

    stage: ClassVar[str] = "entry"
    no_allocator: ClassVar[str] = "it does not split into parts"

    @property
    def exact(self) -> bool:
        return True

    @property
    def merges(self) -> bool:
        return False

    @property
    def cacher(self) -> CacheReuser | None:
        """What reuses the vision tower's work before this compressor acts, as `build(cacher=)` set it."""
        return self.__dict__.get("_cacher")

    @property
    def title(self) -> str:
        """The name to show in reports: the preset's it was built from, else its own."""
        return self.__dict__.get("_preset") or self.name or type(self).__name__

    def __call__(self, tokens: VideoTokens, budget: Budget | None = None) -> Compression:
        """Compress one video.

        Raises:
            RequirementError: a component needs something `tokens` does not carry.
        """
        self.check_requirements(tokens)
        tokens.forget_checks()
        budget = budget or Budget()
        total = budget.resolve(tokens.frames, tokens.places, tokens.total)
        if total == tokens.total and self.exact:
            return replace(identity(tokens), history=self.next_history(tokens))
        share = budget.share(tokens.frames, tokens.places, tokens.total)
        # Scores are float32 whatever the caller's autocast says, and choosing tokens is not differentiable.
        with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
            return self._compress(tokens, total, share)

    @abstractmethod
    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        """Keep `total` tokens; `retention` is the share as stated, for methods whose `exact` is False."""

    def describe(self) -> Mapping[str, str]:
        """Component name -> repr, for reports and errors."""
        return {"compressor": repr(self)}

    def check_requirements(self, tokens: VideoTokens) -> None:
        missing = [n for n in self.requirements if n.field != "history" and getattr(tokens, n.field) is None]
        if missing:
            need = min(missing, key=repr)
            raise RequirementError(
                f"{self.who_needs(need)} needs {need}, which was not supplied: pass {need.field}=… to compress(), "
                f"use a model whose adapter provides it, or choose a method without this need."
            )

    def who_needs(self, need: Requirement) -> str:
        """The component that states a requirement, for error messages."""
        return self.name or type(self).__name__


def identity(tokens: VideoTokens) -> Compression:
    """The compression that keeps every valid token as it is."""
    places = tokens.frames * tokens.places
    keep = torch.arange(places, device=tokens.device)
    if tokens.valid is not None:
        # A stable sort brings the valid places to the front in order, with a size known on the host.
        order = torch.sort(tokens.valid.flatten().logical_not().to(torch.uint8), stable=True).indices
        keep = order[: tokens.total]
    return Compression(tokens, keep, tokens.capacity, history=tokens.history)


__all__ = [
    "Allocator",
    "CacheBinding",
    "CacheReuser",
    "CacheState",
    "Compression",
    "Compressor",
    "FrameScorer",
    "Merger",
    "Part",
    "Selection",
    "Selector",
    "TokenScorer",
    "identity",
]
