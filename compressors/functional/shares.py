"""Whole numbers shared out on the host."""

from __future__ import annotations

from collections.abc import Sequence


def evenly(total: int, parts: int) -> list[int]:
    """`total` in near-equal parts, the greater ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def in_proportion(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` in parts proportional to sizes, by largest remainder, ties to the first; all 0 if all sizes are."""
    whole = max(1, sum(sizes))
    shares = [total * size // whole for size in sizes]
    order = sorted(range(len(sizes)), key=lambda part: -(total * sizes[part] % whole))
    for part in order[: total - sum(shares) if sum(sizes) else 0]:
        shares[part] += 1
    return shares
