"""Answers of the embedded model: those of `press` and `generate` on the same files, in order, in any batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import experiments.lmms.answering as answering
from adapters.errors import UnsupportedError
from adapters.micro import clip_path, load_micro
from adapters.prompting import LayoutProcessor, answer, prompt
from adapters.video import VideoError, read_video
from compressors import build
from compressors.errors import RequirementError, UnknownNameError
from experiments.lmms.answering import Answerer, Request
from experiments.lmms.conversation import Prompt
from experiments.micro.clips import render, sample_clip
from experiments.micro.codec import write_clip
from experiments.micro.questions import answers
from tests.adapters import tiny
from vidpress import press

SHORT = {"max_new_tokens": 4}
QUESTIONS = {
    item["question"]: item["answer"] for item in json.loads(clip_path().with_suffix(".json").read_text())["questions"]
}


@pytest.fixture(scope="module")
def micro() -> tuple[Any, Any]:
    return load_micro()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Files of different lengths and sizes, and what flashes in them."""
    folder = tmp_path_factory.mktemp("clips")
    found = {}
    for index, size in enumerate([(16, 112, 112), (24, 112, 140)]):
        spec = sample_clip(np.random.default_rng((2**33, 17, index)), *size)
        path = folder / f"{index}.mp4"
        write_clip(path, render(spec))
        found[path] = answers(spec)["flash_shape"]
    return found


def ask(path: Path | str | None, question: str, **generation: Any) -> Request:
    items: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if path is not None:
        items.insert(0, {"type": "video", "url": str(path)})
    return Request(lambda: [{"role": "user", "content": items}], {**SHORT, **generation})


def answerer(micro: tuple[Any, Any], method: str = "none", **settings: Any) -> Answerer:
    budget = {"retention": settings.pop("retention")} if "retention" in settings else {}
    return Answerer(*micro, build(method), budget, **settings)


def directly(micro: tuple[Any, Any], path: Path, question: str, method: str, retention: float) -> str:
    model, processor = micro
    inputs = prompt(processor, question, read_video(path))
    with press(model, method, retention=retention):
        return answer(processor, inputs, model.generate(**inputs, max_new_tokens=4, do_sample=False))


def test_answers_without_compression_are_right(micro: tuple[Any, Any]) -> None:
    model = answerer(micro)
    found = model.answer([ask(clip_path(), question) for question in QUESTIONS])
    assert [item.text for item in found] == list(QUESTIONS.values())
    assert model.totals.retention == 1.0
    assert {item.output_tokens for item in found} == {2}  # a word and the end


@pytest.mark.parametrize("method", ["random", "vidcom2"])
def test_answers_are_those_of_press_and_generate(micro: tuple[Any, Any], clips: dict[Path, str], method: str) -> None:
    asked = [(path, question) for path in clips for question in ("Which shape flashed?", "Which colour moves?")]
    model = answerer(micro, method, retention=0.1)
    found = [item.text for item in model.answer([ask(*item) for item in asked])]
    assert found == [directly(micro, *item, method, 0.1) for item in asked]
    assert model.totals.kept == 2 * (round(0.1 * 128) + round(0.1 * 240))
    assert all(spent > 0 for spent in model.totals.seconds.values())


def test_batches_of_different_videos_texts_and_settings(micro: tuple[Any, Any], clips: dict[Path, str]) -> None:
    """Order is kept, and padding changes nothing."""
    (one, shape_one), (two, shape_two) = clips.items()
    requests = [
        ask(one, "Which shape flashed?"),
        ask(two, "What shape appeared for a moment?"),
        ask(None, "Count the scenes."),
        ask(two, "Which shape flashed?", num_beams=2),
        ask(one, "Which shape was visible only briefly?", num_beams=2),
    ]
    counts: list[int] = []
    found = answerer(micro, batch=4).answer(requests, counts.append)
    assert counts == [3, 5]
    assert [found[i].text for i in (0, 1, 3, 4)] == [shape_one, shape_two, shape_two, shape_one]
    alone = answerer(micro).answer(requests)
    assert [item.text for item in found] == [item.text for item in alone]
    assert [item.input_tokens for item in found] == [item.input_tokens for item in alone]


def test_input_tokens_are_those_that_reached_the_language_model(micro: tuple[Any, Any], clips: dict[Path, str]) -> None:
    requests = [ask(path, "Which shape flashed?") for path in clips]
    whole, pressed = (answerer(micro, m, retention=0.25, batch=2).answer(requests) for m in ("none", "vidcom2"))
    dropped = [a.input_tokens - b.input_tokens for a, b in zip(whole, pressed, strict=True)]
    assert dropped == [128 - 32, 240 - 60]


def test_several_videos_in_a_prompt(micro: tuple[Any, Any], clips: dict[Path, str]) -> None:
    content = [{"type": "video", "url": str(path)} for path in clips] + [{"type": "text", "text": "What moves?"}]
    requests = [ask(None, "What moves?"), Request(lambda: [{"role": "user", "content": content}], SHORT)]
    whole, model = (answerer(micro, method, retention=0.25, batch=2) for method in ("none", "vidcom2"))
    dropped = [
        a.input_tokens - b.input_tokens for a, b in zip(whole.answer(requests), model.answer(requests), strict=True)
    ]
    assert dropped == [0, 128 - 32 + 240 - 60]
    assert (model.totals.videos, model.totals.kept, model.totals.without_video) == (2, 32 + 60, 1)


def test_a_video_asked_about_in_a_row_is_decoded_once(
    micro: tuple[Any, Any], clips: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(answering, "read_video", lambda path, **_: decoded.append(path) or read_video(path))
    one, two = clips
    answerer(micro, batch=2).answer([ask(path, "What moves?") for path in (one, one, two)])
    assert decoded == [one, two]


def test_sampled_frames(micro: tuple[Any, Any]) -> None:
    model = answerer(micro, frames=8)
    model.answer([ask(clip_path(), "What moves?")])
    assert model.totals.visual == 4 * 16


def test_stop_strings_end_the_answers_that_ask_for_them(micro: tuple[Any, Any]) -> None:
    first, second, third = list(QUESTIONS.values())[:3]
    stops = [["never", first[1:]], [], third[1:]]
    requests = [ask(clip_path(), q, until=stop) for q, stop in zip(QUESTIONS, stops, strict=False)]
    found = answerer(micro, batch=2).answer(requests)
    assert [item.text for item in found] == [first[:1], second, third[:1]]


def test_a_checkpoints_own_sampling_settings_do_not_count(
    micro: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published checkpoints say do_sample in their generation config; benchmarks say greedy."""
    settings = micro[0].generation_config
    for key, value in {"do_sample": True, "temperature": 50.0, "top_p": 1.0, "top_k": 400}.items():
        monkeypatch.setattr(settings, key, value)
    found = answerer(micro).answer([ask(clip_path(), question) for question in QUESTIONS])
    assert [item.text for item in found] == list(QUESTIONS.values())
    sampled = answerer(micro).answer([ask(clip_path(), question, do_sample=True) for question in QUESTIONS])
    assert [item.text for item in sampled] != list(QUESTIONS.values())


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "image", "url": "a.png"}, "the embedded model answers questions about videos only"),
        ({"type": "audio", "url": "a.webm"}, "convert them to .mp4"),
        ({"type": "video", "url": {"path": "a.mp4", "video_start": 3}}, "whole video files"),
    ],
    ids=str,
)
def test_what_the_model_cannot_take_is_refused(micro: tuple[Any, Any], item: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        answerer(micro).answer([Request(lambda: [{"role": "user", "content": [item]}])])


def test_a_missing_video_is_named(micro: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        answerer(micro).answer([ask(tmp_path / "gone.mp4", "?")])


def test_settings_are_checked_before_anything_runs(micro: tuple[Any, Any]) -> None:
    model = answerer(micro)
    with pytest.raises(UnknownNameError, match="generation setting 'max_tokens'"):
        model.answer([ask(clip_path(), "?"), ask(clip_path(), "?", max_tokens=3)])
    assert model.totals.requests == 0


def test_random_weights_and_unmet_needs_are_refused_at_once(micro: tuple[Any, Any]) -> None:
    model = tiny.build(tiny.FAMILIES["qwen2_vl"], vocabulary=300)
    with pytest.raises(UnsupportedError, match="random weights"):
        Answerer(model, LayoutProcessor(model), build("none"), {})
    with pytest.raises(RequirementError, match="fastvid"):
        answerer(micro, "fastvid")


def test_llava_takes_videos_of_one_length_together(micro: tuple[Any, Any], clips: dict[Path, str]) -> None:
    """Its processor stacks them; where that is impossible, the batch is cut or the prompt refused."""
    model = answerer(micro, batch=4)
    model._stacks = True
    one, two = (Prompt("", (), (read_video(path),)) for path in clips)
    assert model._stackable([one], one)
    assert not model._stackable([one], two)
    assert model._stackable([one], Prompt("", (), ()))
    counts: list[int] = []
    model.answer([ask(path, "What moves?") for path in (*clips, *clips)], counts.append)
    assert counts == [1, 2, 3, 4]
    both = [{"type": "video", "url": str(path)} for path in clips]
    with pytest.raises(UnsupportedError, match="same number of frames"):
        model.answer([Request(lambda: [{"role": "user", "content": both}])])
