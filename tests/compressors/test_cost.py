"""VidCom2's own cost, counted: passes over the features, bytes moved and bytes held, linear in their number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compressors import build, compress
from compressors.functional import statistics
from tests.compressors.traffic import Traffic
from tests.compressors.videos import noise

DTYPES = [torch.float32, torch.bfloat16]
PASSES = 3  # channel statistics, norms and centres, products with the centres
# What operations read and write, in float32 values per value of the features; what changes in place counts once.
# float32: x for the statistics; x, masked x; masked x for its norm and again for the sums; x for the products.
# bfloat16: half a value where x itself is read, and a float32 copy of each block in the second and the third pass.
MOVED = {torch.float32: 1 + 2 + 1 + 1 + 1, torch.bfloat16: 0.5 + (1.5 + 1 + 1 + 1) + (1.5 + 1)}


def traffic(x: Tensor) -> Traffic:
    compressor = build("vidcom2")
    compress(x, compressor, retention=0.25)  # what is made once and kept, such as constants, is made here
    with Traffic(x) as counted:
        result = compress(x, compressor, retention=0.25)
    assert result.kept == round(0.25 * x.shape[0] * x.shape[1])
    return counted


@pytest.mark.parametrize("products", [True, False], ids=["products", "no products"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(32, 196, 448), (64, 169, 448), (384, 180, 112)], ids=str)
def test_passes_and_memory(
    shape: tuple[int, int, int], dtype: torch.dtype, products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer channels than a model has, and the least scratch that much smaller: blocks are cut as at full width."""
    monkeypatch.setattr(statistics, "_SCRATCH_LEAST", 1 << 12)
    if not products:
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    x = noise(*shape).to(dtype)
    counted = traffic(x)
    tables = 4 * shape[0] * shape[1]  # a float32 for every token
    # Without products, each of the two centres costs a multiplication, and float32 features are read for each.
    assert counted.read <= (PASSES + (not products and dtype == torch.float32)) * x.nbytes
    moved = MOVED[dtype] + (0 if products and torch.backends.mkl.is_available() else 5)
    assert counted.moved <= 1.05 * moved * 4 * x.numel() + 160 * tables
    assert counted.peak <= 0.045 * x.nbytes + 12 * tables


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        (32, 196, 3584),
        pytest.param((64, 169, 3584), marks=pytest.mark.slow),
        pytest.param((384, 180, 3584), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_memory_at_full_width(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """The promise as stated: no more than 5 % of the features beyond input and output."""
    x = noise(*shape).to(dtype)
    assert traffic(x).peak <= 0.05 * x.nbytes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operations_grow_with_the_blocks_and_not_faster(dtype: torch.dtype) -> None:
    few, many = (traffic(noise(frames, 49, 512).to(dtype)) for frames in (40, 160))
    assert many.read == pytest.approx(4 * few.read, rel=0.01)
    assert many.moved <= 4.1 * few.moved
    assert many.operations <= 4 * few.operations


@pytest.mark.parametrize(
    "mistake",
    [lambda x: x + 0, lambda x: x.float().sum(), lambda x: x.clone()],
    ids=["another pass", "float copy", "copy"],
)
def test_the_counter_counts(mistake: Callable[[Tensor], Tensor]) -> None:
    x = noise(4, 9, 8).bfloat16()
    with Traffic(x) as counted:
        x.view(-1).expand(3, -1).mT.unbind()
    assert counted.operations == counted.read == counted.moved == counted.peak == 0
    with Traffic(x) as counted:
        kept = mistake(x[1:])
    assert counted.read == x[1:].nbytes
    assert counted.peak >= x[1:].nbytes
    assert counted.moved >= 2 * x[1:].nbytes
    del kept
