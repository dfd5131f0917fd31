"""Write clips and questions that the embedded model can answer: `python examples/lmms_task/make_clips.py`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from experiments.micro.clips import render, sample_clip
from experiments.micro.codec import write_clip
from experiments.micro.questions import answers, ask

ASKED = ("flash_shape", "flash_colour", "mover_shape")
SIZES = ((16, 112, 112), (24, 112, 140), (32, 112, 168))  # frames, height, width


def main() -> None:
    """Write `data/questions.json` and the files it names."""
    parser = argparse.ArgumentParser(description="Write clips and questions.")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    questions = []
    for index in range(options.clips):
        rng = np.random.default_rng((2**33, options.seed, index))
        spec, asked = sample_clip(rng, *SIZES[index % len(SIZES)]), ask(rng)
        name = f"clip_{index:02}.mp4"
        write_clip(options.output / name, render(spec))
        right = answers(spec)
        questions += [{"video": name, "question": asked[kind], "answer": right[kind]} for kind in ASKED]
    (options.output / "questions.json").write_text(json.dumps(questions, indent=1) + "\n")
    print(f"{len(questions)} questions about {options.clips} clips in {options.output}")


if __name__ == "__main__":
    main()
