"""What is peculiar to GLM: images and videos are written with one token."""

from __future__ import annotations

import pytest
import torch

from tests.adapters import tiny
from tests.adapters.given import Given
from vidpress import press

FAMILIES = ("glm4v", "glm46v", "glm4v_moe")
MIXED = tiny.LAYOUTS["image"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_library_refuses_images_beside_videos(name: str) -> None:
    """So that every image token of a prompt with a video is the video's, which is what the adapter takes it for."""
    family = tiny.FAMILIES[name]
    inputs, given = tiny.prompt(family, MIXED), Given(tiny.ragged_keeps(family, MIXED))
    model = tiny.build(family)
    with torch.no_grad(), pytest.raises(ValueError, match="features and image tokens do not match"):
        model(**inputs)
    with (
        torch.no_grad(),
        press(model, given),
        pytest.raises(ValueError, match="features and image tokens do not match"),
    ):
        model(**inputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_between_a_video_s_marks_is_no_question(name: str) -> None:
    """Its timestamps too, the last of which stands behind its last token."""
    family = tiny.FAMILIES[name]
    inputs = tiny.prompt(family, tiny.LAYOUTS["padded"])
    media = family.known.media_mask(tiny.untouched(family), inputs["input_ids"])
    for row, mask in zip(inputs["input_ids"].tolist(), media.tolist(), strict=True):
        start, end = row.index(6), row.index(7)
        assert mask == [start <= i < end for i in range(len(row))]
