"""LLaVA-Video: what the model computes, its two orders of newlines, and parity with releases made for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.capture import Video
from adapters.llava_video.configuration import placeholders, pooled_side
from compressors import BuildError, compress
from tests.adapters import tiny, truth
from tests.adapters.given import Given, GivenMerge
from tests.adapters.harness import EAGER, STEPS, close, generated
from tests.golden.cases import load, names
from vidpress import press

SETTINGS = [name for name in tiny.FAMILIES if name.startswith("llava_video")]
GRID = tiny.FAMILIES["llava_video"]


# The model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_features_are_projected_pooled_and_given_newlines(name: str) -> None:
    """Token by token, from the tower's last hidden state: pooling by its definition, newlines where they belong."""
    family = tiny.FAMILIES[name]
    model = tiny.untouched(family)
    base, config = model.base_model, model.config
    pixels = tiny.prompt(family, ((tiny.Video(3), tiny.Video(3)),))["pixel_values_videos"]
    with torch.no_grad():
        got = base.get_video_features(pixels).pooler_output
        hidden = base.vision_tower(pixels.flatten(0, 1), output_hidden_states=True).hidden_states[-1]
        patches = base.multi_modal_projector(hidden).view(2, 3, 5, 5, -1)
    side = pooled_side(5, config.spatial_pool_mode, 2)
    assert side == (3 if config.spatial_pool_mode == "bilinear" else 2)
    assert got.shape[1] == placeholders(3, side, config.newline_position)
    newline = base.image_newline
    for video in range(2):
        wanted = []
        for frame in range(3):
            for row in range(side):
                wanted += [pooled(patches[video, frame], row, column, config) for column in range(side)]
                wanted += [newline] * (config.newline_position == "grid")
            wanted += [newline] * (config.newline_position == "frame")
        wanted += [newline] * (config.newline_position == "one_token")
        torch.testing.assert_close(got[video], torch.stack(wanted))


def test_another_layer_can_be_asked_for() -> None:
    model, inputs = tiny.untouched(GRID), tiny.prompt(GRID, tiny.LAYOUTS["image"])
    with torch.no_grad():
        own, last, first = (
            model(**inputs, **asked).logits
            for asked in ({}, {"vision_feature_layer": -1}, {"vision_feature_layer": -2})
        )
    assert torch.equal(own, last)
    assert not torch.equal(own, first)


def pooled(patches: Tensor, row: int, column: int, config: Any) -> Tensor:
    """One token of a frame `[5, 5, C]`."""
    square = patches[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(0, 1)
    if config.spatial_pool_mode == "average":
        return square.mean(0)
    if config.spatial_pool_mode == "max":
        return square.amax(0)
    # Bilinear from 5 to 3, pixel centres aligned: token i sits at 5/3·(i + 1/2) - 1/2.
    (y, down), (x, across) = (divmod(5 / 3 * (i + 0.5) - 0.5, 1) for i in (row, column))
    y, x = int(y), int(x)
    below, beside = min(y + 1, 4), min(x + 1, 4)
    upper = (1 - across) * patches[y, x] + across * patches[y, beside]
    lower = (1 - across) * patches[below, x] + across * patches[below, beside]
    return (1 - down) * upper + down * lower


# Newlines ----------------------------------------------------------------------------------------------------------


def newlines_last(row: truth.Row) -> truth.Row:
    """An uncompressed row in which the newlines of each frame follow all of its tokens."""
    order = torch.arange(len(row.ids))
    videos = []
    for index, places, (t, h, w) in row.videos:
        first, new = int(places[0]), []
        for frame in range(t):
            start = first + frame * h * (w + 1)
            columns = torch.arange(start, start + h * (w + 1)).view(h, w + 1)
            order[start : start + h * (w + 1)] = torch.cat([columns[:, :w].flatten(), columns[:, w]])
            new.append(torch.arange(start, start + h * w))
        videos.append((index, torch.cat(new), (t, h, w)))
    return replace(
        row, ids=row.ids[order], embeds=row.embeds[order], positions=row.positions[:, order], videos=tuple(videos)
    )


@pytest.mark.parametrize("positions", ["original", "contiguous"])
@pytest.mark.parametrize("kind", [Given, GivenMerge])
@pytest.mark.parametrize("name", ["one", "ragged", "mixed"])
def test_newlines_behind_their_frame(name: str, kind: type[Given], positions: str) -> None:
    layout = tiny.LAYOUTS[name]
    inputs, given = tiny.prompt(GRID, layout), kind(tiny.ragged_keeps(GRID, layout))
    model, reference = tiny.build(GRID), tiny.untouched(GRID)
    with press(model, given, positions=positions, newlines="last"):
        out = generated(model, inputs)
    results = truth.compress(reference, GRID, inputs, given)
    for b, row in enumerate(truth.rows(reference, GRID, inputs)):
        moved = truth.pruned(newlines_last(row), results)
        want = truth.greedy(reference, truth.contiguous(moved) if positions == "contiguous" else moved, STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(out.logits[b], want.logits, EAGER)


def test_the_two_orders_differ_and_the_report_counts_newlines() -> None:
    inputs = tiny.prompt(GRID, tiny.LAYOUTS["one"])
    logits = []
    for order in ("raster", "last"):
        model = tiny.build(GRID)
        with press(model, "vidcom2", retention=0.5, newlines=order) as report:
            logits.append(generated(model, inputs).logits)
        assert (report.visual, report.kept, report.placeholders) == (16, 8, 16 + 4 * 2)
        assert report.retention == 0.5
        assert report.retention_placeholders == (8 + 8) / (16 + 8)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llava_video_frame_max", "llava_onevision", "qwen2_vl"])
def test_other_layouts_know_one_order(name: str) -> None:
    family = tiny.FAMILIES[name]
    inputs = tiny.prompt(family, tiny.LAYOUTS["two"])
    logits = []
    for order in ("raster", "last"):
        model = tiny.build(family)
        with press(model, "vidcom2", retention=0.5, newlines=order):
            logits.append(generated(model, inputs).logits)
    assert torch.equal(*logits)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(BuildError, match="choose one of raster, last"):
        press(tiny.build(GRID), "vidcom2", newlines="first")


# Releases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("vidcom2_video_grid"))
def test_vidcom2_emits_the_release_s_sequence(name: str) -> None:
    """Kept tokens of a frame, then all of its newlines: index by index what the release hands to the language model."""
    case = load(name)
    result = compress(case.inputs["features"], "vidcom2_released", retention=case.params["ratio"])
    assert emitted(case.inputs["features"], result.keep) == case.arrays["keep"].tolist()


@pytest.mark.parametrize("name", names("stc_pruner_video_grid"))
def test_stc_s_sequence_of_each_chunk(name: str) -> None:
    case = load(name)
    start = 0
    for chunk, frames in enumerate(case.params["chunks"]):
        features = case.inputs["features"][start : start + frames]
        start += frames
        keep = torch.tensor(case.arrays[f"keep_linear_{chunk}"])
        assert emitted(features, keep) == case.arrays[f"keep_{chunk}"].tolist()


def emitted(features: Tensor, keep: Tensor) -> list[int]:
    """Placeholders that stay, in the order in which they reach the language model."""
    video = Video(features, (13, 13), "row_end")
    assert video.places == len(features) * 13 * 14
    kept = torch.zeros(features[..., 0].numel(), dtype=torch.bool)
    kept[keep.long()] = True
    order = video.newlines_last()
    return order[video.spread(kept, True)[order]].tolist()
