"""The front door: budgets, companions, and every way of handing over something wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import (
    Budget,
    BudgetError,
    BuildError,
    InputError,
    RequirementError,
    UnknownNameError,
    VideoTokens,
    build,
    check_flag,
    compress,
    finite_flag,
    names,
    raise_failed_checks,
)
from tests.compressors.videos import HostReads, noise, ragged, scene_cut

X = scene_cut(4, 12, 8, cut=3)


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        ({}, 12),
        ({"retention": 0.1}, 5),
        ({"retention": 1e-6}, 1),
        ({"retention": 1}, 48),
        ({"retention": 1 / 32}, 2),  # 1.5 rounds to even
        ({"tokens": 7}, 7),
        ({"tokens": 1000}, 48),
        ({"tokens_per_frame": 2.5}, 10),
        ({"tokens_per_frame": 0.01}, 1),
    ],
)
def test_budgets(budget: dict[str, Any], kept: int) -> None:
    assert compress(X, **budget).kept == kept == Budget(**budget).resolve(4, 12)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"retention": 0}, "outside"),
        ({"retention": 1.01}, "outside"),
        ({"retention": -0.5}, "outside"),
        ({"retention": float("nan")}, "not a finite number"),
        ({"retention": "0.25"}, "not a finite number"),
        ({"retention": True}, "not a finite number"),
        ({"tokens": 0}, "at least 1"),
        ({"tokens": 2.5}, "whole number"),
        ({"tokens_per_frame": 0}, "above 0"),
        ({"tokens_per_frame": float("inf")}, "not a finite number"),
        ({"retention": 0.25, "tokens": 3}, "two budgets given"),
    ],
)
def test_bad_budgets(budget: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        compress(X, **budget)


def with_value(value: float) -> Tensor:
    x = X.clone()
    x[2, 5, 3] = value
    return x


@pytest.mark.parametrize("method", ["vidcom2", "vidcom2_released", "random", "average_pool", "none", "frame_subsample"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("retention", [0.25, 1.0])
def test_not_finite(method: str, value: float, retention: float) -> None:
    with pytest.raises(InputError, match=r"1 NaN or Inf value.* frame 2, token 5"):
        compress(with_value(value), method, retention=retention, grid=(3, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_not_finite_in_any_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="NaN or Inf"):
        compress(with_value(float("nan")).to(dtype))


def test_unchecked_input_passes_and_its_flag_tells() -> None:
    for value, fine in ((float("nan"), False), (0.5, True)):
        tokens = VideoTokens(with_value(value))
        with HostReads() as reads:
            compress(tokens, "vidcom2", validate=False)
            flag = check_flag(tokens)
        assert reads.count == 0
        assert flag.shape == ()
        assert bool(flag) is bool(finite_flag(tokens)) is fine
        if fine:
            raise_failed_checks(tokens)
        else:
            with pytest.raises(InputError, match="frame 2, token 5"):
                raise_failed_checks(tokens)


def test_overflow_is_not_called_nan() -> None:
    with pytest.raises(InputError, match="rescale"):
        compress(X * 1e30)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([[1.0]], "is a list"),
        (None, "is a NoneType"),
        (noise(1, 12, 8)[0], r"shape \[12, 8\].*view\(T, N, C\)"),
        (noise(4, 12, 8).view(4, 3, 4, 8), r"shape \[4, 3, 4, 8\].*flatten\(1, 2\)"),
        (torch.zeros(0, 12, 8), "empty"),
        (torch.zeros(4, 0, 8), "empty"),
        (torch.zeros(4, 12, 0), "empty"),
        (torch.zeros(4, 12, 8, dtype=torch.int64), "floating point"),
    ],
)
def test_bad_video(video: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compress(video)


@pytest.mark.parametrize(
    ("companions", "message"),
    [
        ({"grid": (3, 5)}, r"grid=\(3, 5\).*N=12"),
        ({"grid": (12,)}, "grid"),
        ({"attention": noise(4, 11, 1)[..., 0]}, r"attention has shape \[4, 11\]; expected \[T, N\]"),
        ({"attention": X[0].tolist()}, "attention is a list"),
        ({"attention": torch.full((4, 12), float("nan"))}, "attention holds NaN"),
        ({"keys": noise(4, 12, 5)[0]}, r"keys has shape \[12, 5\]"),
        ({"query": noise(1, 3, 7)[0]}, r"query has shape \[3, 7\]; expected \[Q, C\]"),
        ({"query": torch.full((3, 8), float("inf"))}, "query holds NaN or Inf"),
        ({"timestamps": torch.arange(5)}, r"timestamps has shape \[5\]; expected \[T\]"),
        ({"frame_features": noise(1, 3, 7)[0]}, "frame_features"),
        ({"valid": torch.ones(4, 11, dtype=torch.bool)}, r"valid has \[4, 11\]"),
        ({"valid": torch.ones(4, 12)}, "expected bool"),
        ({"valid": torch.zeros(4, 12, dtype=torch.bool)}, "False everywhere"),
        ({"valid": [[True]]}, "valid has type list"),
        ({"planes": {"deep": noise(4, 11, 2)}}, r"planes\['deep'\] has shape \[4, 11, 2\]"),
    ],
)
def test_bad_companions(companions: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compress(X, **companions)


def test_counts_and_valid_go_together() -> None:
    valid = torch.ones(4, 12, dtype=torch.bool)
    for tokens in (
        VideoTokens(X, valid=valid),
        VideoTokens(X, counts=(12,) * 4),
        VideoTokens(X, valid=valid, counts=(12,)),
    ):
        with pytest.raises(InputError, match="counts"):
            compress(tokens)


def test_valid_mask_equals_video_tokens_with_counts() -> None:
    tokens = ragged(4, 12, 8, [12, 3, 0, 7])
    assert tokens.valid is not None
    result = compress(tokens.features, valid=tokens.valid)
    assert torch.equal(result.keep, compress(tokens).keep)
    assert result.kept == round(0.25 * 22)
    assert int(result.budgets[2]) == 0


def test_unknown_names_and_parameters() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'vidcom'.*Did you mean 'vidcom2'"):
        compress(X, "vidcom")
    with pytest.raises(UnknownNameError, match=r"unknown allocator 'fcb'.*Did you mean 'fca'"):
        compress(X, allocator="fcb")
    with pytest.raises(BuildError, match="no part has a parameter 'temprature'"):
        compress(X, temprature=0.1)
    assert isinstance(UnknownNameError("method", "x", []), LookupError)
    for error in (InputError, BudgetError, BuildError, RequirementError):
        assert issubclass(error, ValueError)


def test_missing_requirement_names_the_part_the_need_and_the_way_out() -> None:
    with pytest.raises(RequirementError, match=r"selector one_per_block needs Grid\(\).*grid=…"):
        compress(X, "one_per_block")
    with pytest.raises(RequirementError, match="selector one_per_block and merger average_pool"):
        compress(X, "average_pool", retention=1.0)


def test_results_do_not_depend_on_who_builds() -> None:
    want = compress(X, "vidcom2", allocator={"name": "fca", "temperature": 0.05}).keep
    assert torch.equal(compress(X, build("vidcom2", temperature=0.05)).keep, want)
    assert torch.equal(compress(VideoTokens(X), "vidcom2", temperature=0.05, validate=False).keep, want)


def test_history_passes_through_stateless_methods() -> None:
    marker = object()
    assert compress(X, "vidcom2", history=marker).history is marker
    assert compress(X, "vidcom2", history=marker, retention=1.0).history is marker


def test_compression_reports() -> None:
    result = compress(X, "vidcom2", retention=0.25)
    assert result.retention == 0.25
    assert not result.identity
    assert result.features is result.features, "gathered once"
    assert "vidcom2" in names("scorer")


def test_a_third_partys_crash_on_nan_is_reported_as_nan() -> None:
    from compressors import wrap

    def picky(features: Tensor, k: int) -> Tensor:
        if features.isnan().any():
            raise RuntimeError("svd did not converge")
        return torch.arange(k)

    with pytest.raises(InputError, match="NaN"):
        compress(with_value(float("nan")), selector=wrap(picky), allocator="uniform")
    assert compress(X, selector=wrap(picky), allocator="uniform").budgets.tolist() == [3] * 4
