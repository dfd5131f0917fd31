"""The embedded checkpoint, and the training code's own forward pass held to the library's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from adapters.micro import clip_path, load_micro, weights_dir
from adapters.micro.processing import patches_of, patchify
from adapters.video import read_video
from experiments.micro.batches import BUCKETS, Batches, Bucket, Layout, encode_blocks, make_batch
from experiments.micro.check import Score
from experiments.micro.model import build_config, build_tokenizer, save_model
from experiments.micro.network import decode, tower
from experiments.micro.questions import QUESTIONS
from experiments.micro.train import normalise, schedule

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "clip.mp4",
    "clip.json",
    "README.md",
)


@pytest.fixture(scope="module")
def micro():
    return load_micro()


def test_the_checkpoint_is_complete_and_small() -> None:
    for name in FILES:
        assert (weights_dir() / name).is_file(), name
    assert (weights_dir() / "model.safetensors").stat().st_size < 8_000_000


def test_plain_transformers_loads_it() -> None:
    model = Qwen2VLForConditionalGeneration.from_pretrained(str(weights_dir()))
    assert type(model) is Qwen2VLForConditionalGeneration
    assert not model.generation_config.do_sample
    assert AutoTokenizer.from_pretrained(str(weights_dir())).pad_token == "<|endoftext|>"


def test_every_question_about_the_embedded_clip(micro) -> None:
    model, processor = micro
    asked = json.loads((weights_dir() / "clip.json").read_text())["questions"]
    assert [q["type"] for q in asked] == [q.name for q in QUESTIONS]
    frames = read_video(clip_path()).frames
    inputs = processor([processor.prompt(q["question"]) for q in asked], [frames] * len(asked))
    replies = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    assert processor.batch_decode(replies, skip_special_tokens=True) == [q["answer"] for q in asked]


@pytest.mark.parametrize(
    "text", ["Which shape flashed?", "", " two  spaces\tand\n\nlines ", "Üñï çødé 视频 🎞", "a\r\nb", "0123 456,789"]
)
def test_any_text_round_trips(micro, text: str) -> None:
    _, processor = micro
    ids = processor.tokenizer(text).input_ids
    assert processor.decode(ids, clean_up_tokenization_spaces=False) == text
    assert max(ids, default=0) < len(processor.tokenizer)


def test_answers_are_one_token(micro) -> None:
    _, processor = micro
    for q in QUESTIONS:
        for answer in q.answers:
            assert len(processor.tokenizer(answer).input_ids) == 1


def test_the_recipe_rebuilds_tokenizer_and_configuration(micro, tmp_path) -> None:
    model, processor = micro
    tokenizer = build_tokenizer()
    assert tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    config = build_config(tokenizer)
    fresh = Qwen2VLForConditionalGeneration(config)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    save_model(fresh, tokenizer, tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json"):
        assert (tmp_path / name).read_text() == (weights_dir() / name).read_text(), name


@pytest.mark.parametrize("bucket", [Bucket(16, 112, 168, 2, 1.0), Bucket(48, 112, 112, 1, 1.0)])
def test_a_packed_sequence_equals_prompts_alone(micro, bucket: Bucket) -> None:
    model, processor = micro
    rows, columns = bucket.height // 28, bucket.width // 28
    batch = make_batch(np.random.default_rng(5), bucket, codec_share=0.0)
    layout = Layout(processor.tokenizer, bucket.frames // 2, rows, columns)
    ids, lengths, _ = encode_blocks(processor.tokenizer, batch.questions, batch.answers)
    with torch.no_grad():
        inputs = processor([processor.prompt("")] * bucket.batch, list(batch.frames))
        patches = inputs["pixel_values_videos"].view(bucket.batch, -1, 1176)
        video = tower(model, patches, rows, columns)
        expected = model.get_video_features(
            inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
        ).pooler_output
        torch.testing.assert_close(video, torch.stack(expected), rtol=1e-4, atol=1e-4)
        for row, asked in enumerate(batch.questions):
            alone = processor(
                [processor.prompt(asked[q.name]) for q in QUESTIONS], [batch.frames[row]] * len(QUESTIONS)
            )
            out = model.generate(
                **alone, max_new_tokens=2, return_dict_in_generate=True, output_logits=True, eos_token_id=-1
            )
            blocks = ids[row].view(len(QUESTIONS), -1).clone()
            for block, length, token in zip(blocks, lengths[row], out.sequences[:, -2], strict=True):
                block[length] = token
            logits, _ = decode(model, layout, video[row : row + 1], blocks.view(1, -1), lengths[row : row + 1])
            torch.testing.assert_close(logits[0], torch.stack(out.logits, 1), rtol=1e-3, atol=1e-3)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    data = Batches(seed=3, first_step=0, small_until=0)
    first, second = data.make(11), Batches(seed=3, first_step=11, small_until=0).make(11)
    assert first.bucket == second.bucket
    assert torch.equal(first.frames, second.frames)
    assert first.questions == second.questions
    assert {data.make(step).bucket for step in range(2)} <= set(BUCKETS)


def test_normalise_is_the_processors(micro) -> None:
    _, processor = micro
    frames = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    expected, _ = patches_of(frames, processor.pixels)
    torch.testing.assert_close(normalise(patchify(frames).float()), expected)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [schedule(step, 1000, 0.3) for step in range(1000)]
    assert rates[0] < 0.01
    assert rates[200] == rates[699] == 1.0
    assert rates[850] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.01)


def test_wilsons_interval() -> None:
    low, high = Score(8, 10).interval()
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert Score(400, 400).interval()[1] == pytest.approx(1.0)
