"""What every method costs, counted: passes over the features, bytes moved and bytes held.

A method makes as many passes as its parts' docstrings say under `Cost:` (unless one multiplies features with features).
It moves and holds bytes in proportion to the video, by the default `Promise()`; what costs more says so under `Cost:`
and is listed here with these words. So a new method is held to all this without a line here.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch

from compressors import VideoTokens, build, compress, functional, method_names
from compressors.base import Compressor, Part
from compressors.functional import statistics
from tests.compressors.traffic import Traffic
from tests.compressors.videos import noise, supplied

FEW, MANY = 8, 32  # frames
GRID, CHANNELS = (6, 6), 128
PLACES = GRID[0] * GRID[1]
BLOCK = PLACES * CHANNELS  # values of scratch at a time: a frame, so that few frames too are taken in blocks
SCRATCH = ("_BLOCK_VALUES", "_CHUNK_VALUES", "_MATRIX_VALUES")  # what the modules call their own limit


@dataclass(frozen=True)
class Promise:
    """What a component may cost.

    Attributes:
        moved: bytes moved at four times the frames, in those of once.
        held: bytes held at the peak that grow with the video, as a share of its features.
        tables: the same as float32 values per token; an index counts as two.
        blocks: scratch of fixed size, in blocks.
        says: the words in its `Cost:` that announce more than the default.
    """

    moved: float = 4.4
    held: float = 0.0
    tables: int = 24
    blocks: int = 8
    says: str = ""


MORE = {
    "fastvid": Promise(moved=16, tables=80, says="O(T·N·K·C)` in all for one long segment"),
    "prunevid": Promise(held=0.5, tables=40, says="every scene's mean"),
    "sttm": Promise(moved=6, tables=32, blocks=12, says="log2(L²·T·N) cuts"),
    "tome_temporal": Promise(held=0.75, says="three quarters of the features"),
}
METHODS = [name for name in method_names() if build(name).exact]


def parts(component: Part) -> Iterator[Part]:
    """A component and all that it is made of."""
    yield component
    assert is_dataclass(component)
    for field in fields(component):
        value = getattr(component, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Part):
                yield from parts(part)


def promise(compressor: Compressor) -> Promise:
    """The most that any of its parts may cost."""
    each = [Promise(), *(MORE[part.name] for part in parts(compressor) if part.name in MORE)]
    return Promise(*(max(getattr(one, name) for one in each) for name in ("moved", "held", "tables", "blocks")))


def cost(component: Part) -> str:
    """What its docstring says under `Cost:`, on one line."""
    _, _, said = (type(component).__doc__ or "").partition("Cost:")
    return " ".join(said.partition("Attributes:")[0].split())


def passes(compressor: Compressor) -> int | None:
    """How many passes its parts declare, and one more for the check of the input; None if one multiplies features."""
    said = [cost(part) for part in parts(compressor)]
    if any(re.search(r"·[CD]\b", each) for each in said):
        return None
    declared = [re.search(r"(one|two|three|four) pass(es)? over the features", each) for each in said]
    return 1 + sum(("one", "two", "three", "four").index(found[1]) + 1 for found in declared if found)


def video(compressor: Compressor, frames: int) -> VideoTokens:
    """Half of it one scene that hardly changes, half of it noise, with what the method needs and no more.

    In bfloat16, so that a float32 copy of the whole shows.
    """
    x = noise(frames, PLACES, CHANNELS)
    x[: frames // 2] = x[0] + 1 + 0.2 * x[: frames // 2]
    tokens = supplied(VideoTokens(x.bfloat16())).with_(grid=GRID, frame_features=x.mean(1))
    needed = {need.field for need in compressor.requirements}
    names = {"grid", "query", "attention", "keys", "frame_features"} - needed
    return tokens.with_(**dict.fromkeys(names))


def traffic(name: str, frames: int) -> Traffic:
    compressor = build(name)
    tokens = video(compressor, frames)
    compress(tokens.with_(_memo={}), compressor, retention=0.25)  # makes what is made once and kept
    with Traffic(tokens.features) as counted:
        result = compress(tokens.with_(_memo={}), compressor, retention=0.25)
    assert result.kept == round(0.25 * frames * PLACES)
    return counted


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_SCRATCH_LEAST", BLOCK // 4)
    for found in pkgutil.iter_modules(functional.__path__):
        module = importlib.import_module(f"{functional.__name__}.{found.name}")
        for name in SCRATCH:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, BLOCK)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("small_blocks")
def test_cost_grows_with_the_video_and_not_faster(name: str) -> None:
    few, many = traffic(name, FEW), traffic(name, MANY)
    promised = promise(build(name))
    assert many.moved <= promised.moved * few.moved
    per_frame = PLACES * (promised.held * CHANNELS * torch.bfloat16.itemsize + promised.tables * 4)
    assert many.peak - few.peak <= per_frame * (MANY - FEW)
    assert few.peak <= per_frame * FEW + promised.blocks * BLOCK * 4


@pytest.mark.parametrize("name", [name for name in METHODS if passes(build(name)) is not None])
@pytest.mark.usefixtures("small_blocks")
def test_as_many_passes_as_declared(name: str) -> None:
    counted, compressor = traffic(name, FEW), build(name)
    allowed = passes(compressor)
    assert allowed is not None
    size = video(compressor, FEW).features.nbytes
    assert counted.read <= allowed * size


@pytest.mark.parametrize("name", MORE)
def test_what_costs_more_says_so(name: str) -> None:
    made = {part.name: part for method in METHODS for part in parts(build(method))}
    assert MORE[name].says in cost(made[name])
