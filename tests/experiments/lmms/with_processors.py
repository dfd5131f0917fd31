"""Benchmark requests with the library's own processors, every family; run by test_processors.py.

A program of its own, because torchvision's operators must be in order before transformers is imported.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.micro.compare_processors import prepare_torchvision

prepare_torchvision()

from PIL import Image  # noqa: E402

from adapters.prompting import prompt  # noqa: E402
from adapters.video import read_video  # noqa: E402
from compressors import build  # noqa: E402
from experiments.lmms.answering import Answerer, Request  # noqa: E402
from experiments.lmms.conversation import inputs_of, prompt_of  # noqa: E402
from experiments.micro.codec import write_clip  # noqa: E402
from tests.adapters import tiny  # noqa: E402
from tests.adapters.from_file_to_answer import VOCABULARY, processor  # noqa: E402

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for item in message['content'] %}"
    "{% if item['type'] == 'video' %}V{% elif item['type'] == 'image' %}I{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
NEW = 3


def dressed(family: tiny.Family) -> Any:
    """The family's processor with a chat template."""
    made, image = processor(family), family.video_text.replace("video>", "image>")
    made.chat_template = TEMPLATE.replace("}V{", f"}}{family.video_text}{{").replace("}I{", f"}}{image}{{")
    return made


def clips(folder: Path) -> list[Path]:
    """Three files: 6, 6 and 4 frames."""
    paths = []
    for index, frames in enumerate((6, 6, 4)):
        pixels = np.random.default_rng(index).integers(0, 256, (frames, 12, 16, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.mp4")
        write_clip(paths[-1], pixels.repeat(4, 1).repeat(4, 2))
    return paths


def request(*items: Any) -> Request:
    """A user turn of texts, paths of videos, and images."""
    content = [
        {"type": "text", "text": item}
        if isinstance(item, str)
        else {"type": "video", "url": str(item)}
        if isinstance(item, Path)
        else {"type": "image", "url": item}
        for item in items
    ]
    return Request(lambda: [{"role": "user", "content": content}], {"max_new_tokens": NEW})


def check(family: tiny.Family, folder: Path) -> None:
    """Inputs as `prompt` makes them; batches answer as one by one; images, and several videos, beside them."""
    made, (one, two, short) = dressed(family), clips(folder)
    asked = request(one, "what moves?")
    mine = inputs_of(made, [prompt_of(made, asked.messages(), read_video)])
    theirs = prompt(made, "what moves?", read_video(one))
    assert mine.keys() == theirs.keys(), (mine.keys(), theirs.keys())
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)

    model = tiny.build(family, vocabulary=VOCABULARY)
    model.generation_config.suppress_tokens = [tiny.IMAGE, tiny.VIDEO]
    picture = Image.fromarray(np.random.default_rng(9).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    questions = [
        asked,
        request(two, "and what, in this longer question?"),
        request("are you there?"),
        request(short, "what stands still?"),
        request(picture, "what is this?"),
        request(one, two, "what changed?"),
        request(picture, one, "is it in there?"),
    ]
    for method in ("none", "vidcom2"):
        alone, together = (Answerer(model, made, build(method), {}, batch=batch) for batch in (1, 3))
        first, second = alone.answer(questions), together.answer(questions)
        assert [a.text for a in first] == [a.text for a in second], (first, second)
        assert [a.input_tokens for a in first] == [a.input_tokens for a in second]
        assert alone.totals.videos == together.totals.videos == 6
        assert alone.totals.kept == together.totals.kept
        assert (alone.totals.kept == alone.totals.visual) == (method == "none")


def main() -> None:
    """All core families; exit status 1 if one is off, after saying which and why."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for family in tiny.CORE.values():
            try:
                check(family, Path(folder))
                print(f"{family}: as one by one")
            except Exception as error:
                failed = True
                print(f"{family}: {type(error).__name__}: {error}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
