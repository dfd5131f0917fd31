"""With full memory, no cacher and no pruner, a stream in any chunking is one prefill of the same prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters.micro import clip_path, load_micro
from adapters.streaming import StreamSession
from adapters.video import read_video
from tests.adapters import tiny
from tests.adapters.harness import EAGER, SDPA, Precision, close
from tests.adapters.streaming.streams import (
    QUESTION,
    fed,
    frames,
    model_and_processor,
    one_video,
    prefill,
    session,
    turns,
)

CHUNKINGS = [(10,), (1,) * 10, (3, 5, 2)]


@pytest.mark.parametrize("precision", [EAGER, SDPA], ids=str)
def test_one_video(family: tiny.Family, precision: Precision) -> None:
    model, processor = model_and_processor(family, attention=precision.attention, dtype=precision.dtype)
    shown = frames()
    want = prefill(model, _cast(one_video(processor, shown), precision.dtype))
    for sizes in CHUNKINGS:
        answer = fed(session(model, processor), shown, sizes).ask(QUESTION, max_new_tokens=3, logits=True)
        close(answer.logits[0], want, precision)


@pytest.mark.parametrize("chunk", [2, 4])
def test_turns(family: tiny.Family, chunk: int) -> None:
    model, processor = model_and_processor(family)
    shown = frames(8)
    want = prefill(model, turns(family, processor, list(torch.split(shown, chunk))))
    for sizes in [(8,), (1,) * 8, (3, 5)]:
        stream = fed(session(model, processor, form="turns", chunk=chunk), shown, sizes)
        close(stream.ask(QUESTION, logits=True, max_new_tokens=1).logits[0], want, EAGER)


def test_a_frame_that_waits_is_seen_and_still_waits(family: tiny.Family) -> None:
    """An odd last frame is repeated, as processors do; the stream goes on as if nobody had asked."""
    model, processor = model_and_processor(family)
    shown = frames(6)
    stream = session(model, processor)
    for count in (1, 3, 5, 6):
        stream.feed(shown[stream.status.frames + stream.status.waiting : count])
        got = stream.ask(QUESTION, logits=True, max_new_tokens=1).logits
        whole = shown[: count + count % 2].clone()
        whole[count:] = shown[count - 1] if family.mrope else whole[count:]
        close(got[0], prefill(model, one_video(processor, whole if family.mrope else shown[:count])), EAGER)


def test_answers_decode_as_generate_does(family: tiny.Family) -> None:
    model, processor = model_and_processor(family)
    shown = frames(4)
    inputs = one_video(processor, shown)
    out = tiny.build(family, vocabulary=260).generate(**inputs, max_new_tokens=6)
    answer = fed(session(model, processor), shown, (4,)).ask(QUESTION, max_new_tokens=6)
    assert list(answer.ids) == out[0, inputs["input_ids"].shape[1] :].tolist()


def test_the_embedded_model_answers_as_it_does_without_a_stream() -> None:
    model, processor = load_micro()
    shown = read_video(clip_path()).frames
    stream = fed(StreamSession(model, processor, memory="full"), shown, (1, 2, 29))
    for question, want in (("Which shape flashed?", "ring"), ("How many scenes are there?", "3")):
        answer = stream.ask(question, logits=True)
        close(answer.logits[0], prefill(model, processor(processor.prompt(question), shown)), EAGER)
        assert answer.text == want


def test_the_embedded_model_in_turns() -> None:
    """The prompt's text, from the model's own template, around chunks that are videos of their own."""
    model, processor = load_micro()
    shown = read_video(clip_path()).frames[:8]
    turn = "<|im_start|>user\nTime={}s<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n"
    text = "".join(turn.format(span) for span in ("0.0-2.0", "2.0-4.0"))
    text += "<|im_start|>user\nWhich shape flashed?<|im_end|>\n<|im_start|>assistant\n"
    want = prefill(model, processor(text, [shown[:4], shown[4:]]))
    stream = fed(StreamSession(model, processor, memory="full", form="turns", chunk=4), shown, (3, 5))
    close(stream.ask("Which shape flashed?", logits=True).logits[0], want, EAGER)


def test_a_dialogue_goes_on() -> None:
    """Kept questions and answers are turns of the prompt; the others leave no trace."""
    model, processor = load_micro()
    shown = read_video(clip_path()).frames[:8]
    stream = StreamSession(model, processor, memory="full", form="turns", label="")
    stream.feed(shown[:6])
    stream.ask("How many scenes are there?")
    first = stream.ask("Which shape flashed?", keep=True)
    stream.feed(shown[6:])
    last = stream.ask("Which shape is moving?", keep=True, logits=True)
    video = {"role": "user", "content": [{"type": "video"}]}

    def turn(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    turns = [video, turn("user", "Which shape flashed?"), turn("assistant", first.text), video]
    turns.append(turn("user", "Which shape is moving?"))
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    inputs = processor(text, [shown[:6], shown[6:]])
    close(last.logits[0], prefill(model, inputs), EAGER)
    closed = processor.apply_chat_template([*turns, turn("assistant", last.text)])
    assert stream.status.held == processor(closed, [shown[:6], shown[6:]])["input_ids"].shape[1]


def _cast(inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {k: v.to(dtype) if k == "pixel_values_videos" else v for k, v in inputs.items()}
