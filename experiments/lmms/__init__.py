"""vidpress as models of lmms-eval: its entry-point group `lmms_eval.models` finds `manifests` here.

`lmms_eval` itself is imported only where it must be: in `models.py`, which it loads, and inside functions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from adapters.errors import LoadError

# What users give to `--model`, and the class in `models.py`.
CLASSES: Mapping[str, str] = {
    "vidpress_micro": "Micro",
    "vidpress_qwen2_vl": "Qwen2VL",
    "vidpress_qwen2_5_vl": "Qwen25VL",
    "vidpress_qwen3_vl": "Qwen3VL",
    "vidpress_llava_onevision": "LlavaOnevision",
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
