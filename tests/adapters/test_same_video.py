"""Several questions about one video in a batch: encoded once, compressed once, answered as if each stood alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.errors import UnsupportedError
from adapters.prompting import LayoutProcessor, prompts, questions_about
from adapters.video import Video
from compressors import RequirementError
from compressors.errors import InputError
from tests.adapters import tiny
from tests.adapters.harness import EAGER, close
from vidpress import press

pytestmark = pytest.mark.core("llava_video", "llava_next_video", "video_llava")
QUESTIONS = ["What is it?", "And when, and where?", "Who?"]
BYTES = 300
METHODS = ["vidcom2", "tome", "visionzip", "cdpruner", "fastvid_qwen"]  # plain, merging, tapped, asking, both


def video(seed: int = 0, height: int = 24) -> Video:
    pixels = torch.randint(0, 256, (5, height, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Video(pixels, tuple(0.5 * i for i in range(5)), 30.0, 2.5, Path("clip.mp4"))


def run(pressed: Any, model: Any, inputs: dict[str, torch.Tensor], rows: int) -> tuple[torch.Tensor, Any]:
    """Logits `[B, 3, V]` of a generation; `rows` is 0 where every row brings its own video."""
    with pressed as report:
        options = dict(max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True)
        if rows:
            with pressed.same_video(rows):
                out = model.generate(**inputs, **options)
        else:
            out = model.generate(**inputs, **options)
    return torch.stack(out.logits, dim=1), report


@pytest.mark.parametrize("method", METHODS)
def test_the_same_answers_with_less_work(family: tiny.Family, method: str) -> None:
    model = tiny.build(family, vocabulary=BYTES)
    processor, clip = LayoutProcessor(model), video()
    try:
        pressed = press(model, method, retention=0.4)
    except RequirementError as error:
        pytest.skip(str(error))
    rows = len(QUESTIONS)
    want, _ = run(pressed, model, prompts(processor, QUESTIONS, [clip] * rows), 0)
    got, report = run(pressed, model, questions_about(processor, QUESTIONS, clip), rows)
    close(got, want, EAGER)
    assert len(report.videos) == (rows if method == "cdpruner" else 1)


@torch.no_grad()
def test_a_plain_forward_does_it_too(family: tiny.Family) -> None:
    model = tiny.build(family, vocabulary=BYTES)
    processor, clip = LayoutProcessor(model), video()
    with press(model, "vidcom2") as report:
        want = model(**prompts(processor, QUESTIONS, [clip] * 3)).logits[:, -1]
    with (pressed := press(model, "vidcom2")) as report, pressed.same_video(3):
        got = model(**questions_about(processor, QUESTIONS, clip)).logits[:, -1]
    close(got, want, EAGER)
    assert len(report.videos) == 1


def test_beams_are_refused_and_nothing_is_left(family: tiny.Family) -> None:
    model = tiny.build(family, vocabulary=BYTES)
    inputs = questions_about(LayoutProcessor(model), QUESTIONS, video())
    pressed = press(model, "stride")
    with pytest.raises(UnsupportedError, match="belongs inside"), pressed.same_video(3):
        pass
    with pressed, pressed.same_video(3), pytest.raises(UnsupportedError, match="beams"):
        model.generate(**inputs, num_beams=2, max_new_tokens=2)
    with pressed as report:  # and afterwards every row brings its own video again
        model.generate(**prompts(LayoutProcessor(model), QUESTIONS, [video(i) for i in range(3)]), max_new_tokens=2)
    assert len(report.videos) == 3


def test_a_batch_needs_videos_of_one_shape() -> None:
    processor = LayoutProcessor(tiny.build(tiny.FAMILIES["qwen2_vl"], vocabulary=BYTES))
    with pytest.raises(InputError, match="one shape"):
        prompts(processor, ["a", "b"], [video(), video(height=48)])
    with pytest.raises(InputError, match="2 questions and 1 videos"):
        prompts(processor, ["a", "b"], [video()])
