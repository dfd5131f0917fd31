"""The example plugin says the same in YAML as in Python; run where it is installed, by test_plugin.py."""

from __future__ import annotations

from omegaconf import OmegaConf

from compressors import build
from compressors.registry import make
from experiments.assembly import compressor_from
from experiments.presets import plain
from tests.conf.composing import composed

cfg = composed("compressor=centre_first")
assert compressor_from(cfg) == build("centre_first")
assert OmegaConf.to_container(cfg.selector) == plain(make("selector", "centre_first"))
