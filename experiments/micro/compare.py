"""How methods keep the embedded model's accuracy: `python -m experiments.micro.compare --retention 0.1 0.25`.

Held-out clips are written to H.264 files and read back; every question is a prompt of its own, answered by
`model.generate` under `press`, all methods on the same clips. A ranking on the embedded model is a ranking on it.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from adapters import family_of
from adapters.micro import load_micro
from adapters.video import read_video
from compressors.methods import rows
from experiments.micro.batches import BUCKETS
from experiments.micro.check import HELD_OUT, Score
from experiments.micro.clips import ClipSpec, render, sample_clip
from experiments.micro.codec import write_clip
from experiments.micro.questions import QUESTIONS, answers, ask
from vidpress import press

GROUPS = {"flash": "flash_", "mover": "mover_", "scenes": "scenes"}


def main() -> None:
    """Measure and print a Markdown table."""
    model, processor = load_micro()
    lacks = functools.partial(family_of(model).lacks, model)
    fitting = [row.name for row in rows() if row.exact and all(lacks(need) is None for need in row.needs)]
    parser = argparse.ArgumentParser(description="Accuracy of methods on the embedded model.")
    parser.add_argument("--methods", nargs="+", default=["none", *fitting], help="presets, or preset+allocator")
    parser.add_argument("--retention", nargs="+", type=float, default=[0.1, 0.25])
    parser.add_argument("--samples", type=int, default=72, help="clips; each is asked all questions")
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args()
    runs = [(name, r) for name in options.methods for r in (options.retention if name != "none" else [1.0])]
    right: dict[tuple[str, float], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for index in track(range(options.samples), "measuring", console=Console(stderr=True)):
        rng = np.random.default_rng((HELD_OUT, options.seed, index))
        bucket = BUCKETS[index % len(BUCKETS)]
        spec = sample_clip(rng, bucket.frames, bucket.height, bucket.width)
        inputs = _inputs(processor, spec, ask(rng))
        wanted = answers(spec)
        for name, retention in runs:
            method, _, allocator = name.partition("+")
            parts = {"allocator": allocator} if allocator else {}
            with press(model, method, retention=retention, **parts):
                replies = _replies(model, processor, inputs)
            for question, reply in zip(QUESTIONS, replies, strict=True):
                right[name, retention][question.name].append(reply == wanted[question.name])
    print(_table(right, options.samples))


def _inputs(processor: Any, spec: ClipSpec, asked: dict[str, str]) -> dict[str, Any]:
    """One prompt per question, on the clip as a file gives it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, render(spec))
        frames = read_video(path).frames
    prompts = [processor.prompt(asked[question.name]) for question in QUESTIONS]
    return dict(processor(prompts, [frames] * len(prompts)))


@torch.no_grad()
def _replies(model: Any, processor: Any, inputs: dict[str, Any]) -> list[str]:
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    replies: list[str] = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


def _table(right: dict[tuple[str, float], dict[str, list[bool]]], samples: int) -> str:
    lines = ["| method | retention | " + " | ".join(GROUPS) + " |", "|---|---|" + "---|" * len(GROUPS)]
    for (name, retention), hits in right.items():
        cells = []
        for prefix in GROUPS.values():
            pooled = [hit for question, values in hits.items() if question.startswith(prefix) for hit in values]
            score = Score(sum(pooled), len(pooled))
            low, high = score.interval()
            cells.append(f"{100 * score.accuracy:.1f} ({100 * low:.0f}–{100 * high:.0f})")
        lines.append(f"| `{name}` | {retention} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{samples} clips; accuracy in %, with Wilson's 95 % interval."])


if __name__ == "__main__":
    main()
