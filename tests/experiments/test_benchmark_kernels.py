"""The GPU benchmark, as far as a machine without one can go."""

from __future__ import annotations

import pytest
import torch

from experiments import benchmark_kernels
from tests.compressors.videos import noise


def test_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="benchmark_compressor"):
        benchmark_kernels.main([])


def test_the_plain_form_is_what_compress_does() -> None:
    x = noise(4, 9, 16)
    result = benchmark_kernels.forms(x, "vidcom2")["plain"]()
    assert result.kept == round(0.25 * 36)
