"""Training batches: clips of one size, and all questions of a clip packed behind its video.

A packed sequence is `prefix | video | <|vision_end|> | block 1 | ... | block 7`. A block is one question with its
answer, padded to `BLOCK` tokens. Each block sees the video and itself only and has the positions it would have alone,
so that training on a packed sequence is training on seven stand-alone prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from experiments.micro.clips import render, sample_clip, token_targets
from experiments.micro.codec import through_codec
from experiments.micro.questions import QUESTIONS, answers, ask

BLOCK = 19
CODEC_SHARE = 0.2  # share of the training clips that pass through a real H.264 encoder


@dataclass(frozen=True)
class Bucket:
    """Clips of one size, the number of them in a batch, and how often such batches come."""

    frames: int
    height: int
    width: int
    batch: int
    weight: float


BUCKETS = (
    Bucket(16, 112, 112, 32, 0.54),
    Bucket(32, 112, 112, 16, 0.16),
    Bucket(64, 112, 112, 8, 0.08),
    Bucket(16, 112, 168, 22, 0.08),
    Bucket(24, 168, 112, 14, 0.07),
    Bucket(24, 140, 140, 14, 0.07),
)
SMALL = BUCKETS[0]


def prompt_text(question: str) -> str:
    """The prompt after `<|vision_end|>`, as the chat template writes it."""
    return f"{question}<|im_end|>\n<|im_start|>assistant\n"


class Layout:
    """Token ids, attention mask and positions of a packed sequence; all that depends on the size alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, pairs: int, rows: int, columns: int) -> None:
        head = tokenizer("<|im_start|>user\n<|vision_start|>").input_ids
        end = tokenizer("<|vision_end|>").input_ids
        video = pairs * rows * columns
        blocks = len(QUESTIONS)
        self.video = slice(len(head), len(head) + video)
        self.text_start = self.video.stop + 1
        self.length = self.text_start + blocks * BLOCK
        ids = head + [tokenizer.convert_tokens_to_ids("<|video_pad|>")] * video + end
        self.prefix = torch.tensor(ids)

        # As the library numbers them: a video takes as many places as its grid is high or wide, however long it is.
        start = len(head)
        grid = torch.meshgrid(torch.arange(pairs), torch.arange(rows), torch.arange(columns), indexing="ij")
        vision = torch.stack(grid).reshape(3, -1) + start
        behind = start + max(rows, columns)
        text = (behind + 1 + torch.arange(BLOCK)).repeat(blocks)
        numbers = [torch.arange(start).expand(3, -1), vision, torch.full((3, 1), behind), text.expand(3, -1)]
        self.positions = torch.cat(numbers, dim=1)[:, None]  # [3, 1, L]

        block = torch.arange(self.length - self.text_start) // BLOCK
        mask = torch.ones(self.length, self.length, dtype=torch.bool).tril()
        mask[self.text_start :, self.text_start :] &= block[:, None] == block[None, :]
        hidden = torch.finfo(torch.bfloat16).min
        self.mask = torch.zeros(1, 1, *mask.shape).masked_fill(~mask, hidden)  # added to the scores


def encode_blocks(
    tokenizer: PreTrainedTokenizerFast, questions: list[dict[str, str]], replies: list[dict[str, str]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Blocks of a batch: ids `[B, blocks * BLOCK]`, prompt lengths `[B, blocks]`, answer ids `[B, blocks]`."""
    pad = tokenizer.pad_token_id
    ids = torch.full((len(questions), len(QUESTIONS), BLOCK), pad)
    lengths = torch.zeros(len(questions), len(QUESTIONS), dtype=torch.long)
    answer_ids = torch.zeros_like(lengths)
    for row, (asked, reply) in enumerate(zip(questions, replies, strict=True)):
        for column, kind in enumerate(QUESTIONS):
            prompt = tokenizer(prompt_text(asked[kind.name])).input_ids
            (answer,) = tokenizer(reply[kind.name]).input_ids
            ids[row, column, : len(prompt) + 1] = torch.tensor([*prompt, answer])
            lengths[row, column], answer_ids[row, column] = len(prompt), answer
    return ids.flatten(1), lengths, answer_ids


@dataclass(frozen=True)
class Batch:
    """Clips of one size with their questions.

    Attributes:
        bucket: their size.
        frames: uint8 `[B, F, H, W, 3]`.
        dense: what every visual token sees, int64 `[B, T, N]` by name, see `clips.token_targets`.
        questions, answers: by question type, one dictionary per clip.
    """

    bucket: Bucket
    frames: torch.Tensor
    dense: dict[str, torch.Tensor]
    questions: list[dict[str, str]]
    answers: list[dict[str, str]]


class Batches(IterableDataset[Batch]):
    """An endless stream of batches; the batch of a given step depends on (seed, step) alone."""

    def __init__(self, seed: int, first_step: int, small_until: int, codec_share: float = CODEC_SHARE) -> None:
        self.seed, self.first_step, self.small_until, self.codec_share = seed, first_step, small_until, codec_share

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        offset, stride = (info.id, info.num_workers) if info else (0, 1)
        step = self.first_step + offset
        while True:
            yield self.make(step)
            step += stride

    def make(self, step: int) -> Batch:
        """The batch of one step."""
        rng = np.random.default_rng((self.seed, step))
        weights = np.asarray([b.weight for b in BUCKETS])
        bucket = SMALL if step < self.small_until else BUCKETS[rng.choice(len(BUCKETS), p=weights / weights.sum())]
        return make_batch(rng, bucket, self.codec_share)


def make_batch(rng: np.random.Generator, bucket: Bucket, codec_share: float) -> Batch:
    """Clips of one bucket, a share of them through the codec."""
    specs = [sample_clip(rng, bucket.frames, bucket.height, bucket.width) for _ in range(bucket.batch)]
    clips = []
    for spec in specs:
        frames = render(spec)
        if rng.random() < codec_share:
            frames = through_codec(frames, crf=int(rng.integers(16, 29)))
        clips.append(frames)
    dense = [token_targets(spec) for spec in specs]
    return Batch(
        bucket=bucket,
        frames=torch.from_numpy(np.stack(clips)),
        dense={name: torch.from_numpy(np.stack([d[name] for d in dense])) for name in dense[0]},
        questions=[ask(rng) for _ in specs],
        answers=[answers(spec) for spec in specs],
    )
