"""Prompts that natively have K visual tokens, in every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapters.family import family_of
from experiments.benchmarking.native import native_prompt
from tests.adapters import tiny
from tests.adapters.harness import generated
from vidpress import press

ROW = (tiny.Text(3), tiny.Video(4, 2, 3), tiny.Text(4))
LAYOUTS = {"one": (ROW,), "batch": (ROW, ROW)}
# Frames with a number of tokens of their own: tokens of one, and the sides of it.
FRAMES = {"gemma4": (2, 3), "internvl": (2, 2), "smolvlm": (2, 2), "minicpmv4_7": (2, 3), "molmo2": (3, 3)}


def prompt_of(family: tiny.Family, layout: str) -> tuple[tiny.Prompt, int]:
    """The prompt, and visual tokens of a row."""
    if getattr(family, "audible", False):
        pytest.skip("no benchmark's video has a sound")
    inputs = tiny.prompt(family, LAYOUTS[layout])
    (shape,), (present,) = family.shapes(inputs.samples[0]), family.present(inputs.samples[0])
    return inputs, int(np.prod(shape)) if present is None else int(present.sum())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [1, 7, 11, 12, 18, 24, 30])
def test_a_native_prompt_has_k_visual_tokens_and_the_pressed_length(
    family: tiny.Family, layout: str, kept: int
) -> None:
    model, (inputs, total) = tiny.build(family), prompt_of(family, layout)
    if kept >= total:
        pytest.skip("more than there are")
    native = native_prompt(model, inputs, kept)
    ids = native.inputs["input_ids"]
    assert native.visual + native.filled == kept
    assert native.visual == np.prod(native.grid)
    placeholders = len(family.visual(native.grid)) if native.visual else 0
    assert (family_of(model).video_mask(model, ids).sum(1) == placeholders).all()
    assert ids.shape[1] == inputs["input_ids"].shape[1] - total + kept
    if family.mrope and not family.timestamps and native.kind == "grid":
        assert native.filled == 0, "these models make a video of any number of tokens"
    out = generated(model, native.inputs, 2)
    assert torch.isfinite(out.logits).all()
    with press(model, "random", tokens=kept):
        pressed = generated(model, inputs, 2)
    assert out.cache.get_seq_length() == pressed.cache.get_seq_length()


def test_a_native_prompt_of_everything_is_the_prompt(family: tiny.Family) -> None:
    model, (inputs, total) = tiny.build(family), prompt_of(family, "batch")
    if family.present(inputs.samples[0])[0] is not None:
        pytest.skip("its frames have different numbers of tokens, those of a native prompt equal ones")
    native = native_prompt(model, inputs, total)
    assert torch.equal(native.inputs["input_ids"], inputs["input_ids"])
    for name, value in native.inputs.items():
        assert torch.equal(value, inputs[name]), name
    assert native.filled == 0


@pytest.mark.parametrize("name", [name for name in ("llava_onevision", *FRAMES) if name in tiny.FAMILIES])
def test_whole_frames_and_text_stand_where_no_video_has_k_tokens(name: str) -> None:
    """LLaVA-OneVision's frames, say, have 9 tokens each: 20 are two frames and two tokens of text."""
    family, (height, width) = tiny.FAMILIES[name], FRAMES.get(name, (3, 3))
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUTS["batch"])
    native = native_prompt(model, inputs, 2 * height * width + 2)
    assert (native.kind, native.visual, native.filled) == ("frames", 2 * height * width, 2)
    assert native.grid == (2, height, width)
    alone = native_prompt(model, inputs.samples[1], 2 * height * width + 2).inputs
    # The second row's part of what is packed is the second row's own.
    out, single = (generated(model, given, 2).logits for given in (native.inputs, alone))
    assert torch.allclose(out[1], single[0], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in ("llava_onevision", *FRAMES) if name in tiny.FAMILIES])
def test_less_than_a_frame_is_text_alone(name: str) -> None:
    family = tiny.FAMILIES[name]
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUTS["one"])
    native = native_prompt(model, inputs, 3)
    assert (native.kind, native.visual, native.filled, native.grid) == ("text", 0, 3, (0, 0, 0))
    assert all(value.shape == native.inputs["input_ids"].shape for value in native.inputs.values())
    assert torch.isfinite(generated(model, native.inputs, 2).logits).all()


def test_pixels_that_nobody_knows_how_to_cut_are_left_out() -> None:
    family = tiny.FAMILIES["llava_onevision"]
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUTS["one"])
    native = native_prompt(model, {**inputs, "of_another_family": torch.zeros(3)}, 20)
    assert (native.kind, native.visual, native.filled) == ("text", 0, 20)
