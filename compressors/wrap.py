"""`wrap`: any callable that picks k rows of a frame becomes a selector under any allocator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compressors.base import Selector
from compressors.budget import FrameBudgets
from compressors.errors import SelectionError
from compressors.functional.ragged import count_per_frame
from compressors.tokens import VideoTokens

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def wrap(function: Callable[..., Any], *, batched: bool = False, name: str | None = None) -> Selector:
    """Make a selector of a callable, to be used under any allocator.

    Args:
        function: `(features [n, C], k) -> k distinct indices in 0 … n-1`, called once per frame with k > 0 and never
            shown an empty place. With `batched`, `(features [T, N, C], budgets int64 [T]) -> flat indices t·N + n`,
            called once.
        batched: which of the two.
        name: to show in reports; the callable's own name by default.

    Returns:
        A selector. Its output is checked: type, shape, device, range, duplicates. What can be seen without reading
        values raises `SelectionError` at once; values are checked on the device, and `compress()` raises the error.

    Example:
        >>> longest = wrap(lambda features, k: features.norm(dim=-1).topk(k).indices)
        >>> build("vidcom2", selector=longest)        # frame compression adjustment for your own selector
    """
    return Wrapped(function, batched, name or str(getattr(function, "__name__", type(function).__name__)))


@dataclass(frozen=True)
class Wrapped(Selector):
    """A third party's selector, made by `wrap`."""

    function: Callable[..., Any]
    batched: bool
    label: str

    needs_allocator: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.label)

    @property
    def host_reads(self) -> int:
        return 1

    @property
    def takes_gaps(self) -> bool:
        return not self.batched

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`.

        Raises:
            SelectionError: the callable returned something other than the asked number of integers on the right device.
        """
        assert budgets.per_frame is not None
        return self._all_at_once(tokens, budgets) if self.batched else self._frame_by_frame(tokens, budgets.per_frame)

    def _frame_by_frame(self, tokens: VideoTokens, per_frame: Tensor) -> Tensor:
        counts = tokens.counts or (tokens.places,) * tokens.frames
        filled = None if tokens.valid is None else torch.sort((~tokens.valid).byte(), stable=True).indices
        picked: list[Tensor] = []
        sound: list[Tensor] = []
        frames: list[int] = []
        for frame, (budget, count) in enumerate(zip(per_frame.tolist(), counts, strict=True)):
            if budget == 0:
                continue
            places = None if filled is None else filled[frame, :count]
            features = tokens.features[frame] if places is None else tokens.features[frame].index_select(0, places)
            chosen = self._checked(self.function(features, budget), budget, tokens.device, f"for frame {frame}")
            sound.append(_distinct_below(chosen, count))
            frames.append(frame)
            chosen = chosen.clamp(0, count - 1)
            picked.append(frame * tokens.places + (chosen if places is None else places[chosen]))
        flags = torch.stack(sound)
        tokens.check_later(
            flags.all(), lambda: self._nonsense([f for f, ok in zip(frames, flags.tolist(), strict=True) if not ok])
        )
        return torch.cat(picked).sort().values

    def _all_at_once(self, tokens: VideoTokens, budgets: FrameBudgets) -> Tensor:
        per_frame = budgets.per_frame
        assert per_frame is not None
        if tokens.valid is not None:
            raise SelectionError(
                f"selector {self.name} is batched, and a batched callable cannot be shown a video with empty places: "
                "use wrap(…, batched=False)."
            )
        chosen = self._checked(self.function(tokens.features, per_frame), budgets.total, tokens.device, "for the video")
        keep = chosen.clamp(0, tokens.total - 1).sort().values
        counts = count_per_frame(keep, tokens)
        sound = _distinct_below(chosen, tokens.total) & (counts == per_frame).all()
        tokens.check_later(
            sound, lambda: self._nonsense([f for f, wrong in enumerate((counts != per_frame).tolist()) if wrong])
        )
        return keep

    def _checked(self, chosen: Any, budget: int, device: torch.device, where: str) -> Tensor:
        """The callable's result as int64, as far as it can be checked without reading it."""
        if not isinstance(chosen, Tensor):
            problem = f"returned a {type(chosen).__name__} instead of a tensor of indices"
        elif chosen.dtype not in _INTEGERS:
            problem = f"returned {chosen.dtype} instead of integer indices (for a mask: mask.nonzero().squeeze(1))"
        elif chosen.shape != (budget,):
            problem = f"returned shape {list(chosen.shape)} instead of [{budget}], one index per token to keep"
        elif chosen.device != device:
            problem = f"returned indices on {chosen.device}, but the features are on {device}"
        else:
            return chosen.long()
        raise SelectionError(f"selector {self.name} {problem}, {where}.")

    def _nonsense(self, frames: list[int]) -> SelectionError:
        where = f"frame {frames[0]}" if frames else "the video"
        more = f" (and {len(frames) - 1} more frames)" if len(frames) > 1 else ""
        if self.batched:
            rule = "the asked number of distinct flat indices t·N + n of every frame"
        else:
            rule = "distinct indices of the rows it was given, 0 … n-1"
        return SelectionError(
            f"selector {self.name} returned repeated, out-of-range or misplaced indices for {where}{more}: "
            f"it must return {rule}."
        )


def _distinct_below(chosen: Tensor, count: int) -> Tensor:
    """0-d bool: all indices lie in 0 … count-1 and none repeats."""
    ordered = chosen.sort().values
    return (ordered[:1] >= 0).all() & (ordered[-1:] < count).all() & (ordered.diff() > 0).all()
