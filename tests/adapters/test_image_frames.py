"""Frames that are images: what is stated of them is followed to the letter, and nothing is guessed."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import UnsupportedError
from adapters.prompting import LayoutProcessor, prompts, questions_about
from compressors.errors import InputError
from tests.adapters import tiny, truth
from tests.adapters.given import Chosen, Given
from tests.adapters.harness import EAGER, STEPS, close, generated, second_turn
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


def test_features_without_a_history_are_refused() -> None:
    """SmolVLM takes ready features in older ways too; none of them ends in a silent full-length run."""
    family = tiny.FAMILIES["smolvlm"]
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["one"])
    features = torch.zeros(4, 4, tiny.HIDDEN)
    pixels = inputs.pop("pixel_values")
    with press(model, "vidcom2"), torch.no_grad():
        for name in ("image_hidden_states", "mm_encoder_outputs"):
            with pytest.raises(UnsupportedError, match="where its features come from"):
                model(**inputs, **{name: features})
    if "mm_encoder_outputs" in inspect.signature(model.forward).parameters:
        outside = {"image": model.base_model.get_image_features(pixels, return_dict=True)}
        with press(model, "vidcom2"), pytest.raises(UnsupportedError, match="computed outside this press"):
            model(**inputs, mm_encoder_outputs=outside)


@torch.no_grad()
def test_features_used_again_as_other_videos(frames: tiny.Family) -> None:
    """What was planned for two videos says nothing about the same frames as one."""
    model, inputs = tiny.build(frames), tiny.prompt(frames, tiny.LAYOUTS["two"])
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this version of transformers takes no features")
    pixels = inputs.pop("pixel_values")
    with press(model, "vidcom2", retention=0.5) as report:
        encoded = {"image": model.base_model.get_image_features(pixels, return_dict=True)}
        for marks in (inputs["video_of_token"], (inputs["video_of_token"] == 2).long()):
            model(**{**inputs, "video_of_token": marks}, mm_encoder_outputs=dict(encoded))
    assert [len(seen.budgets) for seen in report.videos] == [3, 3, 3]
    first, second, third = (seen.keep for seen in report.videos)
    assert torch.equal(second, third)
    assert not torch.equal(first, third)


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


def test_a_video_in_a_later_turn(frames: tiny.Family) -> None:
    """The statement covers the whole prompt; only the new tokens' share of it counts."""
    layouts = [tiny.LAYOUTS["one"], ((tiny.Text(2), tiny.Image(), tiny.Video(3), tiny.Text(3)),)]
    turns = [tiny.prompt(frames, layout, seed) for seed, layout in enumerate(layouts)]
    keeps = [tiny.ragged_keeps(frames, layout, seed) for seed, layout in enumerate(layouts)]
    model, reference, current = tiny.build(frames), tiny.untouched(frames), list(keeps[0])
    with press(model, Chosen(lambda tokens: current[tokens.index])):
        first = generated(model, turns[0])
        current = list(keeps[1])
        both = second_turn(turns[0], first, turns[1]["input_ids"], "nothing")
        both |= {"pixel_values": turns[1]["pixel_values"], "video_of_token": turns[1]["video_of_token"]}
        with pytest.raises(InputError, match="shape"):
            generated(model, both, past_key_values=copy.deepcopy(first.cache))
        before = both["input_ids"].shape[1] - both["video_of_token"].shape[1]
        both["video_of_token"] = torch.nn.functional.pad(both["video_of_token"], (before, 0))
        second = generated(model, both, past_key_values=first.cache)
    parts = []
    for inputs, keep in zip(turns, keeps, strict=True):
        (row,) = truth.rows(reference, frames, inputs)
        parts.append(truth.pruned(row, truth.compress(reference, frames, inputs, Given(keep))))
    row = truth.joined(truth.extended(reference, parts[0], first.tokens[0], parts[0].last), parts[1])
    close(second.logits[0], truth.greedy(reference, row, STEPS).logits, EAGER)


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
