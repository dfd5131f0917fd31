"""Measure the embedded model against its bar: `python -m experiments.micro.check --samples 400`.

Clips of seeds that training never sees, in all sizes it was trained on, are written to H.264 files and read back as a
user's file would be. Every question is asked three times: with all video tokens, with all of them masked, and with a
random tenth of them (the others are masked as attention keys and keep their places, which equals dropping them).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from adapters.micro import MicroProcessor, load_micro
from adapters.video import read_video
from experiments.micro.batches import BUCKETS, Bucket
from experiments.micro.clips import ClipSpec, render, sample_clip
from experiments.micro.codec import write_clip
from experiments.micro.questions import QUESTIONS, answers, ask
from experiments.statistics import wilson

HELD_OUT = 2**33  # training and its own measurements draw from smaller seeds
RETENTION = 0.1
CONDITIONS = ("all tokens", "no video", "random 0.1")
REQUIRED = 0.95  # accuracy with all tokens
LEAK = 0.05  # accuracy above chance without the video
MARGIN = 0.15  # accuracy that a random tenth must lose on the flash questions


@dataclass(frozen=True)
class Score:
    """Right answers of `n`."""

    right: int
    n: int

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.right, self.n)


def main() -> None:
    """Measure, print the table, write the numbers; exit status 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description="Measure the embedded model against its bar.")
    parser.add_argument("--samples", type=int, default=400, help="clips; each is asked all questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="checkpoint folder; the embedded one by default")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    console = Console()
    model, processor = load_micro(folder=options.weights)
    right: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for index in track(range(options.samples), "measuring", console=console):
        rng = np.random.default_rng((HELD_OUT, options.seed, index))
        bucket = BUCKETS[index % len(BUCKETS)]
        spec = sample_clip(rng, bucket.frames, bucket.height, bucket.width)
        for condition, replies in _ask(model, processor, spec, rng).items():
            for name, wanted in answers(spec).items():
                right[condition, name, _size(bucket)].append(replies[name] == wanted)

    scores = {(condition, q.name): _pool(right, condition, q.name, None) for condition in CONDITIONS for q in QUESTIONS}
    missed = shortfalls(scores)
    console.print(_table(scores))
    console.print("The bar is met." if not missed else "Below the bar:\n" + "\n".join(missed))
    if options.output:
        sizes = [_size(bucket) for bucket in BUCKETS]
        content = {
            "samples": options.samples,
            "seed": options.seed,
            "bar_met": not missed,
            "scores": [
                {"condition": c, "question": n, **asdict(s), "accuracy": s.accuracy, "interval": s.interval()}
                for (c, n), s in scores.items()
            ],
            "all_tokens_by_size": {
                size: {q.name: _pool(right, "all tokens", q.name, size).accuracy for q in QUESTIONS} for size in sizes
            },
        }
        options.output.write_text(json.dumps(content, indent=2) + "\n")
    raise SystemExit(bool(missed))


def shortfalls(scores: dict[tuple[str, str], Score]) -> list[str]:
    """What misses the bar, one sentence each; `scores` by condition and question type."""
    missed = []
    for q in QUESTIONS:
        seen, blind, tenth = (scores[condition, q.name].accuracy for condition in CONDITIONS)
        if seen < REQUIRED:
            missed.append(f"{q.name}: {seen:.1%} with all tokens, at least {REQUIRED:.0%} required")
        if blind > q.chance + LEAK:
            missed.append(f"{q.name}: {blind:.1%} without the video, at most chance + {LEAK:.0%} allowed")
        if q.name.startswith("flash") and tenth > seen - MARGIN:
            missed.append(f"{q.name}: {tenth:.1%} with a random tenth, {seen:.1%} with all: nearer than {MARGIN:.0%}")
    return missed


@torch.no_grad()
def _ask(model: Any, processor: MicroProcessor, spec: ClipSpec, rng: np.random.Generator) -> dict[str, dict[str, str]]:
    """Replies by condition and question type to one phrasing of every question.

    The video is encoded once; a reply is the two most likely tokens in a row, as `generate` takes them. That it does is
    checked on one question per clip.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, render(spec))
        frames = read_video(path).frames
    asked = ask(rng)
    prompts = [processor.prompt(asked[q.name]) for q in QUESTIONS]
    inputs = processor(prompts, [frames] * len(prompts))
    is_video = inputs["input_ids"] == processor.video_token_id
    count = int(is_video[0].sum())
    tenth = torch.from_numpy(rng.permutation(count) < max(1, round(RETENTION * count)))
    one = processor(prompts[:1], frames)
    grid = one["video_grid_thw"]
    features = torch.cat(
        model.model.get_video_features(one["pixel_values_videos"], grid, return_dict=True).pooler_output
    )

    replies = {}
    kept = (torch.ones_like(tenth), torch.zeros_like(tenth), tenth)
    for condition, keep in zip(CONDITIONS, kept, strict=True):
        mask = inputs["attention_mask"].masked_scatter(is_video, keep.long().repeat(len(prompts)))
        texts = processor.batch_decode(_answer(model, inputs, features, mask), skip_special_tokens=True)
        replies[condition] = dict(zip((q.name for q in QUESTIONS), texts, strict=True))

    name = QUESTIONS[int(rng.integers(len(QUESTIONS)))].name
    alone = processor(processor.prompt(asked[name]), frames)
    (generated,) = processor.batch_decode(
        model.generate(**alone)[:, alone["input_ids"].shape[1] :], skip_special_tokens=True
    )
    if generated != replies["all tokens"][name]:
        raise RuntimeError(
            f"generate replies {generated!r} where {replies['all tokens'][name]!r} was measured ({name})"
        )
    return replies


def _answer(model: Any, inputs: Mapping[str, torch.Tensor], features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Two greedy tokens `[B, 2]` under a mask, all tokens at the places they have in the unmasked prompt.

    A reply that is no known answer followed by the end of the turn counts as wrong, so two tokens decide.
    """
    ids = inputs["input_ids"]
    positions, _ = model.model.get_rope_index(
        ids,
        inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    embeds = model.get_input_embeddings()(ids)
    video = (ids == model.config.video_token_id)[..., None].expand_as(embeds)
    embeds = embeds.masked_scatter(video, features.to(embeds.dtype).repeat(len(ids), 1))
    first = model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    token = first.logits[:, -1].argmax(-1, keepdim=True)
    second = model(
        inputs_embeds=model.get_input_embeddings()(token),
        attention_mask=torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1),
        position_ids=positions[..., -1:] + 1,
        past_key_values=first.past_key_values,
    )
    return torch.cat([token, second.logits[:, -1].argmax(-1, keepdim=True)], dim=1)


def _pool(right: dict[tuple[str, str, str], list[bool]], condition: str, name: str, size: str | None) -> Score:
    hits = [h for key, hs in right.items() if key[:2] == (condition, name) and size in (None, key[2]) for h in hs]
    return Score(sum(hits), len(hits))


def _size(bucket: Bucket) -> str:
    return f"{bucket.frames} frames {bucket.height} x {bucket.width}"


def _table(scores: dict[tuple[str, str], Score]) -> Table:
    question = Column("question", no_wrap=True)
    table = Table(question, "chance", *CONDITIONS, "n", title="Accuracy with 95 % intervals (Wilson), in %")
    for q in QUESTIONS:
        cells = []
        for condition in CONDITIONS:
            score = scores[condition, q.name]
            low, high = score.interval()
            cells.append(f"{100 * score.accuracy:.1f} ({100 * low:.1f}-{100 * high:.1f})")
        table.add_row(q.name, f"{100 * q.chance:.1f}", *cells, str(score.n))
    return table


if __name__ == "__main__":
    main()
