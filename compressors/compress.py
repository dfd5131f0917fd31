"""`compress`: one video's tokens in, what to keep out. No model is involved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from compressors.base import Compression, Compressor
from compressors.budget import Budget
from compressors.build import build
from compressors.checks import check_features, check_shapes, raise_failed_checks
from compressors.errors import BuildError, InputError
from compressors.tokens import VideoTokens


def compress(
    video: Tensor | VideoTokens,
    method: str | Compressor = "vidcom2",
    *,
    retention: float | None = None,
    tokens: int | None = None,
    tokens_per_frame: float | None = None,
    grid: tuple[int, int] | None = None,
    query: Tensor | None = None,
    attention: Tensor | None = None,
    keys: Tensor | None = None,
    timestamps: Tensor | None = None,
    history: Any = None,
    frame_features: Tensor | None = None,
    valid: Tensor | None = None,
    planes: Mapping[str, Tensor] | None = None,
    validate: bool = True,
    **parts: Any,
) -> Compression:
    """Compress the visual tokens of one video.

    Args:
        video: features `[T, N, C]` (frames, tokens per frame, channels; any float dtype, any device), or VideoTokens.
        method: a preset's name, or a compressor that `build` made.
        retention: share of the tokens kept, in (0, 1]; 0.25 when no budget is given.
        tokens: tokens kept per video.
        tokens_per_frame: mean tokens kept per frame.
        grid: (height, width) of a frame's tokens, for methods that need it.
        query: `[Q, C]` vectors of the question.
        attention: `[T, N]` attention of a vision-tower layer.
        keys: `[T, N, D]` keys of a vision-tower layer.
        timestamps: `[T]` seconds.
        history: state of a stream, from the previous chunk's `Compression.history`.
        frame_features: `[T, C']` pooled vision-tower output.
        valid: `[T, N]` bool, False at places without a token. Counting them reads T integers on the host; VideoTokens
            with `counts` avoids that.
        planes: further tensors `[T, N, ...]` that follow the tokens.
        validate: the values are checked on the device, and whether all passed is one read on the host, on top of the
            compressor's own `host_reads`: so `compress(x, "vidcom2")` on a GPU waits for it once. False skips all
            checks of values and shapes, and that read. With a compressor that `build` made whose `host_reads` is 0,
            the call then compiles into one graph, and a CUDA graph can capture it.
        **parts: parts to replace (`scorer=`, `allocator=`, `selector=`, `merger=`) and parameters, as in `build`.

    Returns:
        Compression: `keep [K]`, `budgets [T]`, `features [K, C]`, `mask [T, N]`, …

    Raises:
        InputError: features or companions of wrong type, shape, device or with NaN or Inf.
        BudgetError: a budget out of range, or two of them.
        RequirementError: the method needs something that was not supplied.
        UnknownNameError, BuildError: unknown names or parameters, parts that do not fit.
        SelectionError: a wrapped selector returned nonsense.

    Example:
        >>> result = compress(features, "vidcom2", retention=0.25)
        >>> result.features.shape                       # [K, C]
    """
    budget = Budget(retention, tokens, tokens_per_frame)
    compressor = build(method, **parts)
    if compressor.cacher is not None:
        raise BuildError(
            f"cacher={compressor.cacher.name} reuses work inside a vision tower, and here are features alone: use "
            f"press(model, …, cacher={compressor.cacher.name!r}), or leave the cacher out."
        )
    changes = {
        "grid": None if grid is None else tuple(grid),
        "query": query,
        "attention": attention,
        "keys": keys,
        "timestamps": timestamps,
        "history": history,
        "frame_features": frame_features,
        "valid": valid,
        "planes": planes,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if isinstance(video, VideoTokens):
        source = video
    else:
        if validate or not isinstance(video, Tensor):
            check_features(video)
        source = VideoTokens(video)
    if valid is not None:
        changes["counts"] = _counts(source, valid)
    source = source.with_(**changes)
    if not validate:
        return compressor(source, budget)
    check_shapes(source)
    try:
        result = compressor(source, budget)
    except (ArithmeticError, IndexError, RuntimeError):
        # NaN may break a third party's part before the flag is read: then NaN is the better news.
        raise_failed_checks(source)
        raise
    raise_failed_checks(source)
    return result


def _counts(tokens: VideoTokens, valid: Any) -> tuple[int, ...]:
    """Tokens per frame, read on the host."""
    if not isinstance(valid, Tensor) or valid.shape != tokens.features.shape[:2]:
        shape = list(valid.shape) if isinstance(valid, Tensor) else f"type {type(valid).__name__}"
        raise InputError(f"valid has {shape}; expected a bool tensor [T, N] = {list(tokens.features.shape[:2])}.")
    return tuple(valid.sum(1).tolist())
