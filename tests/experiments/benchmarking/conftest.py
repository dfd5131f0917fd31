"""Tiny models of every family, as in the tests of adapters."""

from __future__ import annotations

from tests.adapters.conftest import family

__all__ = ["family"]
