"""Third parties' selectors under any allocator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import BuildError, SelectionError, build, check_flag, compress, raise_failed_checks, wrap
from tests.compressors.videos import HostReads, noise, ragged, scene_cut


def longest(features: Tensor, k: int) -> Tensor:
    return features.norm(dim=-1).topk(k).indices


def longest_of_all(features: Tensor, budgets: Tensor) -> Tensor:
    rank = features.norm(dim=-1).argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < budgets.unsqueeze(1)).flatten().nonzero().squeeze(1).flip(0)


@pytest.mark.parametrize("selector", [wrap(longest), wrap(longest_of_all, batched=True)])
@pytest.mark.parametrize("allocator", ["fca", "uniform", "frame_subsample"])
def test_keeps_what_the_callable_chose(selector: Any, allocator: str) -> None:
    x = scene_cut()
    result = compress(x, selector=selector, allocator=allocator, retention=0.2)
    assert result.budgets.tolist() == compress(x, allocator=allocator, retention=0.2).budgets.tolist()
    for t, kept in enumerate(result.mask):
        want = x[t].norm(dim=-1).topk(int(result.budgets[t])).indices.sort().values
        assert kept.nonzero().squeeze(1).tolist() == want.tolist()


def test_sees_tokens_only_and_no_frame_without_budget() -> None:
    seen: list[tuple[int, int]] = []

    def spy(features: Tensor, k: int) -> Tensor:
        assert torch.isfinite(features).all()
        seen.append((features.shape[0], k))
        return torch.arange(features.shape[0])[-k:]

    tokens = ragged(4, 6, 3, [6, 0, 2, 4])
    result = compress(tokens, selector=wrap(spy), allocator="uniform", tokens=5)
    assert seen == [(6, 2), (2, 1), (4, 2)]
    assert tokens.valid is not None
    assert tokens.valid.flatten()[result.keep].all()
    assert result.kept == 5
    with pytest.raises(SelectionError, match="empty places"):
        compress(tokens, selector=wrap(longest_of_all, batched=True), allocator="uniform")


def test_names() -> None:
    assert wrap(longest).name == "longest"
    assert wrap(longest, name="mine").name == "mine"
    assert wrap(torch.nn.Identity()).name == "Identity"
    assert "mine" in build("random", selector=wrap(longest, name="mine"), allocator="fca").describe()["selector"]
    with pytest.raises(BuildError, match="needs an allocator"):
        build("random", selector=wrap(longest))


def test_one_host_read() -> None:
    x = scene_cut()
    compressor = build("random", selector=wrap(longest), allocator="fca")
    assert compressor.host_reads == 1
    with HostReads() as reads:
        compress(x, compressor, validate=False)
    assert reads.count == 1
    with HostReads() as reads:
        compress(x, compressor)
    assert reads.count == 2


SEEN_AT_ONCE: dict[str, tuple[Callable[[Tensor, int], Any], str]] = {
    "list": (lambda x, k: list(range(k)), "returned a list"),
    "mask": (lambda x, k: torch.ones(x.shape[0], dtype=torch.bool), "torch.bool instead of integer"),
    "floats": (lambda x, k: torch.arange(k).float(), "torch.float32 instead of integer"),
    "too few": (lambda x, k: torch.arange(k - 1), r"returned shape \[8\] instead of \[9\].*for frame 0"),
    "two dimensions": (lambda x, k: torch.arange(k).unsqueeze(1), r"shape \[9, 1\]"),
    "elsewhere": (
        lambda x, k: torch.empty(k, dtype=torch.int64, device="meta"),
        "on meta, but the features are on cpu",
    ),
}
SEEN_LATER: dict[str, Callable[[Tensor, int], Tensor]] = {
    "too high": lambda x, k: torch.arange(k) + x.shape[0] - k + 1,
    "negative": lambda x, k: torch.arange(k) - 1,
    "repeated": lambda x, k: torch.arange(k).clamp_min(1),
}


@pytest.mark.parametrize("what", SEEN_AT_ONCE)
@pytest.mark.parametrize("validate", [True, False])
def test_nonsense_seen_at_once(what: str, validate: bool) -> None:
    function, message = SEEN_AT_ONCE[what]
    with pytest.raises(SelectionError, match=message):
        compress(noise(4, 36, 4), selector=wrap(function), allocator="uniform", validate=validate)


@pytest.mark.parametrize("what", SEEN_LATER)
@pytest.mark.parametrize("only", [None, 2])
def test_nonsense_seen_later(what: str, only: int | None) -> None:
    calls: list[int] = []

    def function(features: Tensor, k: int) -> Tensor:
        calls.append(k)
        nonsense = only is None or len(calls) - 1 == only
        return SEEN_LATER[what](features, k) if nonsense else torch.arange(k)

    where = r"frame 0 \(and 3 more frames\)" if only is None else "frame 2:"
    with pytest.raises(SelectionError, match=f"returned repeated, out-of-range or misplaced indices for {where}"):
        compress(noise(4, 36, 4), selector=wrap(function), allocator="uniform")


@pytest.mark.parametrize(
    "function",
    [
        lambda x, budgets: torch.arange(36),  # all in frame 0
        lambda x, budgets: torch.arange(36) * 4 + 1000,
        lambda x, budgets: torch.zeros(36, dtype=torch.int64),
    ],
)
def test_batched_nonsense(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(SelectionError, match="of every frame"):
        compress(noise(4, 36, 4), selector=wrap(function, batched=True), allocator="uniform")


def test_unchecked_nonsense_is_told_by_the_flag() -> None:
    wrong = build("random", selector=wrap(SEEN_LATER["too high"]), allocator="uniform")
    tokens = compress(noise(4, 36, 4), wrong, validate=False).tokens
    assert not bool(check_flag(tokens))
    with pytest.raises(SelectionError, match="frame 0"):
        raise_failed_checks(tokens)
    build("vidcom2")(tokens)
    assert bool(check_flag(tokens)), "the next compression starts afresh"


def test_narrow_integers_are_accepted() -> None:
    def narrow(features: Tensor, k: int) -> Tensor:
        return torch.arange(k, dtype=torch.int32).flip(0)

    assert compress(noise(2, 8, 4), selector=wrap(narrow), allocator="uniform").keep.tolist() == [0, 1, 8, 9]
