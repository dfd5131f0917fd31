"""Composing configurations as the command line does."""

from __future__ import annotations

import copy
from functools import cache

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def composed(*overrides: str) -> DictConfig:
    """The configuration of `python run.py <overrides>`."""
    return copy.deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))
