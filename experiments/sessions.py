"""From a composed configuration to a streaming session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from adapters.streaming import StreamSession, build_memory
from compressors.base import Compressor
from compressors.no_compression import NoCompression
from compressors.registry import make


def session_from(
    cfg: DictConfig, model: Any, processor: Any, pruner: Compressor, budget: Mapping[str, Any], **settings: Any
) -> StreamSession:
    """A session with the memory and the cacher that `memory` and `cacher` describe.

    Args:
        cfg: the configuration; `memory` is not none.
        model, processor: of any family that sessions know.
        pruner: what drops tokens of every chunk; the method `none` drops nothing, whatever the budget.
        budget: of the pruner, as `press` takes it.
        **settings: further ones of `StreamSession`, such as its form.

    Raises:
        VidpressError: something that the model or a session cannot do.
    """
    memory: Any = OmegaConf.to_container(cfg.memory, resolve=True)
    cacher: Any = OmegaConf.to_container(cfg.cacher, resolve=True)
    prunes = not isinstance(pruner, NoCompression)
    return StreamSession(
        model,
        processor,
        cacher=None if cacher["name"] == "none" else make("cacher", cacher),
        pruner=pruner if prunes else None,
        memory=build_memory(memory),
        **(budget if prunes else {}),
        **settings,
    )
