"""The Omni models: a press is for the thinker, which is also what their checkpoints are loaded as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from adapters import UnsupportedError, loading
from adapters.qwen2_5_omni import SEVERAL_SOUNDS
from tests.adapters import tiny
from tests.adapters.given import Given
from tests.adapters.harness import generated
from vidpress import press

WHOLES = {
    "qwen2_5_omni": ("Qwen2_5OmniForConditionalGeneration", "Qwen2_5OmniConfig"),
    "qwen3_omni": ("Qwen3OmniMoeForConditionalGeneration", "Qwen3OmniMoeConfig"),
}


def whole_config(family: tiny.Family) -> Any:
    """A whole model without its talker."""
    config = getattr(transformers, WHOLES[family.name][1])(thinker_config=family.config().to_dict())
    config.enable_audio_output = False
    return config


def published_name(name: str) -> str:
    """Where a published checkpoint has a thinker's weight."""
    for part in ("visual.", "audio_tower."):
        if name.removeprefix("model.").startswith(part):
            return f"thinker.{name.removeprefix('model.')}"
    return f"thinker.{name.replace('model.language_model.', 'model.')}"


@pytest.mark.parametrize("name", WHOLES)
def test_the_whole_model_names_its_thinker(name: str) -> None:
    family = tiny.FAMILIES[name]
    with torch.device("meta"):
        model = getattr(transformers, WHOLES[name][0])._from_config(whole_config(family))
    with pytest.raises(UnsupportedError, match=r"is more than its thinker.*press\(model\.thinker"):
        press(model)
    assert press(model.thinker, "stride").family is family.known


@pytest.mark.parametrize("name", WHOLES)
def test_a_published_checkpoint_is_loaded_as_its_thinker(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights named as in the published files, those of a talker among them; nothing is missing or left random."""
    family = tiny.FAMILIES[name]
    want = tiny.untouched(family)
    whole_config(family).save_pretrained(tmp_path)
    weights = {published_name(key): value.contiguous() for key, value in unpacked(want.state_dict()).items()}
    weights["talker.model.norm.weight"] = torch.ones(2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(loading.AutoProcessor, "from_pretrained", lambda *args, **kwargs: "processor")
    model, processor = loading.load_published(str(tmp_path), device="cpu", dtype="float32")
    assert processor == "processor"
    assert type(model).__name__ == family.model_class
    for key, value in want.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def unpacked(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Experts one by one, as published; the library packs them when it loads them."""
    found = {}
    for key, value in weights.items():
        if key.endswith("experts.gate_up_proj"):
            for number, both in enumerate(value):
                gate, up = both.chunk(2)
                found[key.replace("gate_up_proj", f"{number}.gate_proj.weight")] = gate
                found[key.replace("gate_up_proj", f"{number}.up_proj.weight")] = up
        elif key.endswith("experts.down_proj"):
            for number, down in enumerate(value):
                found[key.replace("down_proj", f"{number}.down_proj.weight")] = down
        else:
            found[key] = value
    return found


@pytest.mark.parametrize("name", ["qwen2_5_omni_audio", "qwen3_omni_audio"])
def test_what_one_call_asks_for_may_be_refused(name: str) -> None:
    """What the talker needs, and beams where a sample has several sounds; without a video neither matters."""
    family = tiny.FAMILIES[name]
    rows = tiny.LAYOUTS["two"]
    inputs, given = tiny.prompt(family, rows), Given(tiny.ragged_keeps(family, rows))
    model = tiny.build(family)
    with press(model, given):
        with pytest.raises(UnsupportedError, match=r"output_hidden_states: not supported.*generation_mode='text'"):
            generated(model, inputs, output_hidden_states=True)
        if family.known.refuses.get("beams") is None:
            with pytest.raises(UnsupportedError, match=f"beams: not supported.*{SEVERAL_SOUNDS}"):
                generated(model, inputs, num_beams=2)
        generated(model, tiny.prompt(family, tiny.TEXT_ONLY), output_hidden_states=True, num_beams=2)


def test_sounds_are_no_question() -> None:
    """A method that looks at the question takes the text after the last medium, and sounds are media."""
    family = tiny.FAMILIES["qwen2_5_omni_audio"]
    inputs = tiny.prompt(family, tiny.LAYOUTS["one"])
    mask = family.known.media_mask(tiny.untouched(family), inputs["input_ids"])
    kinds = set(inputs["input_ids"][mask].tolist())
    assert kinds == {tiny.VIDEO, 6}


def test_settings_are_published_ones() -> None:
    """The thinker alone is described, with its marks: without them the library finds no video for its positions."""
    for name in WHOLES:
        described = json.loads((Path(__file__).parents[2] / "conf" / "model" / f"{name}.json").read_text())
        assert described["model_type"] in tiny.FAMILIES[name].known.model_types
        assert {"vision_start_token_id", "audio_start_token_id", "audio_config"} <= described.keys()
