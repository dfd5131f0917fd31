"""`Composition`: scorer, allocator, selector and merger put together as one compressor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compressors.base import Allocator, Compression, Compressor, Merger, Part, Selector, TokenScorer
from compressors.budget import FrameBudgets
from compressors.errors import BuildError
from compressors.functional.histories import Histories
from compressors.functional.ragged import count_per_frame
from compressors.requirements import History, Requirement
from compressors.tokens import VideoTokens


@dataclass(frozen=True)
class Composition(Compressor):
    """Score, allocate, select, merge.

    Without an allocator the selector spends the total over the whole video and budgets are counted afterwards.

    Raises:
        BuildError: the parts do not fit together.
    """

    selector: Selector
    scorer: TokenScorer | None = None
    allocator: Allocator | None = None
    merger: Merger | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.scorer is None:
            for part in (self.allocator, self.selector):
                if part is not None and part.needs_scores:
                    raise BuildError(f"{part.name} ranks tokens by score, but no scorer is set: add scorer=vidcom2.")
        if self.allocator is None and self.selector.needs_allocator:
            raise BuildError(f"{self.selector.name} works frame by frame: it needs an allocator, as allocator=uniform.")
        understood = None if self.merger is None else self.merger.selectors
        if self.merger is not None and understood is not None and self.selector.name not in understood:
            raise BuildError(
                f"merger {self.merger.name} merges what selector {' or '.join(sorted(understood))} picks; "
                f"with selector {self.selector.name} it is undefined. Change the selector, or use merger=none."
            )
        if self.allocator is not None and not self.selector.takes_allocator:
            raise BuildError(
                f"{self.selector.name} spends the budget over the whole video, so it takes no allocator: "
                f"use allocator=none."
            )
        if self.merger is not None and self.selector.merges:
            raise BuildError(f"{self.selector.name} merges while it selects, so it takes no merger: use merger=none.")
        fields = [need.field for need in self.requirements if not isinstance(need, History)]
        for name in {f for f in fields if fields.count(f) > 1}:
            clash = sorted(f"{self.who_needs(need)} needs {need}" for need in self.requirements if need.field == name)
            raise BuildError(f"two parts need different {name}: {' and '.join(clash)}; there is one of it only.")

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts in use, by kind."""
        parts = {
            "scorer": self.scorer,
            "allocator": self.allocator,
            "selector": self.selector,
            "merger": self.merger,
        }
        return {kind: part for kind, part in parts.items() if part is not None}

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset().union(*(part.requirements for part in self.parts.values()))

    @property
    def host_reads(self) -> int:
        return sum(part.host_reads for part in self.parts.values()) + (not self.exact)

    @property
    def takes_gaps(self) -> bool:
        return all(part.takes_gaps for part in self.parts.values())

    @property
    def exact(self) -> bool:
        return self.allocator is None or self.allocator.exact

    @property
    def merges(self) -> bool:
        return self.merger is not None or self.selector.merges

    @property
    def title(self) -> str:
        return self.label or "+".join(part.name for part in self.parts.values())

    def who_needs(self, need: Requirement) -> str:
        return " and ".join(f"{kind} {part.name}" for kind, part in self.parts.items() if need in part.requirements)

    def describe(self) -> Mapping[str, str]:
        return {kind: repr(part) for kind, part in self.parts.items()}

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        scores = self.scorer(self._seen_by(self.scorer, tokens)) if self.scorer is not None else None
        budgets = self._allocate(tokens, scores, total, retention)
        chosen = self.selector.select(self._seen_by(self.selector, tokens), scores, budgets)
        keep, merge = chosen.keep, chosen.merge
        per_frame = count_per_frame(keep, tokens) if budgets.per_frame is None else budgets.per_frame
        if self.merger is not None:
            merge = self.merger(tokens, keep, scores, chosen.targets)
        return Compression(tokens, keep, per_frame, scores, merge, self.next_history(tokens))

    def next_history(self, tokens: VideoTokens) -> Any:
        # Parts that carry a state of one name carry the same thing.
        carriers = {state: part for part in self.parts.values() for state in _states(part)}
        after = {state: part.next_history(self._seen_by(part, tokens)) for state, part in carriers.items()}
        if len(after) > 1:
            return Histories(after)
        return next(iter(after.values()), tokens.history)

    def _seen_by(self, part: Part, tokens: VideoTokens) -> VideoTokens:
        """The tokens as a part sees them: where parts carry different states, each finds its own."""
        states = _states(part)
        if not states or len(_states(self)) < 2:
            return tokens
        return Histories.of(states[0], tokens)

    def _allocate(self, tokens: VideoTokens, scores: Tensor | None, total: int, retention: float) -> FrameBudgets:
        if self.allocator is None:
            return FrameBudgets(total, None, min(tokens.places, total))
        tokens = self._seen_by(self.allocator, tokens)
        if not self.allocator.exact:
            per_frame = self.allocator.at_retention(tokens, scores, retention)
            counts = per_frame.tolist()
            return FrameBudgets(sum(counts), per_frame, max(counts))
        return self.allocator.spend(tokens, scores, total)


def _states(part: Part) -> list[str]:
    """The names of the stream states that a part carries."""
    return sorted({need.state for need in part.requirements if isinstance(need, History)})
