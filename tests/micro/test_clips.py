"""Generated clips and questions: deterministic, balanced, and what they claim to show."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from experiments.micro.clips import COLOURS, IGNORE, ClipSpec, render, sample_clip, token_targets
from experiments.micro.codec import through_codec
from experiments.micro.questions import QUESTIONS, answers, ask

SIZES = [(16, 112, 112), (32, 112, 112), (64, 112, 112), (16, 112, 168), (24, 168, 112), (24, 140, 140)]


def clip(seed: int, frames: int = 16, height: int = 112, width: int = 112) -> ClipSpec:
    return sample_clip(np.random.default_rng(seed), frames, height, width)


@pytest.mark.parametrize("size", SIZES)
def test_a_seed_determines_the_clip(size: tuple[int, int, int]) -> None:
    first, second = clip(3, *size), clip(3, *size)
    assert first == second
    frames = render(first)
    assert frames.shape == (*size, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, render(second))
    assert first != clip(4, *size)


@pytest.mark.parametrize("size", SIZES)
def test_the_flash_is_in_exactly_one_frame_pair(size: tuple[int, int, int]) -> None:
    for seed in range(8):
        spec = clip(seed, *size)
        elsewhere = replace(spec, flash_pair=(spec.flash_pair + 1) % spec.pairs)
        differs = (render(spec) != render(elsewhere)).any((1, 2, 3)).reshape(-1, 2)
        assert set(np.flatnonzero(differs.all(1))) == {spec.flash_pair, elsewhere.flash_pair}
        assert differs.any(1).sum() == 2


def test_the_object_moves_in_its_direction() -> None:
    step = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    for seed in range(20):
        spec = clip(seed)
        (y, x), (later_y, later_x) = spec.mover_corner(0), spec.mover_corner(1)
        assert (np.sign(later_y - y), np.sign(later_x - x)) == step[spec.direction]


def test_scenes_differ_and_last() -> None:
    for seed in range(50):
        spec = clip(seed, frames=36)
        assert len(set(spec.backgrounds)) == len(spec.cuts) == int(answers(spec)["scenes"])
        assert np.bincount(spec.scene_of_pair()).min() >= 3


def test_token_targets_agree_with_the_pixels() -> None:
    for seed in range(10):
        spec = clip(seed, 24, 112, 168)
        targets = token_targets(spec)
        rows, columns = spec.grid
        assert {t.shape for t in targets.values()} == {(12, rows * columns)}
        flashing = (targets["object"] > 4).any(1)
        assert np.flatnonzero(flashing).tolist() == [spec.flash_pair]
        assert 1 <= (targets["object"] > 4).sum() <= 9  # a flash covers a few tokens
        assert targets["flashed"][:, 0].tolist() == [int(pair >= spec.flash_pair) for pair in range(12)]
        cells = render(spec).reshape(12, 2, rows, 28, columns, 28, 3)
        near = np.abs(cells.astype(int) - COLOURS[spec.flash_colour]).max(-1) < 8
        share = near.mean((1, 3, 5)).reshape(12, -1)
        assert (share[targets["object"] > 4] > 0.05).all()
        assert ((targets["colour"] == IGNORE) == (targets["object"] <= 0)).all()


def test_answers_are_balanced_and_independent() -> None:
    given = [answers(clip(seed)) for seed in range(3000)]
    for q in QUESTIONS:
        counts = Counter(reply[q.name] for reply in given)
        assert set(counts) == set(q.answers)
        expected = len(given) / len(q.answers)
        assert sum((n - expected) ** 2 / expected for n in counts.values()) < 25  # chi-squared, at most 5 degrees
    for first in QUESTIONS:
        for second in QUESTIONS:
            if first.name < second.name:
                pairs = Counter((reply[first.name], reply[second.name]) for reply in given)
                expected = len(given) / len(first.answers) / len(second.answers)
                cells = [pairs[a, b] for a in first.answers for b in second.answers]
                assert sum((n - expected) ** 2 / expected for n in cells) < len(cells) + 5 * (2 * len(cells)) ** 0.5


def test_phrasings_are_drawn_from_the_list() -> None:
    drawn = [ask(np.random.default_rng(seed)) for seed in range(40)]
    for q in QUESTIONS:
        assert {d[q.name] for d in drawn} == set(q.phrasings)
    everything = [p for q in QUESTIONS for p in q.phrasings]
    assert len(set(everything)) == len(everything)


def test_colours_survive_the_codec() -> None:
    frames = np.zeros((4, 112, 112, 3), np.uint8)
    for index, colour in enumerate(COLOURS.values()):
        frames[:, 10:50, 5 + 18 * index : 20 + 18 * index] = colour
    decoded = through_codec(frames, crf=26).astype(int)
    for index, colour in enumerate(COLOURS.values()):
        seen = decoded[:, 15:45, 9 + 18 * index : 16 + 18 * index].mean((0, 1, 2))
        distance = {name: np.abs(seen - other).sum() for name, other in COLOURS.items()}
        assert COLOURS[min(distance, key=distance.__getitem__)] == colour


@pytest.mark.parametrize("size", [(15, 112, 112), (8, 112, 112), (16, 84, 112), (16, 112, 120)])
def test_sizes_out_of_range(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        clip(0, *size)
