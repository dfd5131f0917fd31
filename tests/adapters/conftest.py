"""Fixtures that run a test for every family, layout and precision."""

from __future__ import annotations

import pytest

from tests.adapters import tiny
from tests.adapters.harness import PRECISIONS, Precision


@pytest.fixture(params=tiny.params())
def family(request: pytest.FixtureRequest) -> tiny.Family:
    return request.param


@pytest.fixture(params=tiny.LAYOUTS)
def layout(request: pytest.FixtureRequest) -> tiny.Rows:
    return tiny.LAYOUTS[request.param]


@pytest.fixture(params=PRECISIONS, ids=str)
def precision(request: pytest.FixtureRequest) -> Precision:
    return request.param
