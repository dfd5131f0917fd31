"""Presets, registry and composition: what fits together, and what the errors say when it does not."""

from __future__ import annotations

import inspect
import pickle
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import (
    Allocator,
    Attention,
    BuildError,
    Composition,
    FrameScorer,
    Method,
    Requirement,
    Selector,
    TokenScorer,
    UnknownNameError,
    VideoTokens,
    add_method,
    build,
    compress,
    lookup,
    make,
    method,
    method_names,
    methods,
    names,
    register,
    registry,
    rows,
)
from compressors.allocators import FrameCompressionAdjustment, FrameUniqueness, Uniform
from compressors.budget import FrameBudgets
from compressors.scorers import VidCom2Scorer
from compressors.selectors import TokenSaliency
from tests.compressors.videos import scene_cut


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Additions of a test are forgotten after it."""
    monkeypatch.setattr(registry, "_entries", {kind: dict(known) for kind, known in registry._entries.items()})
    module = sys.modules["compressors.methods"]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "_METHODS", dict(vars(module)["_METHODS"]))


def test_presets() -> None:
    first = ["none", "vidcom2", "vidcom2_released", "vidcom2_paper"]
    assert method_names()[: len(first)] == first
    assert {"random", "stride"} < set(method_names())
    assert list(methods()) == method_names()
    assert build("vidcom2").parts == {
        "scorer": VidCom2Scorer(),
        "allocator": FrameCompressionAdjustment(),
        "selector": TokenSaliency(),
    }
    released = build("vidcom2_released")
    assert not released.exact
    assert released.host_reads == 1
    assert build("random").parts.keys() == {"selector"}
    assert build("average_pool").merges


def test_one_row_per_preset_asked_from_the_built_compressor() -> None:
    table = {row.name: row for row in rows()}
    assert list(table) == method_names()
    assert table["vidcom2"].exact
    assert table["vidcom2"].host_reads == 0
    assert table["vidcom2"].source == "VidCom2, arXiv 2505.14454"
    assert table["vidcom2_released"].host_reads == 1
    assert [repr(need) for need in table["average_pool"].needs] == ["Grid()"]
    assert table["average_pool"].merges
    assert table["stride"].parts == {"selector": "stride"}


def test_parts_by_name_mapping_and_instance() -> None:
    for allocator in ("uniform", {"name": "uniform"}, Uniform()):
        assert build("vidcom2", allocator=allocator).parts["allocator"] == Uniform()
    assert "allocator" not in build("vidcom2", allocator="none").parts
    assert build("vidcom2", temperature=0.5).parts["allocator"] == FrameCompressionAdjustment(temperature=0.5)
    assert build("random", seed=3).parts["selector"].seed == 3
    for frame_scorer in ("frame_uniqueness", {"name": "frame_uniqueness"}, FrameUniqueness()):
        assert FrameCompressionAdjustment(frame_scorer) == FrameCompressionAdjustment()


def test_title_and_description() -> None:
    assert build("vidcom2").title == "vidcom2"
    assert Composition(selector=TokenSaliency(), scorer=VidCom2Scorer()).title == "vidcom2+token_saliency"
    assert build("vidcom2").describe()["allocator"].startswith("FrameCompressionAdjustment(frame_scorer=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bogus": 1}, r"no part has a parameter 'bogus'.*allocator fca: .*temperature"),
        ({"scorer": "none"}, "token_saliency ranks tokens by score"),
        ({"selector": "one_per_block", "allocator": "none"}, "one_per_block works frame by frame"),
        ({"merger": "average_pool"}, "merges what selector one_per_block picks"),
        ({"selector": "none"}, "no selector"),
        ({"allocator": {"temperature": 1}}, "needs 'name'"),
        ({"allocator": {"name": "fca", "heat": 1}}, "no parameter heat; its parameters: frame_scorer"),
        ({"allocator": TokenSaliency()}, "is not a Allocator"),
        ({"selector": "one_per_block", "choice": "score", "scorer": "none"}, "ranks tokens by score"),
    ],
)
def test_parts_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build("vidcom2", **arguments)


def test_parameters_and_parts_of_finished_things() -> None:
    with pytest.raises(BuildError, match="takes no allocator, temperature"):
        build(build("vidcom2"), allocator="uniform", temperature=1)
    with pytest.raises(BuildError, match="does not split into parts"):
        build("none", allocator="uniform")
    with pytest.raises(BuildError, match="no parameter seed"):
        build("none", seed=1)
    with pytest.raises(BuildError, match="unknown parts"):
        Method("x", "", parts={"scorr": {"name": "vidcom2"}})
    with pytest.raises(BuildError, match="both parts and a compressor"):
        Method("x", "", parts={"selector": {"name": "stride"}}, compressor={"name": "none"})


def test_parameter_of_two_parts(clean_registry: None) -> None:
    @register("allocator", "test_seeded")
    @dataclass(frozen=True)
    class Seeded(Uniform):
        seed: int = 0

    with pytest.raises(BuildError, match=r"'seed' belongs to allocator and selector: write allocator=\{"):
        build("random", allocator="test_seeded", seed=1)
    assert build("random", allocator={"name": "test_seeded", "seed": 1}).parts["allocator"] == Seeded(seed=1)


def test_two_parts_with_different_needs_of_one_kind(clean_registry: None) -> None:
    @register("scorer", "test_attention")
    @dataclass(frozen=True)
    class Attended(TokenScorer):
        layer: int = -2

        @property
        def requirements(self) -> frozenset[Requirement]:
            return frozenset({Attention(self.layer)})

        def __call__(self, tokens: VideoTokens) -> Tensor:
            assert tokens.attention is not None
            return tokens.attention.float()

    @register("frame_scorer", "test_attention")
    @dataclass(frozen=True)
    class AttendedFrames(FrameScorer):
        @property
        def requirements(self) -> frozenset[Requirement]:
            return frozenset({Attention(-1)})

        def __call__(self, tokens: VideoTokens) -> Tensor:
            return Attended(-1)(tokens).mean(1)

    fca = {"name": "fca", "frame_scorer": "test_attention"}
    with pytest.raises(BuildError, match="two parts need different attention"):
        build("vidcom2", scorer="test_attention", allocator=fca)
    built = build("vidcom2", scorer={"name": "test_attention", "layer": -1}, allocator=fca)
    assert built.requirements == {Attention(-1)}
    assert built.who_needs(Attention(-1)) == "scorer test_attention and allocator fca"


def test_registry_refuses_doubles_strangers_and_unknown_kinds(clean_registry: None) -> None:
    with pytest.raises(BuildError, match=r"already registered by compressors\.allocators\.uniform\.Uniform"):
        register("allocator", "uniform")(FrameCompressionAdjustment)
    with pytest.raises(BuildError, match="not a subclass of Allocator"):
        register("allocator", "new")(TokenSaliency)
    with pytest.raises(UnknownNameError, match=r"unknown kind of part 'allocators'.*'allocator'"):
        register("allocators", "new")
    with pytest.raises(UnknownNameError, match="Did you mean 'token_saliency'"):
        lookup("selector", "token_salience")
    assert register("allocator", "uniform")(Uniform) is Uniform, "importing a module twice is fine"
    assert set(names("selector")) >= {"token_saliency", "random", "stride", "one_per_block"}


def test_presets_of_ones_own(clean_registry: None) -> None:
    mine = Method("mine", "random frames", parts={"allocator": {"name": "uniform"}, "selector": {"name": "random"}})
    assert add_method(mine) is add_method(mine)
    assert compress(scene_cut(), "mine").kept == 72
    with pytest.raises(BuildError, match="exists already"):
        add_method(Method("mine", "another"))
    with pytest.raises(UnknownNameError, match="Did you mean 'mine'"):
        method("mime")


@dataclass(frozen=True)
class FirstTokens(Selector):
    """A plugin's selector."""

    needs_allocator = True

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        assert budgets.per_frame is not None
        chosen = torch.arange(tokens.places) < budgets.per_frame.unsqueeze(1)
        return chosen.flatten().nonzero().squeeze(1)


FIRST = Method(
    "first", "the first tokens of each frame", parts={"allocator": {"name": "uniform"}, "selector": {"name": "first"}}
)


def test_plugins(clean_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    here = __name__
    points = {
        "vidpress.selectors": [
            EntryPoint("first", f"{here}:FirstTokens", "vidpress.selectors"),
            EntryPoint("broken", "no_such_module:Thing", "vidpress.selectors"),
            EntryPoint("stranger", f"{here}:Uniform", "vidpress.selectors"),
        ],
        "vidpress.methods": [
            EntryPoint("first", f"{here}:FIRST", "vidpress.methods"),
            EntryPoint("odd", f"{here}:Uniform", "vidpress.methods"),
        ],
    }
    monkeypatch.setattr(registry, "entry_points", lambda group: points.get(group, []))
    registry.plugins.cache_clear()
    try:
        assert "first" in names("selector")
        assert method_names()[-2:] == ["first", "odd"]
        assert compress(scene_cut(), "first").keep[:9].tolist() == list(range(9))
        want = compress(scene_cut(), "vidcom2").budgets
        assert compress(scene_cut(), "first", allocator="fca").budgets.tolist() == want.tolist()
        with pytest.raises(BuildError, match=r"plugin 'broken' \(no_such_module:Thing\) could not be imported"):
            build("vidcom2", selector="broken")
        with pytest.raises(BuildError, match="not a subclass of Selector"):
            build("vidcom2", selector="stranger")
        with pytest.raises(BuildError, match="must be a Method"):
            method("odd")
    finally:
        registry.plugins.cache_clear()


def test_make() -> None:
    assert make("allocator", "uniform") == Uniform()
    with pytest.raises(BuildError, match="write a name, or a mapping"):
        make("allocator", 3)  # type: ignore[arg-type]
    assert issubclass(lookup("allocator", "fca"), Allocator)


def test_inexact_allocators_must_say_what_they_do() -> None:
    @dataclass(frozen=True)
    class Careless(Allocator):
        @property
        def exact(self) -> bool:
            return False

        def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
            return Uniform()(tokens, scores, total)

    with pytest.raises(NotImplementedError, match="Careless"):
        compress(scene_cut(), allocator=Careless())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": "warm"}, "temperature='warm' must be a number"),
        ({"temperature": 0}, "temperature=0 must be above 0"),
        ({"min_tokens": 1.5}, "min_tokens=1.5 must be a whole number"),
        ({"rounding": "up"}, "rounding='up' is unknown; known: exact, nearest, ceil"),
        ({"selector": len}, "selector=wrap"),
    ],
)
def test_values_that_no_parameter_takes(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build("vidcom2", **parameters)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("vidcom2", {"scorer": {"name": "vidcom2", "fraction": 3.0}}, "fraction=3.0 is outside"),
        ("vidcom2", {"scorer": {"name": "vidcom2", "window": 0}}, "window=0 must be at least 1"),
        ("vidcom2", {"min_tokens": -1}, "min_tokens=-1 must be 0 or more"),
        ("vcast", {"allocator": {"name": "vcast", "temperature": 0.0}}, "temperature=0.0 must be above 0"),
        ("vcast", {"min_tokens": -1}, "min_tokens=-1 must be 0 or more"),
    ],
)
def test_values_out_of_range_are_refused_when_built(method: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build(method, **settings)


def test_errors_travel_between_processes() -> None:
    with pytest.raises(UnknownNameError) as raised:
        build("vidcom3")
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is UnknownNameError
    assert str(again) == str(raised.value)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in registry.KINDS for name in registry._entries[kind]]
)
def test_every_component_states_its_cost(kind: str, name: str) -> None:
    lines = (inspect.getdoc(lookup(kind, name)) or "").splitlines()
    assert any(line.startswith("Cost: ") for line in lines), f"{lookup(kind, name)} needs a line 'Cost: …'"
