"""Composing configurations as the command line does."""

from __future__ import annotations

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def composed(*overrides: str) -> DictConfig:
    """The configuration of `python run.py <overrides>`."""
    with initialize_config_module("conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))
