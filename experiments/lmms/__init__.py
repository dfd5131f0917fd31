"""vidpress as models of lmms-eval: its entry-point group `lmms_eval.models` finds `manifests` here.

`lmms_eval` itself is imported only where it must be: in `models.py`, which it loads, and inside functions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from adapters import families
from adapters.errors import LoadError

# What users give to `--model`, and the family it stands for; the embedded model is a small Qwen2-VL.
_OWN_NAMES = {"qwen2vl": "qwen2_vl", "qwen2_5vl": "qwen2_5_vl", "qwen3vl": "qwen3_vl"}
FAMILY: Mapping[str, str] = {
    "vidpress_micro": "qwen2vl",
    **{f"vidpress_{_OWN_NAMES.get(family, family)}": family for family in families()},
}
# And the class in `models.py`.
CLASSES: Mapping[str, str] = {
    name: "Micro" if name == "vidpress_micro" else type(families()[family]).__name__ for name, family in FAMILY.items()
}


def manifests() -> list[Any]:
    """What lmms-eval is told about our models; they take chat messages, so there is no `simple` class."""
    require()
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest(model_id=name, chat_class_path=f"experiments.lmms.models.{cls}") for name, cls in CLASSES.items()
    ]


def require() -> None:
    """Nothing, where lmms-eval is installed.

    Raises:
        LoadError: it is not.
    """
    if importlib.util.find_spec("lmms_eval") is None:
        raise LoadError("lmms-eval is not installed: pip install 'vidpress[eval]' (docs/lmms_eval.md).")
