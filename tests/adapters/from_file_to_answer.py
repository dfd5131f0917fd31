"""From a video file to an answer with the library's own processors; run by test_processors.py.

File, frames, processor, generate under press, held to truth. The processors are real; the tokenizer knows single bytes
and the special tokens, so nothing is downloaded. A program of its own, because torchvision's operators must be in order
before transformers is imported.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from tests.micro.compare_processors import prepare_torchvision

prepare_torchvision()

import transformers  # noqa: E402
from transformers.video_utils import load_video  # noqa: E402

from adapters.prompting import prompt  # noqa: E402
from adapters.streaming import StreamSession  # noqa: E402
from adapters.video import Video  # noqa: E402
from compressors import build  # noqa: E402
from compressors.budget import Budget  # noqa: E402
from tests.adapters import tiny, truth  # noqa: E402
from tests.adapters.harness import EAGER, STEPS, close, generated  # noqa: E402
from vidpress import press  # noqa: E402

# In the order of the ids in `tiny`.
SPECIAL = ("<pad>", "<eos>", "<image>", "<video>", "<|vision_start|>", "<|vision_end|>", "<6>", "<7>")
VOCABULARY = len(SPECIAL) + 256
FRAMES = 6
SIDE = tiny.LLAVA_SIDE * tiny.PATCH


def write_clip(path: Path) -> None:
    """An H.264 file in which a bright square moves over noise."""
    noise = np.random.default_rng(0).integers(0, 90, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4, width=64, height=48, pix_fmt="yuv420p")
        for i in range(FRAMES):
            frame = noise.copy()
            frame[8 + 3 * i : 24 + 3 * i, 9 * i : 9 * i + 16] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def tokenizer() -> Any:
    """One token per byte, and the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *letters])}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="<eos>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
        padding_side="left",
    )
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL[4:])}, replace_extra_special_tokens=False)
    return fast


def processor(family: tiny.Family) -> Any:
    """The family's processor at the size of the tiny models."""
    if not family.mrope:
        size = {"height": SIDE, "width": SIDE}
        return transformers.LlavaOnevisionProcessor(
            image_processor=transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[SIDE, SIDE]]),
            tokenizer=tokenizer(),
            video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
            num_image_tokens=tiny.LLAVA_SIDE**2,
            vision_feature_select_strategy="full",
        )
    kind = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}.get(family.name, "Qwen3VL")
    videos = transformers.Qwen3VLVideoProcessor if family.timestamps else transformers.Qwen2VLVideoProcessor
    # Qwen3-VL bounds the pixels of the whole video, the others those of a frame.
    size = {"shortest_edge": 64, "longest_edge": 192 * (FRAMES if family.timestamps else 1)}
    patches = {"patch_size": tiny.PATCH, "temporal_patch_size": 2, "merge_size": 2}
    return getattr(transformers, f"{kind}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**patches),
        tokenizer=tokenizer(),
        video_processor=videos(**patches, size=size),
    )


def check(family: tiny.Family, clip: Path, method: str) -> None:
    """One video question and one text question in a batch, both equal to truth."""
    frames, metadata = load_video(str(clip), backend="pyav")
    place = "<|vision_start|><video><|vision_end|>" if family.mrope else "<video>"
    inputs = processor(family)(
        text=[f"user: {place} what moves? assistant:", "user: are you there? assistant:"],
        videos=[frames],
        videos_kwargs={"video_metadata": [metadata], "do_sample_frames": False},
        padding=True,
        return_tensors="pt",
    )
    inputs = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    model, reference = (make(family, vocabulary=VOCABULARY) for make in (tiny.build, tiny.untouched))
    with press(model, method, retention=0.25) as report:
        out = generated(model, inputs)
    (video,) = report.videos
    assert video.kept == round(0.25 * video.tokens) < video.tokens, f"{video.kept} of {video.tokens} kept"
    results = truth.compress(reference, family, inputs, build(method), Budget(retention=0.25))
    for b, row in enumerate(truth.rows(reference, family, inputs)):
        want = truth.greedy(reference, truth.pruned(row, results), STEPS)
        assert out.tokens[b].tolist() == want.tokens.tolist(), f"row {b}: {out.tokens[b]} != {want.tokens}"
        close(out.logits[b], want.logits, EAGER)


TEMPLATE = (
    "{% for turn in messages %}{{ turn.role }}:{% for item in turn.content %}"
    "{% if item.type == 'video' %}PLACE{% else %}{{ item.text }}{% endif %}{% endfor %};{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def check_stream(family: tiny.Family) -> None:
    """A stream on the processor's own template and pixels is one prefill of the same prompt."""
    reader = processor(family)
    place = "<|vision_start|><video><|vision_end|>" if family.mrope else "<video>\n"
    reader.chat_template = TEMPLATE.replace("PLACE", place)
    model = tiny.untouched(family, vocabulary=VOCABULARY)
    shown = torch.randint(0, 256, (FRAMES, 12, 16, 3), dtype=torch.uint8)
    times = tuple(i / 2 for i in range(FRAMES))
    inputs = prompt(reader, "what?", Video(shown, times, 2.0, FRAMES / 2, Path("clip")))
    with torch.no_grad():
        want = model(**inputs).logits[0, -1]
    for form in ("video", "turns"):
        stream = StreamSession(model, reader, memory="full", form=form, chunk=FRAMES if form == "turns" else None)
        for piece in torch.split(shown, 1):
            stream.feed(piece)
        answer = stream.ask("what?", logits=True)
        if form == "video":
            close(answer.logits[0], want, EAGER)


def main() -> None:
    """All families; exit status 1 if one is off, after saying which and why."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip)
        for family in tiny.FAMILIES.values():
            for method in ("vidcom2", "average_pool"):
                try:
                    check(family, clip, method)
                    print(f"{family} {method}: as truth")
                except Exception as error:
                    failed = True
                    print(f"{family} {method}: {type(error).__name__}: {error}")
    for family in tiny.FAMILIES.values():
        try:
            check_stream(family)
            print(f"{family} stream: as truth")
        except Exception as error:
            failed = True
            print(f"{family} stream: {type(error).__name__}: {error}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
