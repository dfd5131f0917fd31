"""Generated input: questions of a length, moving patterns."""

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
from experiments.benchmarking.inputs import generated_file, moving_pattern, question_of

TINY = Path(__file__).parents[1] / "tiny_qwen2vl.json"


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
