"""The embedded model's preprocessing: shapes, order of patches, padding, and equality with the library's processor."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adapters.micro import MicroProcessor, weights_dir
from adapters.micro.processing import Pixels, patches_of, patchify, smart_resize
from tests.extras import needs_processors, run


@pytest.fixture(scope="module")
def processor() -> MicroProcessor:
    return MicroProcessor.from_pretrained(weights_dir())


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_patch_order_by_an_independent_formula() -> None:
    frames = torch.arange(4 * 56 * 84 * 3).reshape(4, 56, 84, 3)
    patches = patchify(frames)
    assert patches.shape == (2 * 4 * 6, 1176)
    rows, columns = 2, 3  # of merged tokens
    for index in range(len(patches)):
        token, within = divmod(index, 4)
        time, place = divmod(token, rows * columns)
        y = 2 * (place // columns) + within // 2
        x = 2 * (place % columns) + within % 2
        cut = frames[2 * time : 2 * time + 2, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14]
        assert torch.equal(patches[index], cut.permute(3, 0, 1, 2).flatten())


def test_values_are_normalised_per_channel(processor: MicroProcessor) -> None:
    patches, grid = patches_of(noise(2, 112, 112), processor.pixels)
    assert grid.tolist() == [1, 8, 8]
    mean, std = (torch.tensor(v) for v in (processor.pixels.mean, processor.pixels.std))
    back = patches.view(-1, 3, 2 * 14 * 14) * std[:, None] + mean[:, None]
    expected = patchify(noise(2, 112, 112)).view(-1, 3, 2 * 14 * 14) / 255
    torch.testing.assert_close(back, expected)


def test_an_odd_last_frame_is_repeated(processor: MicroProcessor) -> None:
    frames = noise(5, 112, 112)
    padded, grid = patches_of(frames, processor.pixels)
    whole, _ = patches_of(torch.cat([frames, frames[-1:]]), processor.pixels)
    assert grid.tolist() == [3, 8, 8]
    assert torch.equal(padded, whole)


def test_resizing_is_bicubic_with_antialiasing(processor: MicroProcessor) -> None:
    waves = torch.sin(torch.arange(100)[:, None, None] / 9 + torch.arange(190)[:, None] / 17 + torch.arange(3))
    frames = (128 + 100 * waves).byte().expand(2, -1, -1, -1)
    patches, grid = patches_of(frames, processor.pixels)
    assert grid.tolist() == [1, 8, 14]
    smooth = F.interpolate(frames.permute(0, 3, 1, 2).float(), (112, 196), mode="bicubic", antialias=True)
    expected, _ = patches_of(smooth.round().clamp(0, 255).byte().permute(0, 2, 3, 1), processor.pixels)
    assert (patches - expected).abs().max() < 0.04  # at most two grey levels


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(112, 168, (112, 168)), (60, 50, (140, 112)), (720, 1280, (336, 588)), (14, 2800, (28, 1596))],
)
def test_smart_resize(height: int, width: int, expected: tuple[int, int]) -> None:
    assert smart_resize(height, width, 112 * 112, 448 * 448) == expected


def test_a_batch_is_padded_on_the_left(processor: MicroProcessor) -> None:
    prompts = [processor.prompt("Which shape flashed?"), processor.prompt("Count the scenes."), "no video at all"]
    inputs = processor(prompts, [noise(4, 112, 112), noise(6, 112, 168)])
    assert inputs["video_grid_thw"].tolist() == [[2, 8, 8], [3, 8, 12]]
    assert inputs["pixel_values_videos"].shape == (2 * 64 + 3 * 96, 1176)
    assert (inputs["input_ids"] == processor.video_token_id).sum(1).tolist() == [2 * 16, 3 * 24, 0]
    assert (inputs["mm_token_type_ids"] == 2).sum(1).tolist() == [2 * 16, 3 * 24, 0]
    lengths = inputs["attention_mask"].sum(1)
    for row, length in enumerate(lengths.tolist()):
        assert inputs["attention_mask"][row, -length:].all()
        assert (inputs["input_ids"][row, :-length] == processor.tokenizer.pad_token_id).all()
    alone = processor(prompts[0], noise(4, 112, 112))
    assert torch.equal(alone["input_ids"][0], inputs["input_ids"][0, -alone["input_ids"].shape[1] :])


def test_a_conversation_with_frames_becomes_inputs(processor: MicroProcessor) -> None:
    frames = noise(4, 112, 112)
    content = [{"type": "video", "video": frames}, {"type": "text", "text": "Count the scenes."}]
    conversation = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True)
    expected = processor(processor.prompt("Count the scenes."), frames)
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[key], expected[key]) for key in expected)


def test_wrong_input(processor: MicroProcessor) -> None:
    with pytest.raises(ValueError, match=r"1 places for videos .* 2 videos"):
        processor(processor.prompt("Count the scenes."), [noise(2, 112, 112)] * 2)
    for frames in (
        noise(2, 112, 112).float(),
        noise(2, 112, 112).permute(0, 3, 1, 2),
        noise(112, 112),
        noise(0, 28, 28),
    ):
        with pytest.raises(ValueError, match="uint8"):
            patches_of(frames, processor.pixels)
    with pytest.raises(ValueError, match="elongated"):
        patches_of(noise(2, 2, 500), processor.pixels)


@needs_processors
def test_equal_to_the_librarys_processor() -> None:
    run("tests.micro.compare_processors")


def test_pixels_are_read_from_the_checkpoint(processor: MicroProcessor) -> None:
    assert processor.pixels == Pixels.load(weights_dir())
    assert processor.pixels.smallest == 112 * 112
