"""What memories keep and what a question sees of them, against truth written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.streaming.memory import window
from adapters.streaming.rotation import Rotation
from tests.adapters import tiny
from tests.adapters.harness import EAGER, close
from tests.adapters.streaming.hand import Hand, Tokens
from tests.adapters.streaming.streams import QUESTION, fed, frames, model_and_processor, session

pytestmark = pytest.mark.core

ONE_OF_EACH = [tiny.FAMILIES[name] for name in ("qwen2_vl", "qwen3_vl", "llava_onevision")]
families = pytest.mark.parametrize("family", ONE_OF_EACH, ids=str)


def test_moved_keys_are_keys_computed_there(family: tiny.Family) -> None:
    """Per section and axis, interleaved or not, on every axis by another distance."""
    model, processor = model_and_processor(family)
    hand = Hand(family, model, processor)
    rotation = Rotation(model.get_decoder(), hand.axes)
    tokens = hand.text(range(10, 15), [0] * hand.axes)
    hand.run(tokens, [[], []])
    positions = tokens.positions * 3 + 1
    for by in ((7, -2, 11), (-1, 0, 400)):
        there = positions + torch.tensor(by[: hand.axes]).unsqueeze(1)
        want = hand.roped(tokens.keys[1], there)
        got = rotation.move(hand.roped(tokens.keys[1], positions), by[: hand.axes])
        torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)
    back = rotation.undo(hand.roped(tokens.keys[1], positions), positions)
    torch.testing.assert_close(back, tokens.keys[1], atol=1e-5, rtol=1e-4)


def streamed(hand: Hand, shown: Tensor, keep: int, consecutive: bool) -> tuple[Tokens, list[Tokens], tuple[int, int]]:
    """Feed group by group with a window of `keep` groups: the opening, every group, and the grid."""
    opening = hand.opening()
    hand.run(opening, [[], []])
    first = len(opening)
    groups, grid = hand.groups(shown, first)
    for i, group in enumerate(groups):
        inside = groups[max(0, i - keep) : i]
        # Where the window begins: the group itself has no part in it yet.
        gap = _gap(hand, (inside or groups[i : i + 1])[0], first, consecutive)
        seen = [(opening, first, gap), *((g, len(g), [0] * hand.axes) for g in inside)]
        hand.run(group, [seen, seen])
    return opening, groups, grid


def _gap(hand: Hand, tokens: Tokens, first: int, consecutive: bool) -> list[int]:
    """How far the opening moves up to stand right before these tokens."""
    start = int(tokens.positions[0, 0]) - first if consecutive else 0
    return [start] * hand.axes if hand.axes == 1 or hand.family.timestamps else [start, 0, 0]


def end_of(hand: Hand, groups: Sequence[Tokens], first: int, grid: tuple[int, int]) -> list[int]:
    """Where text begins behind groups laid out from `first` on."""
    if hand.axes == 1 or hand.family.timestamps:
        spans = [int(g.positions[0, -1] - g.positions[0, 0]) + 1 for g in groups]
        return [first + sum(spans)] * hand.axes
    return [first + max(grid)] * 3


@families
@pytest.mark.parametrize("numbering", ["consecutive", "original"])
def test_window(family: tiny.Family, numbering: str) -> None:
    """Groups beyond the window are gone; the sink stands right before it, or where it was."""
    model, processor = model_and_processor(family)
    hand = Hand(family, model, processor)
    shown, keep = frames(7 * hand.group), 3
    consecutive = numbering == "consecutive"
    opening, groups, grid = streamed(hand, shown, keep, consecutive)
    first = len(opening)
    gap = _gap(hand, groups[-keep], first, consecutive)
    at = end_of(hand, groups[-keep:] if consecutive else groups, first, grid)
    question = hand.question([a + g for a, g in zip(at, gap, strict=True)])
    seen = [(opening, first, gap), *((g, len(g), [0] * hand.axes) for g in groups[-keep:])]
    want, _ = hand.run(question, [seen, seen])

    size = len(groups[0])
    memory = {"name": "window", "recent": keep * size + size // 2, "positions": numbering}
    stream = fed(session(model, processor, memory=memory, chunk=hand.group), shown, (len(shown),))
    assert stream.status.held == first + keep * size
    close(stream.ask(QUESTION, logits=True).logits[0], want, EAGER)


@families
def test_a_window_that_moves_back_to_low_positions_changes_nothing(
    family: tiny.Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = model_and_processor(family)
    shown, settings = frames(20), {"memory": {"name": "window", "recent": 60}, "chunk": 2}
    want = fed(session(model, processor, **settings), shown, (20,)).ask(QUESTION, logits=True).logits
    monkeypatch.setattr(window, "FARTHEST", 12)
    moved = fed(session(model, processor, **settings), shown, (20,))
    assert max(moved._store.tail) <= 80
    close(moved.ask(QUESTION, logits=True).logits, want, EAGER)


@families
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_retrieval(family: tiny.Family, similarity: str) -> None:
    """Each layer's best blocks by its mean query, the last cut short, behind the sink in order of time."""
    model, processor = model_and_processor(family)
    hand = Hand(family, model, processor)
    shown, keep = frames(8 * hand.group), 2
    opening, groups, grid = streamed(hand, shown, keep, consecutive=True)
    size, first = len(groups[0]), len(opening)
    budget = 3 * size + 2
    memory = {"name": "retrieval", "window": keep * size, "budget": budget, "similarity": similarity}
    stream = fed(session(model, processor, memory=memory, chunk=hand.group), shown, (len(shown),))
    answer = stream.ask(QUESTION, logits=True)
    assert stream.status.held == first + 8 * size
    assert stream.status.host_bytes > 0

    # Lay out what each layer says it chose, the fourth block cut short, and look at what comes out.
    chosen = answer.blocks
    assert chosen is not None
    at = end_of(hand, groups[:4], first, grid)
    for shortened in _ways_to_cut(chosen):
        seen = [
            _laid_out(hand, opening, groups, blocks, short, 2) for blocks, short in zip(chosen, shortened, strict=True)
        ]
        question = hand.question(at)
        logits, queries = hand.run(question, seen)
        ranked = [_ranking(hand, groups, queries[i], i, question, similarity)[:4] for i in range(2)]
        if all(sorted(r) == list(c) and r[3] == s for r, c, s in zip(ranked, chosen, shortened, strict=True)):
            break
    else:
        pytest.fail(f"no layer-by-layer choice is that of its queries: {chosen}")
    close(answer.logits[0], logits, EAGER)
    assert answer.tokens_used == first + budget + len(question)


def _ways_to_cut(chosen: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(one, other) for one in chosen[0] for other in chosen[1]]


def _laid_out(
    hand: Hand, opening: Tokens, groups: Sequence[Tokens], blocks: Sequence[int], short: int, count: int
) -> list[tuple[Tokens, int, Sequence[int]]]:
    """The opening and the blocks behind it as if nothing had been between them."""
    seen: list[tuple[Tokens, int, Sequence[int]]] = [(opening, len(opening), [0] * hand.axes)]
    at = len(opening)
    for number in blocks:
        group = groups[number]
        start = int(group.positions[0, 0])
        span = int(group.positions[0, -1]) - start + 1
        alike = hand.axes == 1 or hand.family.timestamps
        seen.append(
            (group, count if number == short else len(group), [at - start] * hand.axes if alike else [at - start, 0, 0])
        )
        at += span
    return seen


def _ranking(
    hand: Hand, groups: Sequence[Tokens], queries: Tensor, layer: int, question: Tokens, similarity: str
) -> list[int]:
    """Blocks by the mean query over the question's words, all heads side by side."""
    end = len(question) - len(b"\nassistant\n")
    mean = queries[0, :, end - len(QUESTION) : end].mean(1)
    scores = []
    for group in groups:
        key = group.keys[layer][0].mean(1).repeat_interleave(mean.shape[0] // group.keys[layer].shape[1], 0)
        score = float((mean * key).sum())
        scores.append(score / float(key.norm()) if similarity == "cosine" else score)
    return sorted(range(len(groups)), key=lambda i: -scores[i])


@pytest.mark.parametrize("form", ["video", "turns"])
def test_retrieval_of_everything_is_full_memory(family: tiny.Family, form: str) -> None:
    model, processor = model_and_processor(family)
    shown = frames(8)
    settings = {"form": form, "chunk": 2}
    want = fed(session(model, processor, **settings), shown, (8,)).ask(QUESTION, logits=True, max_new_tokens=3)
    for numbering in ("consecutive", "original"):
        memory = {"name": "retrieval", "block": 3, "positions": numbering}
        stream = fed(session(model, processor, memory=memory, **settings), shown, (8,))
        got = stream.ask(QUESTION, logits=True, max_new_tokens=3)
        close(got.logits, want.logits, EAGER)
        assert got.ids == want.ids


def test_retrieval_reads_the_same_from_host_and_disk(tmp_path: Any) -> None:
    """Blocks on disk are blocks; beyond all limits the oldest are gone, their files too."""
    model, processor = model_and_processor(tiny.FAMILIES["qwen2_vl"])
    shown = frames(24)
    plain = {"name": "retrieval", "window": 12, "budget": 30}
    settings = {"chunk": 2}
    host = fed(session(model, processor, memory=plain, **settings), shown, (24,))
    one_block = 2 * 2 * 6 * 16 * 4
    limits = {"host_limit": 3 * one_block, "disk": str(tmp_path)}
    disk = fed(session(model, processor, memory={**plain, **limits}, **settings), shown, (24,))
    want, got = host.ask(QUESTION, logits=True), disk.ask(QUESTION, logits=True)
    assert got.blocks == want.blocks
    assert any(number < 7 for layer in got.blocks for number in layer), "else nothing came from disk"
    assert got.logits.equal(want.logits)
    assert disk.status.disk_bytes == 7 * one_block
    assert len(list(tmp_path.rglob("*.safetensors"))) == 7

    few = {**limits, "disk_limit": 2 * one_block}
    bounded = fed(session(model, processor, memory={**plain, **few}, **settings), shown, (24,))
    assert bounded.status.disk_bytes == 2 * one_block
    assert bounded.status.held == len(b"user\n") + 1 + 12 + 5 * 6
    assert min(number for layer in bounded.ask(QUESTION).blocks for number in layer) >= 5
    gone = fed(session(model, processor, memory={**plain, "host_limit": one_block}, **settings), shown, (24,))
    assert gone.status.held == len(b"user\n") + 1 + 12 + 6
    for stream in (disk, bounded):
        stream.close()
    assert not list(tmp_path.iterdir())


def test_the_newest_are_taken_whatever_the_question() -> None:
    model, processor = model_and_processor(tiny.FAMILIES["qwen2_vl"])
    memory = {"name": "retrieval", "window": 12, "budget": 20, "recent": 12}
    stream = fed(session(model, processor, memory=memory, chunk=2), frames(16), (16,))
    assert all({6, 7} < set(blocks) for blocks in stream.ask(QUESTION).blocks)


def test_a_budget_below_one_block() -> None:
    model, processor = model_and_processor(tiny.FAMILIES["qwen2_vl"])
    stream = fed(session(model, processor, memory={"name": "retrieval", "budget": 4}, chunk=2), frames(8), (8,))
    answer = stream.ask(QUESTION)
    assert [len(blocks) for blocks in answer.blocks] == [1, 1]


@pytest.mark.parametrize("name", ["window", "retrieval"])
def test_a_stream_of_any_length_costs_the_same(name: str) -> None:
    """Tensors, deques and positions stop growing; so does what is kept beside them."""
    model, processor = model_and_processor(tiny.FAMILIES["qwen2_vl"])
    memory: dict[str, Any] = {"name": name, "recent" if name == "window" else "window": 30}
    if name == "retrieval":
        memory["host_limit"] = 20_000
    stream = session(model, processor, memory=memory, pruner="stc_pruner", retention=0.5, chunk=2)
    stream.feed(frames(160))
    warm = stream.status
    stream.feed(frames(320))
    now = stream.status
    assert now.frames == 480
    assert (now.held, now.device_bytes, now.host_bytes) == (warm.held, warm.device_bytes, warm.host_bytes)
    assert now.device_bytes <= 2 * (2 * 2 * 16 * 4) * (6 + 30 + 6)
