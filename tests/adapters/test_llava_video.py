"""LLaVA-Video: what the model computes, its two orders of newlines, and parity with releases made for it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import family_of
from adapters.capture import Video
from adapters.llava_video.configuration import NewlinePosition, PoolMode, placeholders, pooled_side
from compressors import BuildError, build, compress
from tests.adapters import tiny, truth
from tests.adapters.given import Given, GivenMerge, Recorded
from tests.adapters.harness import EAGER, STEPS, close, generated
from tests.golden.cases import load, names
from vidpress import press

GRID = tiny.FAMILIES["llava_video"]
NEWLINES: tuple[NewlinePosition, ...] = ("grid", "frame", "one_token", "no_token")
POOLS: tuple[PoolMode, ...] = ("average", "max", "bilinear")


# The model ---------------------------------------------------------------------------------------------------------


def in_setting(newlines: NewlinePosition, pool: PoolMode, stride: int, patches: int = 5) -> Any:
    """The tiny model in a setting of the release; the grid is 5×5 patches, which neither 2 nor 3 divides."""
    model = tiny.build(GRID)
    model.config.newline_position, model.config.spatial_pool_mode = newlines, pool
    model.config.spatial_pool_stride = stride
    model.config.vision_config.image_size = patches * model.config.vision_config.patch_size
    return model


def pooled(patches: Tensor, pool: PoolMode, stride: int) -> Tensor:
    """Tokens `[h, w, C]` of a frame `[n, n, C]`, one by one, by the definitions.

    Averages and maxima: of squares of stride × stride patches, an incomplete last row and column left out. Bilinear:
    m = ⌈n / stride⌉ tokens per side, pixel centres aligned, so that token i sits at (i + 1/2)·n/m - 1/2.
    """
    n = len(patches)
    if pool == "bilinear":
        m = math.ceil(n / stride)
        weights = torch.zeros(m, n)
        for i in range(m):
            low, part = divmod((i + 0.5) * n / m - 0.5, 1)
            weights[i, int(low)] += 1 - part
            weights[i, min(int(low) + 1, n - 1)] += part
        return torch.einsum("ia,jb,abc->ijc", weights, weights, patches)
    reduced = {"average": lambda square: square.sum(0) / stride**2, "max": lambda square: square.max(0).values}[pool]
    m = n // stride
    starts = range(0, m * stride, stride)
    return torch.stack(
        [torch.stack([reduced(patches[y : y + stride, x : x + stride].flatten(0, 1)) for x in starts]) for y in starts]
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("newlines", NEWLINES)
def test_features_are_projected_pooled_and_given_newlines(
    newlines: NewlinePosition, pool: PoolMode, stride: int
) -> None:
    """Token by token, from the tower's last hidden state: pooling by its definition, newlines where they belong.

    And what a press sees of it: the visual tokens alone, on their grid.
    """
    model = in_setting(newlines, pool, stride)
    base, newline = model.base_model, model.base_model.image_newline
    pixels = tiny.prompt(GRID, ((tiny.Video(3), tiny.Video(3)),))["pixel_values_videos"]
    with torch.no_grad():
        output = base.get_video_features(pixels)
        hidden = base.vision_tower(pixels.flatten(0, 1), output_hidden_states=True).hidden_states[-1]
        patches = base.multi_modal_projector(hidden).view(2, 3, 5, 5, -1)
    seen = family_of(model).capture(model, output, {"pixel_values_videos": pixels})
    side = {1: 5, 2: 3, 3: 2}[stride] if pool == "bilinear" else {1: 5, 2: 2, 3: 1}[stride]
    assert seen.geometry.tolist() == [[3, side, side]] * 2
    ends = {"grid": "row_end", "frame": "frame_end", "one_token": "video_end", "no_token": "none"}
    assert seen.structure == ends[newlines]
    for video in range(2):
        wanted, visual = [], []
        for frame in range(3):
            for row in pooled(patches[video, frame], pool, stride):
                wanted += [*row] + [newline] * (newlines == "grid")
                visual += [*row]
            wanted += [newline] * (newlines == "frame")
        wanted += [newline] * (newlines == "one_token")
        torch.testing.assert_close(output.pooler_output[video], torch.stack(wanted))
        torch.testing.assert_close(seen.pieces[video].reshape(len(visual), -1), torch.stack(visual))
        assert placeholders(3, side, newlines) == len(wanted)


@pytest.mark.parametrize("stride", [*(pytest.param(stride, marks=pytest.mark.slow) for stride in (1, 2)), 3])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("newlines", NEWLINES)
def test_pruned_and_merged_in_every_setting(newlines: NewlinePosition, pool: PoolMode, stride: int) -> None:
    """The contract at its shortest, from 25 tokens per frame to one; the whole of it is run on the tiny families."""
    setting = {"name": "a setting", "position": newlines, "pool": pool, "stride": stride}
    family: tiny.Family = type("Setting", (type(GRID),), setting)()
    layout, kind = tiny.LAYOUTS["mixed"], Given if stride == 2 else GivenMerge
    inputs, given = tiny.prompt(family, layout), kind(tiny.ragged_keeps(family, layout))
    model, reference = in_setting(newlines, pool, stride), in_setting(newlines, pool, stride)
    with press(model, given):
        out = generated(model, inputs)
    results = truth.compress(reference, family, inputs, given)
    for b, row in enumerate(truth.rows(reference, family, inputs)):
        want = truth.greedy(reference, truth.pruned(row, results), STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist(), f"row {b}"
        close(out.logits[b], want.logits, EAGER)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("patches", [6, 7, 27])
def test_pooling_of_other_grids(patches: int, pool: PoolMode, stride: int) -> None:
    """Grids that the strides divide, and others; 27×27 is the published tower's."""
    frames = torch.randn(2, patches, patches, 3, generator=torch.Generator().manual_seed(patches))
    got = in_setting("no_token", pool, stride, patches).base_model.apply_pooling(frames.flatten(1, 2))
    torch.testing.assert_close(got, torch.stack([pooled(frame, pool, stride).flatten(0, 1) for frame in frames]))


def test_sizes_of_the_published_checkpoints() -> None:
    """LLaVA-Video: 64 frames of 13×13 and 13 newlines. LLaVA-OneVision: 32 frames of 14×14 and one newline."""
    assert placeholders(64, pooled_side(27, "average", 2), "grid") == 64 * (169 + 13)
    assert placeholders(32, pooled_side(27, "bilinear", 2), "one_token") == 32 * 196 + 1


@pytest.mark.parametrize("name", ["one", "image", "even", "mixed"])
def test_onevision_s_setting_is_the_library_s_onevision(name: str) -> None:
    """One newline and bilinear pooling: the same visual tokens, logits and choices as the library's own class."""
    library, ours = tiny.FAMILIES["llava_onevision"], tiny.FAMILIES["llava_video_one_token_bilinear"]
    reference, model = tiny.build(library), tiny.build(ours)
    model.load_state_dict(reference.state_dict())
    inputs = tiny.prompt(library, tiny.LAYOUTS[name])
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, reference(**inputs).logits)
    spies, out = [], []
    for pressed in (reference, model):
        spies.append(Recorded(build("vidcom2")))
        with press(pressed, spies[-1], retention=0.4):
            out.append(generated(pressed, inputs))
    theirs, own = (spy.results for spy in spies)
    assert own.keys() == theirs.keys() != set()
    for index, result in theirs.items():
        torch.testing.assert_close(own[index].tokens.features, result.tokens.features)
        assert own[index].tokens.grid == result.tokens.grid == (3, 3)
        assert own[index].keep.tolist() == result.keep.tolist()
    assert out[1].tokens.tolist() == out[0].tokens.tolist()
    torch.testing.assert_close(out[1].logits, out[0].logits)


def test_another_layer_can_be_asked_for() -> None:
    model, inputs = tiny.untouched(GRID), tiny.prompt(GRID, tiny.LAYOUTS["image"])
    with torch.no_grad():
        own, last, first = (
            model(**inputs, **asked).logits
            for asked in ({}, {"vision_feature_layer": -1}, {"vision_feature_layer": -2})
        )
    assert torch.equal(own, last)
    assert not torch.equal(own, first)


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
