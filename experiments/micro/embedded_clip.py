"""Write the clip that ships with the model: `python -m experiments.micro.embedded_clip --output DIR`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from adapters.micro import weights_dir
from experiments.micro.clips import render, sample_clip
from experiments.micro.codec import write_clip
from experiments.micro.questions import QUESTIONS, answers

SEED = 7


def main() -> None:
    """Write `clip.mp4` and, with its questions and answers, `clip.json`."""
    parser = argparse.ArgumentParser(description="Write the embedded clip.")
    parser.add_argument("--output", type=Path, default=weights_dir())
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    spec = sample_clip(np.random.default_rng((2**32, options.seed)), frames=32)
    write_clip(options.output / "clip.mp4", render(spec), crf=16)
    right = answers(spec)
    asked = [{"type": q.name, "question": q.phrasings[0], "answer": right[q.name]} for q in QUESTIONS]
    about = {"frames": spec.frames, "height": spec.height, "width": spec.width, "flash_pair": spec.flash_pair}
    content = {**about, "first_pair_of_scene": spec.cuts, "questions": asked}
    (options.output / "clip.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
