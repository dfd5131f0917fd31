"""How many frames are sampled from a video: as many as are asked for, or (`frames=auto`) as a token budget pays for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from omegaconf import DictConfig

from adapters.family import family_of
from adapters.prompting import places_per_group
from adapters.video import video_size
from compressors.base import Compressor
from compressors.errors import BudgetError, InputError
from compressors.plan_budget import BudgetPlan, plan_budget

AUTO: Final = "auto"
_ROUNDS = 4  # of measuring and choosing, for processors that make frames smaller when there are many


@dataclass(frozen=True)
class ChosenFrames:
    """What `frames=auto` chose for one video, and from what.

    Attributes:
        available: frames in the file.
        places: N, visual tokens of a temporal group.
        plan: frames, temporal groups, tokens and retention.
    """

    available: int
    places: int
    plan: BudgetPlan

    def as_result(self) -> dict[str, Any]:
        """For `result.json`."""
        plan = self.plan
        return {
            "available": self.available,
            "frames": plan.frames,
            "groups": plan.groups,
            "places": self.places,
            "tokens": plan.total,
            "retention": plan.retention,
        }


class AutoFrames:
    """`frames=auto` for one model and budget; videos of the same size are measured once.

    Args:
        model, processor: the model that will see the frames.
        compressor: with exact budgets.
        tokens: kept per video.
        auto_retention: least share of the tokens to keep.
    """

    def __init__(self, model: Any, processor: Any, compressor: Compressor, tokens: int, auto_retention: float) -> None:
        self._model, self._processor, self._compressor = model, processor, compressor
        self._tokens, self._auto_retention = tokens, auto_retention
        self._frames_per_group = family_of(model).frames_per_group(model)
        self._measured: dict[tuple[int, int, int], int] = {}

    def __call__(self, path: Path, start: float | None = None, end: float | None = None) -> ChosenFrames:
        """The frames to sample from a file, or from a span of its seconds.

        Raises:
            VideoError: the file cannot be read.
            BudgetError: as `plan_budget`.
        """
        size, sampled = video_size(path, start=start, end=end), self._frames_per_group
        for _ in range(_ROUNDS):
            places = self._places(sampled, size.height, size.width)
            plan = self._plan(places, size.frames)
            if plan.frames == sampled:
                break
            sampled = plan.frames
        return ChosenFrames(size.frames, places, plan)

    def _plan(self, places: int, available: int) -> BudgetPlan:
        return plan_budget(
            AUTO,
            places,
            self._compressor,
            tokens=self._tokens,
            available=available,
            auto_retention=self._auto_retention,
            frames_per_group=self._frames_per_group,
        )

    def _places(self, frames: int, height: int, width: int) -> int:
        size = frames, height, width
        if size not in self._measured:
            self._measured[size] = places_per_group(self._model, self._processor, *size)
        return self._measured[size]


def frames_setting(cfg: DictConfig) -> int | Literal["auto"] | None:
    """`frames`, where it or `fps` is set, else the model's default; null reads all frames.

    Raises:
        InputError: neither a whole number nor auto, or auto beside `fps`.
        BudgetError: auto without `tokens`, or `auto_retention` out of range.
    """
    # One of `frames` and `fps` replaces the model's default number of frames.
    setting: Any = cfg.model.frames if cfg.frames is None and cfg.fps is None else cfg.frames
    if setting == AUTO:
        if cfg.fps is not None:
            raise InputError(f"frames=auto chooses how many frames are sampled, and so does fps={cfg.fps}: keep one.")
        if cfg.tokens is None:
            raise BudgetError("frames=auto chooses frames for a token budget: add tokens=2048, or type frames=32.")
        share: Any = cfg.auto_retention
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise BudgetError(f"auto_retention={share} is outside (0, 1]: 0.25 looks at four times the frames.")
    elif setting is not None and (isinstance(setting, bool) or not isinstance(setting, int) or setting < 1):
        raise InputError(f"frames={setting} must be a whole number, 1 or more, or auto.")
    chosen: int | Literal["auto"] | None = setting
    return chosen


def fixed_frames(cfg: DictConfig) -> int | None:
    """`frames` as a number; None where all are read, and where `auto_frames` decides."""
    setting = frames_setting(cfg)
    return None if setting == AUTO else setting


def auto_frames(
    cfg: DictConfig, model: Any, processor: Any, compressor: Compressor, budget: Mapping[str, Any]
) -> AutoFrames | None:
    """What chooses the frames of each video under this configuration; None where `frames` is no `auto`."""
    if frames_setting(cfg) != AUTO:
        return None
    return AutoFrames(model, processor, compressor, budget["tokens"], cfg.auto_retention)
