"""Fixtures that run a test for every family, layout and precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from adapters.support import Feature
from tests.adapters import tiny
from tests.adapters.given import GivenMerge
from tests.adapters.harness import PRECISIONS, Precision


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`family`: every one, those that are not core marked slow.

    In modules marked `quick` none is slow; in modules marked `core` there are only the core ones and those it names.
    """
    chosen = any("family" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "family" in metafunc.fixturenames and not chosen:
        core, quick = (metafunc.definition.get_closest_marker(name) for name in ("core", "quick"))
        metafunc.parametrize("family", tiny.params(core.args if core else None, slow=quick is None))


def asked(request: pytest.FixtureRequest) -> Iterator[Feature]:
    """The features that a test's markers and parameters ask for."""
    for mark in request.node.iter_markers("needs"):
        yield from mark.args
    params = request.node.callspec.params
    if params.get("cache") in ("static", {"cache_implementation": "static"}):
        yield "static cache"
    if (params.get("options") or {}).get("num_beams"):
        yield "beams"
    if params.get("positions") == "contiguous":
        yield "contiguous positions"
    if params.get("compressor") is GivenMerge:
        yield "merging"
    if len(tiny.LAYOUTS.get(params.get("layout") or params.get("name"), ())) > 1:
        yield "batch"


@pytest.fixture(autouse=True)
def _what_the_family_can(request: pytest.FixtureRequest) -> None:
    """Skip what the family refuses (`test_support.py` tests that it is refused) and what fails without a press."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    family = params.get("family")
    if not isinstance(family, tiny.Family):
        return
    if reason := family.skips.get(request.node.originalname):
        pytest.skip(reason)
    if reason := family.unfit(tiny.LAYOUTS.get(params.get("layout") or params.get("name"), ())):
        pytest.skip(reason)
    for feature in asked(request):
        if reason := family.known.support().get(feature):
            pytest.skip(f"{feature}: {reason}")


@pytest.fixture(params=tiny.LAYOUTS)
def layout(request: pytest.FixtureRequest) -> tiny.Rows:
    return tiny.LAYOUTS[request.param]


@pytest.fixture(params=PRECISIONS, ids=str)
def precision(request: pytest.FixtureRequest) -> Precision:
    family = request.node.callspec.params.get("family")
    least = family.tolerance if isinstance(family, tiny.Family) else 0.0
    return replace(request.param, tolerance=max(request.param.tolerance, least))
