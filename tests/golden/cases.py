"""Access to the golden vectors of this folder."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden import inputs

_FOLDER = Path(__file__).parent

Case = dict[str, Any]


def cases(family: str) -> list[Case]:
    """The cases of one method's release, as `manifest.json` describes them."""
    manifest = json.loads((_FOLDER / "manifest.json").read_text())
    return [case for case in manifest["cases"] if case["family"] == family]


@cache
def _made(function: str, args: str, sha256: str) -> torch.Tensor:
    array = getattr(inputs, function)(**json.loads(args))
    assert inputs.digest(array) == sha256, "this machine makes other inputs than those of the golden vectors"
    return torch.from_numpy(array)


def features(case: Case) -> torch.Tensor:
    """The case's features `[T, N, C]` float32."""
    (spec,) = case["inputs"]
    return _made(spec["function"], json.dumps(spec["args"]), spec["sha256"])


def expected(case: Case) -> dict[str, torch.Tensor]:
    """The case's arrays; integer ones as int64."""
    with np.load(_FOLDER / case["file"]) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in tensors.items()}
