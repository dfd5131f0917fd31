"""Tiny models of every family, as in the tests of adapters."""

from __future__ import annotations

from tests.adapters.conftest import pytest_generate_tests

__all__ = ["pytest_generate_tests"]
