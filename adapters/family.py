"""`Family`: everything vidpress knows about one family of models, and the list of families."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.errors import UnsupportedError
from adapters.tower import Tower
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query, Requirement


class Family(ABC):
    """How one family lays out its video tokens.

    Attributes:
        name: what users type (`model=<name>`).
        model_types: `config.model_type` values it covers.
        classes: the Hugging Face class users load, for tables.
        checkpoint: a published checkpoint.
        layout: one line for the table: where a video's tokens sit.
        supplies: requirement classes the adapter can satisfy; `lacks` says which of their values a model cannot.
        mrope: whether positions have three axes.
        trailing: placeholders after a video's last frame that are structural (a newline).
        position_groups: what one block of M-RoPE positions covers, a whole video or each frame.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    classes: ClassVar[str]
    checkpoint: ClassVar[str]
    layout: ClassVar[str]
    supplies: ClassVar[tuple[type[Requirement], ...]] = (Grid, History, Query)
    mrope: ClassVar[bool] = False
    trailing: ClassVar[int] = 0
    position_groups: ClassVar[Literal["video", "frame"]] = "video"

    def base(self, model: PreTrainedModel) -> PreTrainedModel:
        """The module with `get_video_features` whose forward sees `input_ids`."""
        return cast(PreTrainedModel, model.base_model)

    def decoder(self, model: PreTrainedModel) -> PreTrainedModel:
        """The language model that takes embeddings."""
        return cast(PreTrainedModel, model.get_decoder())  # type: ignore[no-untyped-call]

    def video_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """`[B, L]` bool: the placeholders of videos."""
        return cast(Tensor, input_ids == model.config.video_token_id)

    def media_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """`[B, L]` bool: the placeholders of videos and images."""
        image: Tensor = input_ids == model.config.image_token_id
        return self.video_mask(model, input_ids) | image

    def frames_per_group(self, model: PreTrainedModel) -> int:
        """Frames of the video in a temporal group."""
        return int(getattr(model.config.vision_config, "temporal_patch_size", 1))

    @abstractmethod
    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        """The videos in what `get_video_features` returned; no computation, no read.

        Args:
            model: the whole model.
            output: its return value (with `pooler_output`).
            arguments: its call, by parameter name.
        """

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `get_video_features` when pixels are those of one video and the rest has a row per copy."""
        return {name: value[:1] if name == "video_grid_thw" else value for name, value in arguments.items()}

    def videos_in(self, arguments: Mapping[str, Any]) -> int:
        """How many videos a call of `get_video_features` with these arguments holds."""
        # The pixels' argument was renamed between versions of the library.
        given = (arguments.get(name) for name in ("video_grid_thw", "pixel_values_videos", "pixel_values"))
        return int(next(tensor for tensor in given if tensor is not None).shape[0])

    def repeat(self, output: Any, times: int) -> None:
        """Make what `get_video_features` returned for one video what it returns for several equal ones, in place."""
        output.pooler_output = _repeated(output.pooler_output, times)
        if getattr(output, "deepstack_features", None) is not None:
            output.deepstack_features = [_repeated(layer, times) for layer in output.deepstack_features]

    def tower(self, model: PreTrainedModel) -> Tower | None:
        """The vision tower, for methods that read its attention, keys or pooled output; None: none of those."""
        return None

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        """What was tapped, by video and frame: patches in an order that `merge_patches` understands.

        Args:
            model: the whole model.
            values: `[P, ...]` (packed tower) or `[F, n, ...]` (batched), in the tower's order.
            geometry: (T, h, w) of each video, in tokens.

        Returns:
            Per video `[T, n, ...]`.
        """
        raise NotImplementedError(f"family {self.name} has a tower but no split_frames")

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """Values per patch `[T, n, c]` as values per token `[T, N, c]`: means over the patches a token is made of."""
        raise NotImplementedError(f"family {self.name} has a tower but no merge_patches")

    def lacks(self, model: PreTrainedModel, need: Requirement) -> str | None:
        """Why this model cannot give what a method needs; None if it can."""
        if not isinstance(need, self.supplies):
            return f"the {self.name} adapter does not supply it"
        if isinstance(need, (Attention, Keys, FrameFeatures)):
            tower = self.tower(model)
            return tower.lacks(need) if tower is not None else "the layout of its vision tower is not known"
        return None


def _repeated(values: Any, times: int) -> Any:
    """Rows of all videos in one tensor, or a sequence with a tensor per video."""
    return torch.cat([values] * times) if isinstance(values, Tensor) else tuple(values) * times


_FAMILIES: dict[str, Family] = {}


def register_family(cls: type[Family]) -> type[Family]:
    """Class decorator: add a family.

    Raises:
        UnsupportedError: a model type is covered already.
    """
    for model_type in cls.model_types:
        taken = next((f for f in _FAMILIES.values() if model_type in f.model_types), None)
        if taken is not None and type(taken).__qualname__ != cls.__qualname__:
            raise UnsupportedError(f"model type {model_type!r} is already covered by family {taken.name!r}.")
    _FAMILIES[cls.name] = cls()
    return cls


def families() -> Mapping[str, Family]:
    """Every family by name, those of installed plugins (`vidpress.families`) included."""
    for point in entry_points(group="vidpress.families"):
        if point.name not in _FAMILIES:
            register_family(point.load())
    return _FAMILIES


def family_of(model: PreTrainedModel) -> Family:
    """The family that covers a model.

    Raises:
        UnsupportedError: none does, or the model is not one that generates.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    known = ", ".join(sorted(t for family in families().values() for t in family.model_types))
    family = next((f for f in families().values() if model_type in f.model_types), None)
    if family is None:
        raise UnsupportedError(
            f"{type(model).__name__} (model_type {model_type!r}) is not supported. Supported model types: {known}. "
            f"docs/adding_a_model.md shows how to add one."
        )
    if not hasattr(model, "prepare_inputs_for_generation") or not hasattr(model, "generate"):
        raise UnsupportedError(
            f"{type(model).__name__} is not a generating model: press the *ForConditionalGeneration class instead."
        )
    return family


def call_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by parameter name, `**kwargs` flattened in."""
    bound = inspect.signature(function).bind_partial(*args, **kwargs)
    arguments = dict(bound.arguments)
    arguments.update(arguments.pop("kwargs", {}))
    return arguments
