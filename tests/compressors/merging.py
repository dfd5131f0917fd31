"""What every merge map must fulfil, whatever made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from compressors import Compression

_READS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "nonzero", "numpy", "cpu")


def video(frames: int, places: int, channels: int = 16, seed: int = 0) -> Tensor:
    """Features `[T, N, C]` with a common offset, so that cosines differ but little."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, places, channels, generator=generator) + 1.0


def matrix(result: Compression) -> Tensor:
    """W `[K, T·N]`, dense."""
    assert result.merge is not None
    size = result.tokens.frames * result.tokens.places
    dense = torch.zeros(result.kept, size, dtype=torch.float64)
    return dense.index_put_((result.merge.target, result.merge.source), result.merge.weight.double(), accumulate=True)


def assert_sound(result: Compression, row_sum: float | None = 1.0) -> None:
    """The promises of `Compression`: sorted, unique, valid, counted, and rows that are what the map says."""
    places = result.tokens.places
    assert (result.keep.diff() > 0).all()
    assert torch.bincount(result.keep // places, minlength=result.tokens.frames).equal(result.budgets)
    assert (result.budgets <= result.tokens.capacity).all()
    if result.merge is None:
        return
    weights = matrix(result)
    if row_sum is not None:
        torch.testing.assert_close(weights.sum(1), torch.full((result.kept,), row_sum, dtype=torch.float64))
    own = weights[torch.arange(result.kept), result.keep]
    assert (own > 0).all(), "a row does not hold the token whose place it takes"
    assert (weights >= 0).all()
    if result.tokens.valid is not None:
        assert (weights[:, ~result.tokens.valid.flatten()] == 0).all(), "an empty place was merged"
    clean = torch.nan_to_num(result.tokens.features).flatten(0, 1).double()
    torch.testing.assert_close(result.features.double(), weights @ clean, atol=1e-5, rtol=1e-5)
    for name, plane in result.tokens.planes.items():
        expected = weights @ plane.flatten(0, 1).double()
        torch.testing.assert_close(result.planes[name].double(), expected, atol=1e-5, rtol=1e-5)


@contextmanager
def count_reads() -> Iterator[list[str]]:
    """The calls that would fetch a tensor's value from a device, by name."""
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in _READS:
            original = getattr(Tensor, name)

            def counted(
                self: Tensor, *args: object, _name: str = name, _original: object = original, **kw: object
            ) -> object:
                calls.append(_name)
                return _original(self, *args, **kw)  # type: ignore[operator]

            patch.setattr(Tensor, name, counted)
        yield calls
