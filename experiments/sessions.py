"""From a composed configuration to a streaming session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from adapters.streaming import StreamSession, build_memory
from compressors.base import Compressor
from compressors.no_compression import NoCompression


def session_from(
    cfg: DictConfig,
    model: Any,
    processor: Any,
    method: Compressor,
    budget: Mapping[str, Any],
    fps: float | None = None,
    **settings: Any,
) -> StreamSession:
    """A session with the memory that `memory` describes.

    Args:
        cfg: the configuration; `memory` is not none.
        model, processor: of any family that sessions know.
        method: prunes every chunk (`none` drops nothing, whatever the budget), after its cacher if it has one.
        budget: of the pruner, as `press` takes it.
        fps: frames per second that will come; None is the session's default.
        **settings: further ones of `StreamSession`, such as its form.

    Raises:
        VidpressError: something that the model or a session cannot do.
    """
    memory: Any = OmegaConf.to_container(cfg.memory, resolve=True)
    known: dict[str, Any] = {} if fps is None else {"fps": fps}
    prunes = not isinstance(method, NoCompression)
    return StreamSession(
        model,
        processor,
        cacher=method.cacher,
        pruner=method if prunes else None,
        memory=build_memory(memory),
        **(budget if prunes else {}),
        **known,
        **settings,
    )
