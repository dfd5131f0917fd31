"""`press`: put a compressor into a model for the length of a `with` block, and take it out without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, get_args

from transformers import PreTrainedModel

from adapters.attachment import Attachment
from adapters.entry import Newlines, Positions
from adapters.errors import AlreadyPressed, UnsupportedError
from adapters.family import Family, family_of
from adapters.report import Report
from compressors import Budget, BuildError, Compressor, RequirementError, build, rows

_PRESSED = "_vidpress"


class Press:
    """A compressor that can be attached to one model; see `press`."""

    def __init__(
        self,
        model: PreTrainedModel,
        compressor: Compressor,
        budget: Budget,
        positions: Positions,
        newlines: Newlines = "raster",
    ) -> None:
        self.model, self.compressor, self.budget = model, compressor, budget
        self.positions, self.newlines = positions, newlines
        self.family = family_of(model)
        if newlines not in get_args(Newlines):
            raise BuildError(f"newlines={newlines!r}: choose one of {', '.join(get_args(Newlines))}.")
        if positions not in get_args(Positions):
            raise BuildError(f"positions={positions!r}: choose one of {', '.join(get_args(Positions))}.")
        self.family.refuse("contiguous positions", positions == "contiguous")
        self.family.refuse("merging", compressor.merges)
        _check_supplies(model, self.family, compressor)
        self._attachment: Attachment | None = None
        self._report: Report | None = None

    def attach(self) -> Report:
        """Put the compressor into the model.

        Raises:
            AlreadyPressed: the model is under a press (this one or another).
            UnsupportedError: the installed transformers has moved an attachment point.
        """
        if _PRESSED in vars(self.model):
            raise AlreadyPressed(
                f"this {type(self.model).__name__} is already pressed with {vars(self.model)[_PRESSED]}: leave that "
                f"`with` block, or call detach(), first."
            )
        self._report = Report(self.compressor.title, self.compressor.describe())
        self._attachment = Attachment(
            self.model, self.family, self.compressor, self.budget, self.positions, self.newlines, self._report
        )
        vars(self.model)[_PRESSED] = self.compressor.title
        return self._report

    def detach(self) -> None:
        """Take the compressor out; the model is as it was found. Harmless when not attached."""
        if self._attachment is not None:
            self._attachment.remove()
            self._attachment = None
            del vars(self.model)[_PRESSED]

    @contextmanager
    def same_video(self, rows: int) -> Iterator[None]:
        """Several questions about one video in a batch: it is encoded once, and compressed once.

        Inside this block, in this thread, a prompt's rows all hold the same video. Its pixels are passed once, what
        describes it (`video_grid_thw`) once per row, as `adapters.prompting.questions_about` does. A method that looks
        at the question compresses the video once per row.

        Args:
            rows: questions in the batch.

        Raises:
            UnsupportedError: the press is not attached, or beams are asked for.
        """
        if self._attachment is None:
            raise UnsupportedError(
                "same_video() belongs inside its press: `with pressed, pressed.same_video(rows): …`."
            )
        with self._attachment.same_video(rows):
            yield

    def __enter__(self) -> Report:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()
        if kind is None and self._report is not None:
            self._report.check()


def press(
    model: PreTrainedModel,
    method: str | Compressor = "vidcom2",
    *,
    retention: float | None = None,
    tokens: int | None = None,
    tokens_per_frame: float | None = None,
    positions: Positions = "original",
    newlines: Newlines = "raster",
    **parts: Any,
) -> Press:
    """Compress the video tokens of everything a model runs inside the `with` block.

    Args:
        model: an unmodified Hugging Face video language model (`vidpress.families()` lists the families).
        method: a method's name or a `Compressor`.
        retention, tokens, tokens_per_frame: the budget of each video; at most one (default: retention 0.25).
        positions: "original" keeps every token's position; "contiguous" closes the gaps.
        newlines: for models with a newline after each row of a frame's grid (LLaVA-Video; no difference for others):
            "raster" leaves all of them where they stand, "last" puts a frame's newlines behind its tokens, as the
            releases of VidCom2 and STC do (with `positions="contiguous"`).
        **parts: scorer=, allocator=, selector=, merger= and parameters, as in `build`.

    Returns:
        A context manager that yields the `Report`; or call its `attach()` and `detach()`.

    Raises:
        UnsupportedError: the model is of no known family, or its family refuses merging or contiguous positions.
        RequirementError: the method needs what the model's adapter cannot give.
        UnknownNameError, BuildError, BudgetError: as in `build` and `Budget`.

    Example:
        >>> with press(model, "vidcom2", allocator="fca", retention=0.25) as report:
        ...     out = model.generate(**inputs, max_new_tokens=64)
        >>> print(report)
    """
    budget = Budget(retention, tokens, tokens_per_frame)
    return Press(model, build(method, **parts), budget, positions, newlines)


def _check_supplies(model: PreTrainedModel, family: Family, compressor: Compressor) -> None:
    """Refuse, before anything runs, a method whose needs the model or its adapter cannot meet."""
    for need in sorted(compressor.requirements, key=repr):
        reason = family.lacks(model, need)
        if reason is not None:
            fitting = [row.name for row in rows() if all(family.lacks(model, need) is None for need in row.needs)]
            raise RequirementError(
                f"{compressor.who_needs(need)} needs {need}, but {reason}. "
                f"Methods that work with this model: {', '.join(fitting)}."
            )
