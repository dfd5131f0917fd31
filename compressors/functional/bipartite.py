"""Bipartite soft matching (ToMe, arXiv 2210.09461): half of the tokens look for a partner in the other half."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.base import Selection
from compressors.functional.on_device import at_frames
from compressors.functional.ragged import filled_frames, indices_of, ranks, row_of_place
from compressors.functional.similarity import unit_vectors
from compressors.merge_map import MergeMap
from compressors.tokens import VideoTokens

_BLOCK_VALUES = 1 << 23  # float32 values of scratch at a time


def match_within_frames(
    values: Tensor, valid: Tensor | None, budgets: Tensor, bound: int, size: Tensor | None = None
) -> Tensor:
    """Merge the tokens of each frame until its budget is met, pass by pass, all frames at once.

    A pass over a frame of n tokens: those at even ranks (in the order of their places) each pick the most similar
    one at an odd rank, and the `min(n - budget, ⌊n/2⌋)` strongest pairs merge, at the place of the odd one. What merged
    goes on as the mean of all its tokens. Ties go to the lower index.

    Args:
        values: `[T, N, D]`, what is compared, any float dtype.
        valid: `[T, N]` bool, or None.
        budgets: `int64 [T]`, at most the number of a frame's tokens.
        bound: host-side upper bound of `budgets`.
        size: `[T, N]` float32, how many tokens each stands for already; None means one each.

    Returns:
        For each token the flat index `t·N + n` of its group's representative, `int64 [T, N]`; -1 at empty places and in
        frames of budget 0. No host reads. Cost T·N²·D/4 multiplications for the first pass, a quarter of it for each
        further one until the width reaches `bound`.
    """
    frames, places, channels = values.shape
    step = max(1, _BLOCK_VALUES // (places * max(places, channels)))
    present = torch.ones(frames, places, dtype=torch.bool, device=values.device) if valid is None else valid
    mass = torch.ones(frames, places, device=values.device) if size is None else size
    groups = []
    for first in range(0, frames, step):
        part = slice(first, first + step)
        groups.append(_match(values[part].float(), present[part], mass[part], budgets[part], bound))
    group = torch.cat(groups) + torch.arange(0, frames * places, places, device=values.device).unsqueeze(1)
    return torch.where(present & (budgets > 0).unsqueeze(1), group, -1)


def _match(values: Tensor, valid: Tensor, size: Tensor, budgets: Tensor, bound: int) -> Tensor:
    """The place of each token's representative within its frame, `int64 [F, N]`."""
    frames, width, _ = values.shape
    group = torch.arange(width, device=values.device).expand(frames, width)
    count = valid.sum(1)
    place = torch.sort((~valid).byte(), dim=1, stable=True).indices
    # An empty place may hold anything, NaN included.
    values = _rows(torch.where(valid.unsqueeze(2), values, 0.0), place)
    size = size.gather(1, place).clamp_min(1)
    for _ in range((width - 1).bit_length()):
        # The tokens of a frame stand at the first `count` of `width` slots, in the order of their places.
        live = torch.arange(width, device=values.device) < count.unsqueeze(1)
        best, partner = _best_partner(values, live)
        merging = torch.minimum(count - budgets.clamp_min(1), count // 2).clamp_min(0)
        merged = ranks(best) < merging.unsqueeze(1)

        moving = size[:, ::2] * merged
        mass = size[:, 1::2].scatter_add(1, partner, moving)
        # What flows from each even slot (column) into each odd one (row), as shares of the new mean.
        flow = moving.new_zeros(frames, width // 2, (width + 1) // 2).scatter_(
            1, partner.unsqueeze(1), moving.unsqueeze(1)
        )
        arriving = (flow / mass.unsqueeze(2)) @ values[:, ::2]
        values[:, 1::2] = values[:, 1::2] * (size[:, 1::2] / mass).unsqueeze(2) + arriving
        size[:, 1::2] = mass

        target = torch.where(merged, place[:, 1::2].gather(1, partner), place[:, ::2])
        moves = torch.arange(group.shape[1], device=values.device).expand_as(group).scatter(1, place[:, ::2], target)
        group = moves.gather(1, group)

        gone = ~live
        gone[:, ::2] |= merged
        width = max(min(bound, width), (width + 1) // 2)
        order = torch.sort(gone.byte(), dim=1, stable=True).indices[:, :width]
        place, size, values = place.gather(1, order), size.gather(1, order), _rows(values, order)
        count = count - merged.sum(1)
    return group


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """`[F, N, D]` and `int64 [F, W]` -> a new `[F, W, D]`."""
    frames, places, channels = values.shape
    start = torch.arange(0, frames * places, places, device=values.device).unsqueeze(1)
    return values.flatten(0, 1).index_select(0, (index + start).flatten()).view(frames, -1, channels)


def _best_partner(values: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """For the slots at even ranks: the highest cosine with an odd one (-inf where there is none), and which it is."""
    unit = unit_vectors(values)
    cosine = (unit[:, ::2] @ unit[:, 1::2].mT).masked_fill_(~live[:, None, 1::2], float("-inf"))
    best, partner = cosine.max(2)
    return best.masked_fill_(~live[:, ::2], float("-inf")), partner


def match_across_frames(values: Tensor, tokens: VideoTokens, total: int) -> Tensor:
    """Merge tokens into the frame before theirs until `total` are left, pass by pass over the whole video.

    In a pass, frames that still hold tokens are paired (first and second, third and fourth, …); each token of a second
    frame picks the most similar one of the first, and the strongest pairs of the whole video merge, at the place of the
    earlier token. A pass that merges second frames entirely is followed by another one over the frames that are left;
    when one frame is left, its tokens merge among themselves.

    Args:
        values: `[T, N, D]`, what is compared, any float dtype.
        tokens: the video.
        total: K.

    Returns:
        For each token the flat index of its group's representative, `int64 [T, N]`, -1 at empty places. No host reads.
        Cost T·N²·D/2 multiplications for the first pass, half of it for each further one.
    """
    places = tokens.places
    counts = tokens.counts or (places,) * tokens.frames
    frames, path = [t for t, count in enumerate(counts) if count], filled_frames(tokens)
    left = sum(counts)
    group = torch.arange(tokens.frames * places, device=values.device)
    size = torch.ones(tokens.frames, places, device=values.device)
    if len(frames) < tokens.frames:
        values = at_frames(values, frames)
        size = size[: len(frames)]
    if tokens.valid is not None:
        # An empty place weighs nothing, and may hold anything.
        present = at_frames(tokens.valid, frames)
        values, size = torch.where(present.unsqueeze(2), values, 0.0), size * present
    while left > total and len(frames) > 1:
        best, partner = _pair(values, size)
        going = min(left - total, sum(counts[t] for t in frames[1::2]))
        merged = (ranks(best.flatten()) < going).view_as(best)
        left -= going
        into = path[: len(frames) // 2 * 2 : 2].unsqueeze(1) * places + partner
        own = path[1::2].unsqueeze(1) * places + torch.arange(places, device=values.device)
        moves = torch.arange(group.shape[0], device=values.device)
        group = moves.scatter(0, own.flatten(), torch.where(merged, into, own).flatten())[group]
        if left > total:
            values, size = _merge_pairs(values, size, partner)
            frames, path = frames[::2], path[::2]
    group = group.view(tokens.frames, places)
    if left > total:
        last = match_within_frames(values, size > 0, group.new_full((1,), total), total, size).flatten()
        last = last.clamp_min(0) + frames[0] * places
        inside = group - frames[0] * places
        group = last[inside.clamp(0, places - 1)]
    return group if tokens.valid is None else torch.where(tokens.valid, group, -1)


def _pair(values: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """For each token of the second frames, the highest cosine in the first one and whose it is: two `[pairs, N]`."""
    step = max(1, _BLOCK_VALUES // (values.shape[1] * max(values.shape[1], values.shape[2])))
    best, partner = [], []
    for pair in range(0, values.shape[0] // 2, step):
        chosen = slice(2 * pair, min(2 * (pair + step), values.shape[0] // 2 * 2))
        unit = unit_vectors(values[chosen])
        cosine = unit[1::2] @ unit[::2].mT
        cosine.masked_fill_(size[chosen][::2].unsqueeze(1) == 0, float("-inf"))
        highest = cosine.max(2)
        best.append(highest.values.masked_fill_(size[chosen][1::2] == 0, float("-inf")))
        partner.append(highest.indices)
    return torch.cat(best), torch.cat(partner)


def _merge_pairs(values: Tensor, size: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """The first frames with the whole second ones merged in, as means in the values' dtype; and their sizes."""
    pairs = partner.shape[0]
    mass = size[::2].clone()
    mass[:pairs].scatter_add_(1, partner, size[1::2])
    merged = values[::2].clone()
    for pair in range(pairs):
        share = (size[2 * pair] / mass[pair].clamp_min(1)).unsqueeze(1)
        sums = values[2 * pair].float() * share
        moving = size[2 * pair + 1] / mass[pair].clamp_min(1)[partner[pair]]
        merged[pair] = sums.index_add_(0, partner[pair], values[2 * pair + 1].float() * moving.unsqueeze(1))
    return merged, mass


def selection_of(group: Tensor, tokens: VideoTokens, total: int) -> Selection:
    """Groups as a selection: representatives stay, each as the mean of its group.

    Args:
        group: flat index of each token's representative, `int64 [T, N]`, -1 for none.
        tokens: the video.
        total: number of representatives.
    """
    flat = group.flatten()
    size = torch.zeros_like(flat, dtype=torch.float32).index_add_(0, flat.clamp_min(0), (flat >= 0).float())
    keep, merge = rows_of_groups(group, 1 / size[group.clamp_min(0)], tokens, total)
    return Selection(keep, merge=merge)


def rows_of_groups(group: Tensor, weight: Tensor, tokens: VideoTokens, total: int) -> tuple[Tensor, MergeMap]:
    """Groups as kept flat indices, `int64 [K]`, and the merge map.

    Args:
        group: flat index of each token's representative, `int64 [T, N]`, -1 for none.
        weight: float32 `[T, N]`, of each token in its group's row.
        tokens: the video.
        total: number of representatives.
    """
    flat = group.flatten()
    place = torch.arange(flat.shape[0], device=flat.device)
    keep = indices_of(flat == place, total)
    flows = flat >= 0
    row = row_of_place(keep, tokens)[flat.clamp_min(0)].clamp_min(0)
    # An empty place may hold anything, NaN included, so its edge starts at a real token.
    source = torch.where(flows, place, keep[:1])
    return keep, MergeMap(source, row, torch.where(flows, weight.flatten(), 0.0), total)
