"""Golden vectors: what released implementations return for inputs that `inputs.py` remakes bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden import inputs

FOLDER = Path(__file__).parent

Case = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """One case: the inputs by name, the release's parameters, and the arrays it returned."""

    name: str
    inputs: dict[str, Tensor]
    params: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tolerances: dict[str, float]

    def assert_equal(self, array: str, found: Tensor) -> None:
        """Integers equal one by one; floats within the case's tolerance of the largest expected magnitude."""
        expected = self.arrays[array]
        values = found.detach().cpu().numpy()
        assert values.shape == expected.shape, f"{self.name}: {array} has shape {values.shape}, not {expected.shape}"
        if array in self.tolerances:
            worst = np.abs(values - expected).max() / np.abs(expected).max()
            assert worst <= self.tolerances[array], f"{self.name}: {array} is off by {worst:.2e}"
        else:
            assert (values == expected).all(), f"{self.name}: {array} differs in {(values != expected).sum()} places"


def names(prefix: str) -> list[str]:
    """Cases whose names start so."""
    return [case["name"] for case in _manifest() if case["name"].startswith(prefix)]


def load(name: str) -> Release:
    """One case, its inputs checked against their digests."""
    entry = next(case for case in _manifest() if case["name"] == name)
    made = {}
    for source in entry["inputs"]:
        made[source["name"]] = _made(source["function"], json.dumps(source["args"]), source["sha256"])
    with np.load(FOLDER / entry["file"]) as stored:
        arrays = {key: stored[key] for key in stored.files}
    tolerances = {key: spec["tolerance"] for key, spec in entry["arrays"].items() if "tolerance" in spec}
    return Release(name, made, entry["params"], arrays, tolerances)


def cases(family: str) -> list[Case]:
    """The cases of one method's release, as `manifest.json` describes them."""
    return [case for case in _manifest() if case["family"] == family]


def features(case: Case) -> Tensor:
    """The case's features `[T, N, C]` float32."""
    (spec,) = case["inputs"]
    return _made(spec["function"], json.dumps(spec["args"]), spec["sha256"])


def expected(case: Case) -> dict[str, Tensor]:
    """The case's arrays; integer ones as int64."""
    with np.load(FOLDER / case["file"]) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in tensors.items()}


@cache
def _made(function: str, args: str, sha256: str) -> Tensor:
    array = getattr(inputs, function)(**json.loads(args))
    assert inputs.digest(array) == sha256, "this machine makes other inputs than those of the golden vectors"
    return torch.from_numpy(array)


def weights(case: Case) -> dict[str, Tensor]:
    """A tower's weights, by the names of the library."""
    (spec,) = [source for source in case["inputs"] if source["name"] == "weights"]
    made = getattr(inputs, spec["function"])(**spec["args"])
    digests = {name: inputs.digest(array)[:16] for name, array in made.items()}
    assert digests == spec["sha256"], "this machine makes other weights than those of the golden vectors"
    return {name: torch.from_numpy(array) for name, array in made.items()}


def pixels(case: Case) -> Tensor:
    """A video's pixels `[F, 3, H, W]`."""
    (spec,) = [source for source in case["inputs"] if source["name"] == "pixels"]
    return _made(spec["function"], json.dumps(spec["args"]), spec["sha256"])


@cache
def _manifest() -> list[dict[str, Any]]:
    return json.loads((FOLDER / "manifest.json").read_text())["cases"]
