"""Prompts by layout, for models without processor files: what press finds in them, family by family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from adapters.errors import UnsupportedError
from adapters.family import family_of
from adapters.prompting import LayoutProcessor, answer, metadata, places_per_group, prompt, prompts
from adapters.video import Video
from tests.adapters import tiny
from vidpress import press

pytestmark = pytest.mark.quick
BYTES = 300  # a vocabulary with room for every byte


def video(frames: int = 5, height: int = 24, width: int = 40) -> Video:
    pixels = torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8)
    return Video(pixels, tuple(0.5 * i for i in range(frames)), 30.0, 0.5 * frames, Path("clip.mp4"))


def test_a_prompt_by_layout_is_understood(family: tiny.Family) -> None:
    model = tiny.build(family, vocabulary=BYTES)
    processor = LayoutProcessor(model)
    inputs = prompt(processor, "What is it?", video())
    placeholders = int(family_of(model).video_mask(model, inputs["input_ids"]).sum())
    with press(model, "vidcom2", retention=0.25) as report:
        output = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    (seen,) = report.videos
    shape = (len(seen.budgets), *seen.grid)
    assert report.placeholders == placeholders == seen.tokens + int((~family.visual(shape)).sum())
    assert len(seen.budgets) == -(-5 // family_of(model).frames_per_group(model))
    assert seen.kept == round(0.25 * seen.tokens)
    assert isinstance(answer(processor, inputs, output), str)


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_places_per_group_are_those_of_the_report(family: tiny.Family, frames: int) -> None:
    model = tiny.build(family, vocabulary=BYTES)
    processor = LayoutProcessor(model)
    with press(model, "vidcom2", retention=0.5) as report:
        model.generate(**prompt(processor, "What is it?", video(frames)), max_new_tokens=1, do_sample=False)
    (seen,) = report.videos
    assert places_per_group(model, processor, frames, 24, 40) == seen.tokens // len(seen.budgets)
    assert len(seen.budgets) == -(-frames // family_of(model).frames_per_group(model))


def test_timestamps_stand_before_each_group() -> None:
    processor = LayoutProcessor(tiny.build(tiny.FAMILIES["qwen3_vl"], vocabulary=BYTES))
    ids = prompt(processor, "?", video(frames=4))["input_ids"][0].tolist()
    text = bytes(i for i in ids if 32 <= i < 128).decode()
    assert "<0.5 seconds><1.5 seconds>" in text


@pytest.mark.parametrize(("height", "width"), [(24, 40), (4, 4), (4, 2000), (1080, 1920), (3000, 40)])
def test_sizes_stay_within_the_published_limits(height: int, width: int) -> None:
    rows, columns = (
        side // 28 for side in family_of(tiny.untouched(tiny.FAMILIES["qwen2_vl"])).size(height, width, 28)
    )
    assert 1 <= rows * columns <= 768
    assert rows * columns >= 64, "about 128 at least, up to rounding"


def test_times_are_exact_at_any_rate() -> None:
    told = metadata(video(frames=3))
    assert told.timestamps == [0.0, 0.5, 1.0]
    assert told.sampled_fps == 2.0


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"llama.*not supported"):
        LayoutProcessor(tiny.tiny_llama())


class AssumesARate:
    """A processor in the manner of the Omni models': whatever the frames are, they come at its own rate."""

    video_processor = SimpleNamespace(temporal_patch_size=2)
    model_input_names = ("input_ids", "pixel_values_videos")

    def apply_chat_template(self, *args: object, **kwargs: object) -> str:
        return "prompt"

    def __call__(self, videos: list[torch.Tensor], **kwargs: object) -> dict[str, torch.Tensor]:
        return {"video_second_per_grid": torch.ones(len(videos))}


def test_seconds_per_group_are_those_of_the_frames() -> None:
    one = video(frames=4)  # two a second
    other = replace(one, timestamps=tuple(2.0 * i for i in range(4)))
    seconds = prompts(AssumesARate(), ["?", "?"], [one, other])["video_second_per_grid"]
    assert seconds.tolist() == [1.0, 4.0]
    alone = prompt(AssumesARate(), "?", video(frames=1))["video_second_per_grid"]
    assert alone.tolist() == [1.0]  # its only frame stands for the whole half second, twice
