"""Frames that are images: what is stated of them is followed to the letter, and nothing is guessed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import UnsupportedError
from adapters.prompting import LayoutProcessor, prompts, questions_about
from compressors.errors import InputError
from tests.adapters import tiny, truth
from tests.adapters.given import Given
from tests.adapters.harness import EAGER, STEPS, close, generated
from tests.adapters.test_same_video import QUESTIONS, run, video
from vidpress import mark_videos, press

FAMILIES = [family for family in tiny.FAMILIES.values() if family.known.told]
BETWEEN: tiny.Rows = ((tiny.Text(2), tiny.Video(2), tiny.Image(), tiny.Video(3), tiny.Text(3)),)


@pytest.fixture(params=FAMILIES, ids=str)
def frames(request: pytest.FixtureRequest) -> tiny.Family:
    """A family whose frames are images."""
    return request.param


def without(inputs: tiny.Prompt) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if name != "video_of_token"}


def test_a_prompt_that_does_not_say_is_refused(frames: tiny.Family) -> None:
    model, inputs = tiny.build(frames), tiny.prompt(frames, tiny.LAYOUTS["one"])
    with press(model, "vidcom2"):
        for call in (model, model.generate):
            with pytest.raises(UnsupportedError, match=r"does not say which images are frames.*mark_videos"):
                call(**without(inputs))
        assert generated(model, tiny.prompt(frames, tiny.TEXT_ONLY)).tokens.shape == (1, STEPS), "text needs no word"


def test_images_are_never_pruned(frames: tiny.Family) -> None:
    """A prompt of images alone comes out bit by bit as without a press, tiles and all."""
    model = tiny.build(frames)
    inputs = tiny.prompt(frames, ((tiny.Text(2), tiny.Image(), tiny.Text(1), tiny.Image(), tiny.Text(3)),))
    want = generated(model, inputs)
    with press(model, "vidcom2", retention=0.1) as report:
        out = generated(model, inputs)
    assert torch.equal(out.logits, want.logits)
    assert not report.videos


def test_one_video_with_an_image_between_its_frames(frames: tiny.Family) -> None:
    """What counts is what was said: five frames of one video, and three pictures between them that stay."""
    inputs = tiny.prompt(frames, BETWEEN)
    for marks in (inputs["video_of_token"], inputs.samples[0]["video_of_token"]):
        marks.clamp_(max=1)
    model, reference = tiny.build(frames), tiny.untouched(frames)
    given = Given((torch.tensor([0, 3, 9, 17]),))
    with press(model, given) as report:
        out = generated(model, inputs)
    assert [len(seen.budgets) for seen in report.videos] == [5]
    (row,) = truth.rows(reference, frames, inputs)
    want = truth.greedy(reference, truth.pruned(row, truth.compress(reference, frames, inputs, given)), STEPS)
    close(out.logits[0], want.logits, EAGER)


def changed(inputs: tiny.Prompt, change: str) -> dict[str, Any]:
    marks = inputs["video_of_token"].clone()
    first = marks[0].nonzero().squeeze(1)
    if change == "half a picture":
        marks[0, first[:2]] = 0
    elif change == "mixed up":
        marks[0, first[: len(first) // 2]] = torch.tensor([1, 2, 1]).repeat_interleave(4)
    elif change == "short":
        marks = marks[:, :-1]
    return {**inputs, "video_of_token": marks}


@pytest.mark.parametrize(
    ("change", "said"), [("half a picture", "in two"), ("mixed up", "one after the other"), ("short", "shape")]
)
def test_nonsense_is_refused(frames: tiny.Family, change: str, said: str) -> None:
    model, inputs = tiny.build(frames), tiny.prompt(frames, tiny.LAYOUTS["two"])
    with press(model, "vidcom2"), pytest.raises(InputError, match=said):
        model(**changed(inputs, change))


def test_several_questions_about_one_video(frames: tiny.Family) -> None:
    model = tiny.build(frames, vocabulary=300)
    processor, clip = LayoutProcessor(model), video()
    for method in ("vidcom2", "visionzip", "cdpruner"):
        pressed = press(model, method, retention=0.4)
        want, _ = run(pressed, model, prompts(processor, QUESTIONS, [clip] * len(QUESTIONS)), 0)
        got, report = run(pressed, model, questions_about(processor, QUESTIONS, clip), len(QUESTIONS))
        close(got, want, EAGER)
        assert len(report.videos) == (len(QUESTIONS) if method == "cdpruner" else 1)


# mark_videos

WRITES = SimpleNamespace(image_token="#", image_token_id=9)


def written(*media: str) -> list[dict[str, str]]:
    return [{"type": "video" if ":" in text else "image", "replacement": text} for text in media]


def test_marks_are_those_the_processor_wrote() -> None:
    ids = torch.tensor([[0, 9, 9, 1, 9, 9, 1, 9, 1], [5, 9, 9, 9, 9, 9, 9, 7, 9]])
    rows = [written("##", "1:##2:#"), written("1:###", "2:##", "##")]
    inputs = mark_videos(WRITES, {"input_ids": ids, "text_replacement_offsets": rows})
    assert inputs["video_of_token"].tolist() == [[0, 0, 0, 0, 1, 1, 0, 1, 0], [0, 1, 1, 1, 2, 2, 0, 0, 0]]
    assert "text_replacement_offsets" not in inputs


def test_marks_need_the_processor_s_word() -> None:
    ids = torch.tensor([[9, 9, 1]])
    with pytest.raises(InputError, match="return_text_replacement_offsets=True"):
        mark_videos(WRITES, {"input_ids": ids})
    with pytest.raises(InputError, match="do not truncate"):
        mark_videos(WRITES, {"input_ids": ids, "text_replacement_offsets": [written("###")]})
