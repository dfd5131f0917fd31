"""Generated input: prompts that natively have K visual tokens, questions of a length, moving patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.loading import load_random
from adapters.micro import load_micro
from adapters.prompting import LayoutProcessor, prompt
from adapters.video import Video, read_video
from compressors.errors import InputError
from experiments.benchmarking.inputs import generated_file, moving_pattern, native_prompt, question_of
from tests.adapters import tiny
from tests.adapters.harness import generated
from vidpress import press

pytestmark = pytest.mark.core("llava_video", "video_llava")
ROW = (tiny.Text(3), tiny.Video(4, 2, 3), tiny.Text(4))
LAYOUTS = {"one": (ROW,), "batch": (ROW, ROW)}
TINY = Path(__file__).parents[1] / "tiny_qwen2vl.json"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [1, 7, 11, 12, 18, 24, 30])
def test_a_native_prompt_has_k_visual_tokens_and_the_pressed_length(
    family: tiny.Family, layout: str, kept: int
) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUTS[layout])
    total = sum(t * h * w for t, h, w in family.shapes(inputs.samples[0]))
    if kept >= total:
        pytest.skip("more than there are")
    native = native_prompt(model, inputs, kept)
    ids = native.inputs["input_ids"]
    assert native.visual + native.filled == kept
    assert native.visual == np.prod(native.grid)
    placeholders = len(family.visual(native.grid)) if native.visual else 0
    assert ((ids == tiny.VIDEO).sum(1) == placeholders).all()
    assert ids.shape[1] == inputs["input_ids"].shape[1] - total + kept
    if family.mrope and not family.timestamps:
        assert native.filled == 0, "these models make a video of any number of tokens"
    out = generated(model, native.inputs, 2)
    assert torch.isfinite(out.logits).all()
    with press(model, "random", tokens=kept):
        pressed = generated(model, inputs, 2)
    assert out.cache.get_seq_length() == pressed.cache.get_seq_length()


def test_a_native_prompt_of_everything_is_the_prompt(family: tiny.Family) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUTS["batch"])
    total = sum(t * h * w for t, h, w in family.shapes(inputs.samples[0]))
    native = native_prompt(model, inputs, total)
    assert torch.equal(native.inputs["input_ids"], inputs["input_ids"])
    assert native.filled == 0


def test_text_stands_where_no_video_has_k_tokens() -> None:
    """LLaVA-OneVision's frames have 9 tokens each: 20 are two frames and two tokens of text."""
    family = tiny.FAMILIES["llava_onevision"]
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUTS["one"])
    native = native_prompt(model, inputs, 20)
    assert (native.visual, native.filled, native.grid) == (18, 2, (2, 3, 3))
    assert native.inputs["pixel_values_videos"].shape[1] == 2


def test_a_question_of_a_length() -> None:
    model = load_random(TINY, device="cpu", dtype="float32")
    processor = LayoutProcessor(model)
    still = torch.zeros(2, 56, 56, 3, dtype=torch.uint8)
    video = Video(still, (0.0, 1.0), 1.0, 2.0, Path("x"))
    for length in (20, 33, 200):
        inputs = prompt(processor, question_of(model, processor, length), video)
        assert int((inputs["input_ids"] != model.config.video_token_id).sum()) == length
    with pytest.raises(InputError, match="shortest prompt"):
        question_of(model, processor, 3)


def test_a_question_of_a_length_for_a_real_tokenizer() -> None:
    model, processor = load_micro(torch.device("cpu"), torch.float32, "sdpa")
    still = torch.zeros(2, 56, 56, 3, dtype=torch.uint8)
    inputs = prompt(processor, question_of(model, processor, 60), Video(still, (0.0, 1.0), 1.0, 2.0, Path("x")))
    assert 60 <= int((inputs["input_ids"] != model.config.video_token_id).sum()) <= 66


def test_the_pattern_moves_and_comes_back_from_its_file(tmp_path: Path) -> None:
    frames = moving_pattern(4, 56, 84)
    assert frames.shape == (4, 56, 84, 3)
    assert all((frames[t] != frames[t + 1]).mean() > 0.5 for t in range(3))
    video = read_video(generated_file(tmp_path, 4, 56, 84))
    assert video.frames.shape == frames.shape
    assert np.abs(video.frames.numpy().astype(int) - frames).mean() < 12


def test_sides_that_cannot_be_encoded_are_refused() -> None:
    with pytest.raises(InputError, match="must be even"):
        moving_pattern(2, 57, 56)
