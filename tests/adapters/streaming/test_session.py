"""Sessions as they are used: pruners, cachers, threads, files, and everything that can go wrong."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapters.errors import AlreadyPressed
from adapters.streaming import SaveError, StreamError, StreamSession, build_memory
from adapters.streaming.wording import wording_of
from compressors import BudgetError, BuildError, InputError, RequirementError, compress
from compressors.errors import UnknownNameError
from tests.adapters import tiny
from tests.adapters.harness import EAGER, close
from tests.adapters.streaming.streams import (
    QUESTION,
    fed,
    frames,
    model_and_processor,
    one_video,
    processor_for,
    session,
)
from vidpress import press

pytestmark = pytest.mark.core

QWEN = tiny.FAMILIES["qwen2_vl"]
MEMORIES: list[dict[str, Any]] = [
    {"name": "full"},
    {"name": "window", "recent": 14},
    {"name": "retrieval", "window": 14, "budget": 16, "block": 2},
]
memories = pytest.mark.parametrize("memory", MEMORIES, ids=lambda m: m["name"])


def everything(stream: StreamSession) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a session holds, as tensors and plain values."""
    tensors, values = stream._store.state()
    return {name: tensor.clone() for name, tensor in tensors.items()}, values


@memories
@pytest.mark.parametrize("form", ["video", "turns"])
def test_asking_leaves_no_trace(memory: dict[str, Any], form: str) -> None:
    """Bit for bit, with a frame waiting; and what follows is as if nobody had asked."""
    model, processor = model_and_processor(QWEN)
    settings = {"memory": {**memory, **({} if memory["name"] == "full" else {_window(memory): 30})}, "form": form}
    settings |= {"pruner": "stc_pruner", "retention": 0.5, "cacher": "stc", "chunk": 2}
    shown = frames(15)
    with session(model, processor, **settings) as asked, session(model, processor, **settings) as quiet:
        asked.feed(shown[:9])
        before, history, reference = everything(asked), asked._stream.history, asked._reference.tensors()
        answers = [asked.ask(QUESTION, logits=True) for _ in range(2)]
        after = everything(asked)
        assert answers[0].logits.equal(answers[1].logits)
        assert before[1] == after[1]
        assert all(before[0][name].equal(after[0][name]) for name in before[0].keys() | after[0].keys())
        assert asked._stream.history is history
        assert all(reference[n].equal(t) for n, t in asked._reference.tensors().items())
        asked.feed(shown[9:])
        quiet.feed(shown)
        assert asked.ask("then?", logits=True).logits.equal(quiet.ask("then?", logits=True).logits)
        assert asked.status.reuse == quiet.status.reuse


def _window(memory: dict[str, Any]) -> str:
    return "recent" if memory["name"] == "window" else "window"


def test_a_pruned_stream_is_its_chunks_compressed_one_by_one(family: tiny.Family) -> None:
    """With full memory the language model sees exactly what the method leaves of each chunk, state passed on."""
    model, processor = model_and_processor(family)
    shown = frames(8)
    stream = fed(session(model, processor, pruner="stc_pruner", retention=0.5, chunk=4), shown, (8,))
    encoded = [stream._encoder(stream._encoder.preprocess(part, (0.0,) * 4)) for part in (shown[:4], shown[4:])]
    first = compress(encoded[0].features, "stc_pruner", retention=0.5)
    second = compress(encoded[1].features, "stc_pruner", retention=0.5, history=first.history)
    assert stream.status.kept == first.kept + second.kept
    # Dropping a token equals masking its key, whatever comes after it.
    prompt = one_video(processor, shown)
    places = (prompt["input_ids"][0] == tiny.VIDEO).nonzero().flatten()[: first.mask.numel() * 2]
    keep = torch.ones(prompt["input_ids"].shape[1], dtype=torch.bool)
    keep[places] = torch.cat([first.mask.flatten(), second.mask.flatten()])
    causal = torch.ones(len(keep), len(keep)).tril().bool() & (keep | torch.eye(len(keep)).bool())
    mask = torch.zeros(1, 1, len(keep), len(keep)).masked_fill(~causal, torch.finfo(torch.float32).min)
    want = _masked(model, prompt, mask)
    close(stream.ask(QUESTION, logits=True, max_new_tokens=1).logits[0], want, EAGER)


@torch.no_grad()
def _masked(model: Any, prompt: dict[str, Tensor], mask: Tensor) -> Tensor:
    inputs = {**prompt, "attention_mask": mask}
    if "video_grid_thw" in prompt:
        ids = {k: prompt[k] for k in ("input_ids", "mm_token_type_ids", "video_grid_thw")}
        ids |= {k: prompt[k] for k in ("second_per_grid_ts",) if k in prompt}
        inputs["position_ids"] = model.model.get_rope_index(**ids)[0]
    logits: Tensor = model(**inputs).logits[0, -1]
    return logits


def test_variable_budgets_and_merged_tokens() -> None:
    """Groups keep different counts, some perhaps none; merged rows sit at their representative's place."""
    model, processor = model_and_processor(tiny.FAMILIES["qwen3_vl"])
    shown = torch.cat([frames(2).repeat(8, 1, 1, 1), frames(4, seed=1)])
    for settings in (
        {"pruner": "stc_pruner", "allocator": "causal_fca", "strength": 4.0, "retention": 0.3},
        {"pruner": "tome", "retention": 0.5},
        {"pruner": "evs", "tokens": 3},
        {"pruner": "visionzip", "tokens_per_frame": 3},
    ):
        stream = session(model, processor, memory=MEMORIES[2] | {"window": 60, "budget": 40}, chunk=2, **settings)
        stream.feed(shown)
        assert 0 < stream.status.kept < stream.status.tokens == 60
        assert torch.isfinite(stream.ask(QUESTION, logits=True).logits).all()


def test_a_chunk_that_keeps_nothing() -> None:
    """A bucket below one token gives a frame none; places and time go on."""
    model, processor = model_and_processor(QWEN)
    settings = {"allocator": "causal_fca", "retention": 0.1, "min_tokens": 0, "burst": 1.0}
    for form in ("video", "turns"):
        stream = session(model, processor, pruner="vidcom2", chunk=2, form=form, memory="retrieval", **settings)
        stream.feed(frames(12))
        assert 0 < stream.status.kept < 6
        assert stream.ask(QUESTION).text


def test_history_is_bounded_and_starts_anew() -> None:
    model, processor = model_and_processor(QWEN)
    for name in ("stc_pruner", "stc_pruner_released", "timechat_dtd"):
        stream = session(model, processor, pruner=name, retention=0.5, chunk=2)
        sizes = []
        for part in torch.split(frames(12), 2):
            stream.feed(part)
            sizes.append(sum(v.numel() for v in vars(stream._stream.history).values() if isinstance(v, Tensor)))
        assert len({*sizes}) == 1
        want = stream.ask(QUESTION, logits=True).logits
        stream.reset()
        assert stream._stream.history is None
        assert (stream.status.frames, stream.status.held, stream.status.seconds) == (0, 0, 0.0)
        stream.feed(frames(12))
        assert stream.ask(QUESTION, logits=True).logits.equal(want)


def test_fca_on_chunks_of_one_group_warns_once() -> None:
    model, processor = model_and_processor(QWEN)
    stream = session(model, processor, pruner="vidcom2", chunk=2)
    with pytest.warns(UserWarning, match="allocator fca .* one: use allocator=causal_fca") as caught:
        stream.feed(frames(6))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session(model, processor, pruner="vidcom2", chunk=4).feed(frames(8))
        session(model, processor, pruner="vidcom2", allocator="causal_fca", chunk=2).feed(frames(4))
        session(model, processor, pruner="stc_pruner", chunk=2).feed(frames(4))


def test_several_sessions_with_a_cacher_on_one_model() -> None:
    model = tiny.build(QWEN, vocabulary=260)
    processor = processor_for(model)
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    settings = {"cacher": "stc", "update_ratio": 0.5, "chunk": 2}
    with session(model, processor, **settings) as alone:
        want = fed(alone, frames(8), (8,)).ask(QUESTION, logits=True).logits
        assert 0 < alone.status.reuse < 1
    with session(model, processor, **settings) as one, session(model, processor, **settings) as other:
        plain = session(model, processor, chunk=2)
        for part, noise in zip(torch.split(frames(8), 2), torch.split(frames(8, seed=5), 2), strict=True):
            one.feed(part)
            other.feed(noise)
            plain.feed(part)
        one.reset()
        fed(one, frames(8), (8,))
        assert one.ask(QUESTION, logits=True).logits.equal(want)
        assert plain.status.reuse is None
        dense = fed(session(model, processor), frames(8), (8,)).ask(QUESTION, logits=True).logits
        close(plain.ask(QUESTION, logits=True).logits, dense, EAGER)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


@memories
def test_threads_feed_and_ask(memory: dict[str, Any]) -> None:
    """Two streams on one model are fed while others ask; every answer is that of a moment between chunks."""
    model, processor = model_and_processor(QWEN)
    shown, settings = frames(16), {"memory": memory, "chunk": 2, "pruner": "stc_pruner", "retention": 0.5}
    alone = session(model, processor, **settings)
    moments = []
    for part in torch.split(shown, 2):
        alone.feed(part)
        moments.append(alone.ask(QUESTION, logits=True).logits[0])
    streams = [session(model, processor, **settings) for _ in range(2)]
    for stream in streams:
        stream.feed(shown[:2])
    found: list[Tensor] = []
    errors: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    def feeding(stream: StreamSession) -> None:
        for part in torch.split(shown[2:], 2):
            stream.feed(part)

    def asking(stream: StreamSession) -> None:
        for _ in range(4):
            found.append(stream.ask(QUESTION, logits=True).logits[0])

    works = [lambda s=s: feeding(s) for s in streams] + [lambda s=s: asking(s) for s in (*streams, streams[0])]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    for answer in found:
        nearest = min(moments, key=lambda moment: float((answer - moment).abs().max()))
        close(answer, nearest, EAGER)
    for stream in streams:
        close(stream.ask(QUESTION, logits=True).logits[0], moments[-1], EAGER)


# Files


@memories
@pytest.mark.parametrize("family", [QWEN, tiny.FAMILIES["llava_onevision"]], ids=str)
def test_a_saved_stream_goes_on(memory: dict[str, Any], family: tiny.Family, tmp_path: Path) -> None:
    model, processor = model_and_processor(family)
    memory = memory if memory["name"] == "full" else {**memory, _window(memory): 30, "sink": 8}
    settings = {"memory": memory, "pruner": "stc_pruner", "allocator": "causal_fca", "cacher": "stc", "chunk": 2}
    shown, file = frames(21), tmp_path / "stream.safetensors"
    with session(model, processor, **settings) as first, session(model, processor, **settings) as second:
        first.feed(shown[:15])
        first.save(file)
        second.feed(frames(4, seed=9))
        second.load(file)
        assert second.status.frames == first.status.frames
        assert second.ask(QUESTION, logits=True).logits.equal(first.ask(QUESTION, logits=True).logits)
        for stream in (first, second):
            stream.feed(shown[15:])
        ours, theirs = first.status, second.status
        assert (ours.kept, ours.held, ours.seconds, ours.reuse) == (
            theirs.kept,
            theirs.held,
            theirs.seconds,
            theirs.reuse,
        )
        assert second.ask(QUESTION, logits=True).logits.equal(first.ask(QUESTION, logits=True).logits)
    assert list(tmp_path.iterdir()) == [file], "no temporary file stays"


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, processor = model_and_processor(QWEN)
    stream = fed(session(model, processor, memory="retrieval"), frames(6), (6,))
    file = tmp_path / "stream"
    stream.save(file)
    whole = file.read_bytes()
    with safe_open(file, "pt") as opened:
        header, tensors = opened.metadata(), {n: opened.get_tensor(n).clone() for n in opened.keys()}  # noqa: SIM118
    want = stream.ask(QUESTION, logits=True).logits

    def refused(content: Any, match: str, **settings: Any) -> None:
        target = stream if not settings else session(model, processor, **settings)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            save_file(content[1], file, metadata=content[0])
        with pytest.raises(SaveError, match=match):
            target.load(file)
        if target is stream:
            assert stream.ask(QUESTION, logits=True).logits.equal(want)
            assert stream.status.frames == 6

    for end in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        refused(whole[:end], "missing, damaged or no saved session")
    refused(b"no such format at all" * 10, "missing, damaged or no saved session")
    refused((None, tensors), "is no saved session")
    refused(({**header, "version": "99"}, tensors), "version 99 of the format")
    refused((header, {k: v for k, v in tensors.items() if k != "memory.keys"}), "is damaged")
    values = json.loads(header["values"])
    refused(({**header, "values": json.dumps({**values, "memory": {}})}, tensors), "is damaged")
    refused(
        ({**header, "values": json.dumps({**values, "history": {"state": "os.system", "fields": {}}})}, tensors),
        "damaged",
    )
    refused(whole, "other settings: memory 'retrieval', here 'full'", memory="full")
    refused(whole, "other settings: form.kind 'video', here 'turns'", memory="retrieval", form="turns")
    refused(whole, "pruner None, here", memory="retrieval", pruner="stc_pruner")
    refused(whole, r"memory.budget 4096, here 9", memory={"name": "retrieval", "budget": 9})
    other = tiny.build(QWEN, vocabulary=260)
    other.lm_head.weight.data[0, 0] += 1
    file.write_bytes(whole)
    with pytest.raises(SaveError, match="another model"):
        session(other, processor_for(other), memory="retrieval").load(file)
    with pytest.raises(SaveError, match="could not be saved"):
        stream.save(tmp_path / "no such folder" / "file")
    session(model, processor, memory={"name": "retrieval", "host_limit": 10_000}, chunk=2).load(file)


# What can go wrong


def test_frames_that_do_not_fit() -> None:
    model, processor = model_and_processor(QWEN)
    stream = fed(session(model, processor), frames(4), (4,))
    want = stream.ask(QUESTION, logits=True).logits
    wrong: list[tuple[Any, str]] = [
        (frames(2).float(), "expected uint8"),
        (frames(2)[..., 0], "grayscale"),
        (frames(2)[..., :1], "grayscale"),
        (frames(2).permute(0, 3, 1, 2), "channels come last"),
        (frames(2)[0], r"frames\[None\]"),
        (frames(2, height=16), "frames are 16x12 now, the stream began with 8x12"),
        ([frames(1)[0], frames(1, height=4)[0]], "make them one size"),
        ("frames", "give a uint8 tensor"),
        (frames(2)[:, :0], "no pixels"),
    ]
    for given, match in wrong:
        with pytest.raises(InputError, match=match):
            stream.feed(given)
    for times, match in (
        ([9.0], "2 frames came with 1"),
        ([9, 8], "never fall"),
        ([9, float("nan")], "finite"),
        ([0, 1], "fall"),
    ):
        with pytest.raises(InputError, match=match):
            stream.feed(frames(2), times)
    for nothing in ([], frames(4)[:0], np.empty((0, 8, 12, 3), np.uint8)):
        assert stream.feed(nothing).frames == 0
    assert stream.ask(QUESTION, logits=True).logits.equal(want)
    assert stream.status.frames == 4
    stream.feed([frame.numpy() for frame in frames(2)], [7.0, 8.5])
    assert stream.status.seconds == 8.5


def test_questions_that_cannot_be_answered() -> None:
    model, processor = model_and_processor(QWEN)
    stream = session(model, processor)
    with pytest.raises(StreamError, match="no frame has come yet"):
        stream.ask(QUESTION)
    stream.feed(frames(1))
    assert stream.ask(QUESTION).text, "one frame that waits is something to look at"
    for question in ("", "  ", None):
        with pytest.raises(InputError, match="ask something"):
            stream.ask(question)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_new_tokens=0"):
        stream.ask(QUESTION, max_new_tokens=0)
    with pytest.raises(InputError, match='form="turns"'):
        stream.ask(QUESTION, keep=True)
    stream.close()
    stream.close()
    for call in (lambda: stream.ask(QUESTION), lambda: stream.feed(frames(2)), stream.reset, lambda: stream.save("x")):
        with pytest.raises(StreamError, match="closed"):
            call()


@memories
def test_a_model_that_fails_leaves_the_session_as_it_was(
    memory: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = model_and_processor(QWEN)
    shown = frames(12)
    settings = {"memory": memory, "pruner": "stc_pruner", "retention": 0.5, "chunk": 2}
    stream, calm = session(model, processor, **settings), session(model, processor, **settings)
    stream.feed(shown[:5])
    before = everything(stream)
    forward = model.get_decoder().layers[1].forward

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    for broken in (model.get_decoder().layers[1], model.model.visual):
        with monkeypatch.context() as patch:
            patch.setattr(broken, "forward", fail)
            with pytest.raises(RuntimeError, match="out of memory"):
                stream.feed(shown[5:8])
            with pytest.raises(RuntimeError, match="out of memory"):
                stream.ask(QUESTION)
    assert model.get_decoder().layers[1].forward == forward
    after = everything(stream)
    assert before[1] == after[1]
    assert all(before[0][name].equal(after[0][name]) for name in before[0])
    assert stream.status.waiting == 1, "what waited before still waits"
    stream.feed(shown[5:])
    calm.feed(shown)
    assert stream.ask(QUESTION, logits=True).logits.equal(calm.ask(QUESTION, logits=True).logits)


def test_after_a_failure_nothing_is_reused_of_frames_that_were_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = model_and_processor(QWEN)
    with session(model, processor, cacher="stc", chunk=2) as stream:
        stream.feed(frames(4))
        assert stream.status.reuse > 0
        with monkeypatch.context() as patch:
            patch.setattr(model.get_decoder().layers[0], "forward", None)
            with pytest.raises(TypeError):
                stream.feed(frames(2))
        stream.feed(frames(2))
        assert stream.status.reuse == 0


def test_limits_say_what_to_do() -> None:
    model, processor = model_and_processor(QWEN)
    full = session(model, processor, memory={"name": "full", "limit": 20}, chunk=2)
    with pytest.raises(StreamError, match=r'holds 18 tokens and 6 more would exceed limit=20: use memory="window"'):
        full.feed(frames(8))
    assert full.status.frames == 4
    assert full.ask(QUESTION).text
    for name, setting in (("window", "recent"), ("retrieval", "window")):
        narrow = session(model, processor, memory={"name": name, setting: 5}, chunk=2)
        with pytest.raises(StreamError, match=f"6 tokens came .* keeps {setting}=5: raise memory.{setting}"):
            narrow.feed(frames(2))
        # A chunk may be larger than the window; what stays is within it.
        wide = session(model, processor, memory={"name": name, setting: 13})
        wide.feed(frames(20))
        assert wide._store.in_window == 12
        assert wide.ask(QUESTION).text


def test_a_disk_that_takes_nothing_is_reported(tmp_path: Path) -> None:
    model, processor = model_and_processor(QWEN)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    memory = {"name": "retrieval", "window": 6, "host_limit": 1, "disk": str(blocked)}
    stream = session(model, processor, memory=memory, chunk=2)
    with pytest.raises(StreamError, match="disk tier cannot use"):
        stream.feed(frames(4))
    assert stream.status.frames == 4, "the chunk is in all the same"
    blocked.unlink()
    stream.feed(frames(2))
    assert stream.status.disk_bytes > 0
    assert stream.ask(QUESTION).text


def test_a_pressed_model_is_refused() -> None:
    model = tiny.build(QWEN, vocabulary=260)
    processor = processor_for(model)
    stream = session(model, processor)
    with press(model, "vidcom2"):
        for call in (lambda: session(model, processor), lambda: stream.feed(frames(2)), lambda: stream.ask(QUESTION)):
            with pytest.raises(AlreadyPressed, match="give the session pruner="):
                call()
    stream.feed(frames(2))
    with press(model, "vidcom2", retention=0.5), pytest.raises(AlreadyPressed):
        stream.status and stream.reset()


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"memory": "elephant"}, UnknownNameError, "unknown memory"),
        ({"memory": {"name": "window", "recnt": 3}}, BuildError, "memory window has no recnt. Its parameters"),
        ({"memory": {"name": "window", "recent": 0}}, BuildError, "recent=0"),
        ({"memory": {"name": "retrieval", "recent": 9, "budget": 8}}, BuildError, "between 0 and budget=8"),
        ({"memory": {"recent": 4}}, BuildError, "needs 'name'"),
        ({"retention": 0.5}, BuildError, "no pruner to keep to it"),
        ({"pruner": "stc_pruner", "retention": 2}, BudgetError, "outside"),
        ({"pruner": "cdpruner"}, RequirementError, "looks at the question"),
        ({"pruner": "stc_pruner", "wrong": 1}, BuildError, "no part has a parameter 'wrong'"),
        ({"pruner": "visionzip", "cacher": "stc"}, RequirementError, "use cacher=none"),
        ({"chunk": 3}, BuildError, "chunk=3 must be a multiple of 2"),
        ({"fps": 0}, BuildError, "fps=0"),
        ({"form": "letter"}, BuildError, "form='letter'"),
        ({"positions": "contiguous"}, BuildError, "1-D positions"),
        ({"label": "{when}"}, BuildError, r"only \{start\} and \{end\}"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    model, processor = model_and_processor(QWEN)
    with pytest.raises(error, match=match):
        session(model, processor, **settings)


def test_positions_of_choice() -> None:
    """Text behind everything on request; without gaps where positions are 1-D."""
    model, processor = model_and_processor(QWEN)
    library, largest = (session(model, processor, text_position=p) for p in ("library", "largest"))
    for stream in (library, largest):
        stream.feed(frames(20))
    opening = len(b"user\n") + 1
    assert library._form.after(library._store.tail, (2, 3)) == (opening + 3,) * 3
    assert largest._form.after(largest._store.tail, (2, 3)) == (opening + 10,) * 3
    llava, reader = model_and_processor(tiny.FAMILIES["llava_onevision"])
    stream = session(llava, reader, positions="contiguous", pruner="random", tokens=2, chunk=1)
    stream.feed(frames(6))
    assert stream._store.tail == (len(b"user\n") + 12,)


def test_memories_by_name() -> None:
    memory = build_memory("window", recent=9)
    assert build_memory(memory) is memory
    assert build_memory({"name": "window", "recent": 9}) == memory
    with pytest.raises(BuildError, match="a finished memory takes no recent"):
        build_memory(memory, recent=3)


def test_the_words_of_a_question_are_found() -> None:
    """By where they stand in the template's text, not by what they are."""
    from adapters.micro import load_micro

    model, processor = load_micro()
    wording = wording_of(model, processor, "Be brief.", framed=False)
    for turns in (False, True):
        question = wording.question("Which shape flashed?", turns=turns)
        assert processor.decode(question.ids[question.asked]) == "Which shape flashed?"
        opening = processor.decode(wording.opening(turns=turns))
        assert opening.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
        assert opening.endswith("<|vision_start|>") != turns
