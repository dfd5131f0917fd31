"""Checks at the front door: what is wrong with an input, where, and what to hand over instead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compressors.errors import InputError
from compressors.functional.statistics import finite_flag
from compressors.tokens import VideoTokens

_SHAPES = {
    "attention": "[T, N]",
    "keys": "[T, N, D]",
    "query": "[Q, C]",
    "frame_features": "[T, C']",
    "timestamps": "[T]",
}


def check_shapes(tokens: VideoTokens) -> None:
    """Everything that can be seen without reading a value.

    Raises:
        InputError: a tensor has the wrong type, rank, shape or device.
    """
    check_features(tokens.features)
    frames, places, channels = tokens.features.shape
    given = f"features are [T={frames}, N={places}, C={channels}]"
    if tokens.grid is not None and (len(tokens.grid) != 2 or tokens.grid[0] * tokens.grid[1] != places):
        raise InputError(f"grid={tokens.grid} is not (height, width) with height·width = N ({given}).")
    expected: dict[str, tuple[int | None, ...]] = {
        "attention": (frames, places),
        "keys": (frames, places, None),
        "query": (None, channels),
        "frame_features": (frames, None),
        "timestamps": (frames,),
    }
    for name, shape in expected.items():
        value = getattr(tokens, name)
        if value is not None:
            _check_tensor(name, value, shape, _SHAPES[name], given, tokens.device)
    for name, plane in tokens.planes.items():
        _check_tensor(f"planes[{name!r}]", plane, (frames, places), "[T, N, ...]", given, tokens.device, more=True)
    if tokens.valid is not None:
        _check_tensor("valid", tokens.valid, (frames, places), "[T, N]", given, tokens.device)
        if tokens.valid.dtype != torch.bool:
            raise InputError(f"valid has dtype {tokens.valid.dtype}; expected bool, True where a place holds a token.")
        if tokens.counts is None or len(tokens.counts) != frames:
            raise InputError(
                f"valid needs counts, the number of tokens of each of the {frames} frames, known on the host."
            )
    elif tokens.counts is not None:
        raise InputError("counts without valid: give both, or neither when every place holds a token.")
    if tokens.total == 0:
        raise InputError("valid is False everywhere: the video holds no token. Leave the video out instead.")


def check_features(features: Any) -> None:
    """The video's features as such.

    Raises:
        InputError: not a floating-point tensor `[T, N, C]` with at least one token.
    """
    if not isinstance(features, Tensor):
        raise InputError(
            f"video is a {type(features).__name__}; hand over features [T, N, C] as a tensor, or VideoTokens."
        )
    shape = list(features.shape)
    if features.dim() != 3:
        hint = ""
        if features.dim() == 2:
            hint = " A flat sequence [T·N, C] needs features.view(T, N, C); one frame is features[None]."
        if features.dim() == 4:
            hint = (
                " Frames on a grid [T, h, w, C]: features.flatten(1, 2) and grid=(h, w). A batch: one call per video."
            )
        raise InputError(
            f"video has shape {shape}; expected 3 dimensions [T frames, N tokens per frame, C channels].{hint}"
        )
    if 0 in shape:
        raise InputError(f"video is empty: shape {shape}; T, N and C must be at least 1.")
    if not features.is_floating_point():
        raise InputError(
            f"video has dtype {features.dtype}; token features are floating point. Use .float() if this is meant."
        )


def _check_tensor(
    name: str,
    value: Any,
    shape: tuple[int | None, ...],
    written: str,
    given: str,
    device: torch.device,
    more: bool = False,
) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"{name} is a {type(value).__name__}; expected a tensor {written}.")
    ranks_fit = value.dim() >= len(shape) if more else value.dim() == len(shape)
    if not ranks_fit or any(want not in (None, have) for want, have in zip(shape, value.shape, strict=False)):
        raise InputError(f"{name} has shape {list(value.shape)}; expected {written}, where {given}.")
    if value.device != device:
        raise InputError(f"{name} is on {value.device}, but the features are on {device}.")


def check_flag(tokens: VideoTokens) -> Tensor:
    """0-d bool on the features' device: False when values are not finite or a wrapped selector returned nonsense.

    Call it on a result's `tokens`: it uses what the method computed, and reads nothing on the host. When it turns out
    False, `raise_failed_checks` says why.
    """
    flags = [finite_flag(tokens), *(passed for passed, _ in tokens._checks)]
    flags += [torch.isfinite(value).all() for value in _small(tokens).values()]
    return torch.stack(flags).all()


def raise_failed_checks(tokens: VideoTokens) -> None:
    """Read the checks on the host and raise what failed; nothing when all passed.

    Raises:
        InputError: NaN or Inf in the features or in attention, keys, query, frame_features.
        SelectionError: a wrapped selector returned nonsense.
    """
    if bool(check_flag(tokens)):
        return
    if not bool(finite_flag(tokens)):
        bad = ~torch.isfinite(tokens.features)
        if tokens.valid is not None:
            bad &= tokens.valid.unsqueeze(-1)
        number = int(bad.sum())
        if not number:
            raise InputError("features are so large that their squares overflow float32: rescale them.")
        frame, place = divmod(int(bad.any(-1).flatten().byte().argmax()), tokens.places)
        raise InputError(f"features hold {number} NaN or Inf values, the first at frame {frame}, token {place}.")
    for name, value in _small(tokens).items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} holds NaN or Inf values.")
    for passed, error in tokens._checks:
        if not bool(passed):
            raise error()


def _small(tokens: VideoTokens) -> dict[str, Tensor]:
    values = {name: getattr(tokens, name) for name in _SHAPES}
    return {name: value for name, value in values.items() if value is not None and value.is_floating_point()}
