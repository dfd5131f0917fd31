"""`Family`: everything vidpress knows about one family of models, and the list of families."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from math import isqrt
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from adapters.capture import Capture, Structure
from adapters.capture import Video as CapturedVideo
from adapters.errors import UnsupportedError
from adapters.support import FEATURES, UNEVEN_TURNS, Feature
from adapters.tower import Tower
from adapters.video import Video
from compressors.errors import BuildError
from compressors.registry import load
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query, Requirement

VIDEO_TYPE = 2  # what processors write into mm_token_type_ids for video tokens
_OF_MASKS = ("inputs_embeds", "attention_mask", "past_key_values", "position_ids")  # what masks are made of


class Family(ABC):
    """How one family lays out its video tokens.

    Attributes:
        name: what users type (`model=<name>`).
        model_types: `config.model_type` values it covers.
        classes: the Hugging Face class users load, for tables.
        checkpoint: a published checkpoint.
        layout: one line for the table: where a video's tokens sit.
        supplies: requirement classes the adapter can satisfy; `lacks` says which of their values a model cannot.
        refuses: features that do not work, with the reason: what is named here is refused under a press, what is not
            named is tested (`tests/adapters/test_support.py`).
        conditions: of features that work, the cases in which they do not, in the words with which each is refused.
        reuses: whether a cacher can be bound to its vision tower (`adapters.layer_layouts`).
        streams: whether `StreamSession` knows how its prompt goes on.
        masking: dropping a token equals masking it. False where a masked slot still acts (recurrent and sliding-window
            layers); such a family is held to the hand-pruned sequence alone.
        encoder: the base model's method that encodes videos.
        modality: under which key `mm_encoder_outputs` holds what that method returned.
        pixels: the pixels of videos among a prompt's arguments.
        told: arguments `[B, L]` of a prompt that say something to the press alone and never reach the model.
        mrope: whether positions have three axes.
        token_types: whether the model takes `mm_token_type_ids`.
        equal_frames: the processor stacks the videos of a call, which therefore need equally many frames.
        frames: sampled from a video by default; the same as in `conf/model`.
        position_groups: what one block of M-RoPE positions covers, a whole video or each frame.
        wholes: model types of larger models that hold one of this family, with the attribute it is in.
        token_marks: arguments `[B, L]` of the base model from which it builds its decoder's masks (which tokens belong
            to a medium); the model's `create_masks_for_generate` must take them by that name.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    classes: ClassVar[str]
    checkpoint: ClassVar[str]
    layout: ClassVar[str]
    supplies: ClassVar[tuple[type[Requirement], ...]] = (Grid, History, Query)
    refuses: ClassVar[Mapping[Feature, str]] = {}
    conditions: ClassVar[Mapping[Feature, Sequence[str]]] = {}
    reuses: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    masking: ClassVar[bool] = True
    encoder: ClassVar[str] = "get_video_features"
    modality: ClassVar[str] = "video"
    pixels: ClassVar[str] = "pixel_values_videos"
    told: ClassVar[tuple[str, ...]] = ()
    mrope: ClassVar[bool] = False
    token_types: ClassVar[bool] = False
    equal_frames: ClassVar[bool] = False
    frames: ClassVar[int] = 32
    position_groups: ClassVar[Literal["video", "frame"]] = "video"
    wholes: ClassVar[Mapping[str, str]] = {}
    token_marks: ClassVar[tuple[str, ...]] = ()

    def unfit(self, model: PreTrainedModel) -> str | None:
        """Why this model, with the settings it has, cannot be pressed although its family can; None if it can."""
        return None

    def base(self, model: PreTrainedModel) -> PreTrainedModel:
        """The module with the `encoder` method whose forward sees `input_ids`."""
        return cast(PreTrainedModel, model.base_model)

    def decoder(self, model: PreTrainedModel) -> PreTrainedModel:
        """The language model that takes embeddings."""
        return cast(PreTrainedModel, model.get_decoder())  # type: ignore[no-untyped-call]

    def video_mask(
        self, model: PreTrainedModel, input_ids: Tensor, arguments: Mapping[str, Any] | None = None
    ) -> Tensor:
        """`[B, L]` bool: the placeholders of videos.

        Args:
            model: the whole model.
            input_ids: `[B, L]`.
            arguments: of the base model's forward (`mm_token_type_ids`, …) and what the press was `told`, for families
                whose ids do not say it all; None where any video token counts.
        """
        return cast(Tensor, input_ids == model.config.video_token_id)

    def media_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """`[B, L]` bool: the placeholders of videos and images."""
        image: Tensor = input_ids == model.config.image_token_id
        return self.video_mask(model, input_ids) | image

    def structure(self, model: PreTrainedModel) -> Structure:
        """Where structural placeholders stand among a video's."""
        return "none"

    def visual_tokens(self, model: PreTrainedModel, placeholders: int, groups: int) -> int:
        """How many of a video's placeholders are visual tokens; grids are square where rows end in a newline."""
        structure = self.structure(model)
        if structure == "row_end":
            return groups * isqrt(placeholders // groups) ** 2
        return placeholders - {"none": 0, "video_end": 1}.get(structure, groups)

    def frames_per_group(self, model: PreTrainedModel) -> int:
        """Frames of the video in a temporal group."""
        return int(getattr(model.config.vision_config, "temporal_patch_size", 1))

    def embed(self, model: PreTrainedModel, features: Tensor) -> Tensor:
        """`[K, C]` features as the model writes them into the prompt's embeddings."""
        return features

    def decoder_mask(self, model: PreTrainedModel, kwargs: Mapping[str, Any], marks: Mapping[str, Tensor]) -> Any:
        """The mask of a shortened prompt as the decoder takes it: the one that the model builds for that length.

        Args:
            model: the whole model.
            kwargs: the decoder's arguments without the dropped tokens; the mask among them is a 2-D one, or None
                where nothing is padding.
            marks: `token_marks` that were given, `[B, past + K]`, zero for padding and for what the cache holds.
        """
        if not marks:
            return kwargs["attention_mask"]
        known = {name: kwargs.get(name) for name in _OF_MASKS}
        return model.create_masks_for_generate(config=model.config, **known, **marks)  # type: ignore[operator]

    def encodes_videos(self, arguments: Mapping[str, Any], forward: Mapping[str, Any] | None) -> bool:
        """Whether a call of the `encoder` method is one for videos, where it serves images too.

        Args:
            arguments: its call, by parameter name.
            forward: the base model's arguments, when it is called inside its forward.
        """
        return True

    @abstractmethod
    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture | None:
        """The videos in what the `encoder` method returned; no computation, no read.

        Args:
            model: the whole model.
            output: its return value (with `pooler_output`).
            arguments: its call, by parameter name.

        Returns:
            None where the call encoded no video (a method that serves images too).
        """

    def further(
        self, model: PreTrainedModel, capture: Capture, ids: Tensor, arguments: Mapping[str, Any], copies: int
    ) -> Tensor | None:
        """More integers on the device that `videos` needs on the host, 1-D; they are read with everything else, once.

        Args:
            model: the whole model.
            capture: what `capture` returned.
            ids: `[B, L]` the prompt's tokens.
            arguments: of the base model's forward, and what the press was `told`.
            copies: neighbouring rows that show the same videos (beams, several questions about one).
        """
        return None

    def videos(
        self, model: PreTrainedModel, capture: Capture, geometry: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> list[CapturedVideo]:
        """The captured videos, in prompt order.

        Args:
            model: the whole model.
            capture: what `capture` returned.
            geometry: its values on the host.
            numbers: those of `further`.
        """
        return capture.videos(geometry)

    def joined(
        self, videos: Sequence[CapturedVideo], rows: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> tuple[Sequence[CapturedVideo], Sequence[Sequence[int]]]:
        """Videos made of those captured one by one, where only the prompt says which belong together.

        Args:
            videos: what `videos` returned.
            rows: per row of the batch, indices into them.
            numbers: those of `further`.

        Returns:
            The videos to compress, and per row indices into them.
        """
        return videos, rows

    def check_rows(self, rows: Sequence[Sequence[int]], expand: int) -> None:  # noqa: B027 (most check nothing)
        """Refuse a distribution of videos over rows (`adapters.plan.assign`) that the library itself cannot repeat.

        Args:
            rows: per row, its videos.
            expand: rows per sample (beams).
        """

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        """What the family's processor makes of a video: for prompts without processor files (random weights).

        Args:
            model: the whole model, for its config.
            video: the frames.

        Returns:
            The token ids between the user's role and the question, text among them byte by byte, and the model's
            arguments (pixels, grids) for this one video.

        Raises:
            UnsupportedError: not described for this family.
        """
        raise UnsupportedError(f"random weights: the prompt layout of family {self.name!r} is not known.")

    def types(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """`mm_token_type_ids [B, L]` as the family's processor writes them, for prompts without images."""
        return self.video_mask(model, input_ids) * VIDEO_TYPE

    def together(self, calls: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The media of several calls (pixels, grids, …) as those of one batch: one after the other."""
        names = dict.fromkeys(name for call in calls for name in call)
        return {name: torch.cat([call[name] for call in calls if name in call]) for name in names}

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the `encoder` method when pixels are those of one video and the rest has a row per copy."""
        return {name: value[:1] if name == "video_grid_thw" else value for name, value in arguments.items()}

    def videos_in(self, arguments: Mapping[str, Any]) -> int:
        """How many videos a call of `get_video_features` with these arguments holds."""
        # The pixels' argument was renamed between versions of the library.
        given = (arguments.get(name) for name in ("video_grid_thw", "pixel_values_videos", "pixel_values"))
        return int(next(tensor for tensor in given if tensor is not None).shape[0])

    def frames_in(self, arguments: Mapping[str, Any]) -> list[int] | None:
        """Temporal groups of each video in such a call, for a cacher; None where the tower sees which are whose."""
        return None

    def repeat(self, output: Any, times: int) -> None:
        """Make what the `encoder` method returned for one video what it returns for several equal ones, in place."""
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

    def refuse(self, feature: Feature, asked: bool = True) -> None:
        """Raise where something that was asked for is among `refuses`.

        Raises:
            UnsupportedError: naming the family, the feature and the reason.
        """
        reason = self.support()[feature] if asked else None
        if reason is not None:
            raise self.refusal(feature, reason)

    def refusal(self, what: str, reason: str) -> UnsupportedError:
        """The error for something that does not work."""
        return UnsupportedError(f"{what}: not supported for {self.name}: {reason}")

    def check_call(self, model: PreTrainedModel, arguments: Mapping[str, Any], *, positions: str, expand: int) -> None:
        """Refuse a prompt with videos for what this call asks for, beyond what `refuses` says of every call.

        Args:
            model: the whole model.
            arguments: of the base model's forward, by parameter name.
            positions: "original" or "contiguous".
            expand: rows per sample (beams, return sequences).

        Raises:
            UnsupportedError: a `refusal`.
        """
        return None

    def support(self) -> dict[Feature, str | None]:
        """Every feature, with the reason why not; None: it works."""
        reasons = {feature: self.refuses.get(feature) for feature in FEATURES}
        if not {Attention, Keys, FrameFeatures} & set(self.supplies):
            reasons["encoder taps"] = reasons["encoder taps"] or "the layout of its vision tower is not described"
        if not self.reuses:
            reasons["cacher"] = "how the layers of its vision tower are called is not described to cachers"
        if not self.streams:
            reasons["streaming"] = "how its prompt goes on from chunk to chunk is not described"
        return reasons

    def exceptions(self) -> dict[Feature, tuple[str, ...]]:
        """Of every feature that works, the cases in which it is refused all the same."""
        found = {feature: tuple(self.conditions.get(feature, ())) for feature in FEATURES}
        if not self.masking:
            found["chat turns"] += (UNEVEN_TURNS,)
        return {feature: found[feature] for feature, reason in self.support().items() if reason is None}

    def lacks(self, model: PreTrainedModel, need: Requirement) -> str | None:
        """Why this model cannot give what a method needs; None if it can."""
        if not isinstance(need, self.supplies):
            return f"the {self.name} adapter does not supply it"
        if isinstance(need, (Attention, Keys, FrameFeatures)):
            tower = self.tower(model)
            return tower.lacks(need) if tower is not None else "the layout of its vision tower is not known"
        return None


def with_marks(media: Tensor, before: int = 1, after: int = 1) -> Tensor:
    """`[B, L]` bool: media and the tokens next to them, where these are marks that no configuration names."""
    marked = media.clone()
    for distance in range(1, before + 1):
        marked |= functional.pad(media[:, distance:], (0, distance))
    for distance in range(1, after + 1):
        marked |= functional.pad(media[:, :-distance], (distance, 0))
    return marked


def square_frames(video: Video, side: int) -> Tensor:
    """`[1, F, 3, side, side]`: a video's frames in [-1, 1], for towers that take one size."""
    frames = video.frames.permute(0, 3, 1, 2).float() / 127.5 - 1
    return functional.interpolate(frames, size=(side, side), mode="bilinear", antialias=True)[None]


def mean_of_patches(values: Tensor, stride: int) -> Tensor:
    """`[F, side², c]` -> `[F, (side // stride)², c]`: means over squares of patches."""
    side = isqrt(values.shape[1])
    planes = values.transpose(1, 2).reshape(values.shape[0], -1, side, side)
    return functional.avg_pool2d(planes, stride).flatten(2).transpose(1, 2)


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
    """Every family by name, those of installed plugins (`vidpress.families`) included.

    Raises:
        BuildError: a plugin could not be imported, or is called otherwise than its entry point.
        UnsupportedError: it covers a model type that is covered already.
    """
    for point in entry_points(group="vidpress.families"):
        if point.name not in _FAMILIES:
            found = load(point)
            if getattr(found, "name", None) != point.name:
                raise BuildError(f"plugin {point.name!r} ({point.value}) is not a Family with that name.")
            register_family(found)
    return _FAMILIES


def family_of(model: PreTrainedModel) -> Family:
    """The family that covers a model.

    Raises:
        UnsupportedError: none does, or only a part of the model, or the model is not one that generates.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    whole = next((f for f in families().values() if model_type in f.wholes), None)
    if whole is not None:
        part = whole.wholes[str(model_type)]
        raise UnsupportedError(
            f"{type(model).__name__} (model_type {model_type!r}) is more than its {part}, which sees the videos: press "
            f"that, press(model.{part}, …), then call model.{part}.generate(…), or model.generate(…) for text alone."
        )
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
    signature = inspect.signature(function)
    arguments = dict(signature.bind_partial(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    return arguments
