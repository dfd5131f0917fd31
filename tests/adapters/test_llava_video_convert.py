"""Checkpoints in the layout of the release become this package's, every key accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, PreTrainedTokenizerFast

from adapters.errors import LoadError
from adapters.llava_video import LlavaVideoForConditionalGeneration
from adapters.llava_video.convert import convert
from adapters.loading import load_published
from tests.adapters import tiny

FAMILY = tiny.FAMILIES["llava_video"]
BYTES = 300
TOWER = "model.vision_tower.vision_tower.vision_model."


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the ends."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens = Tokenizer(models.BPE({token: i for i, token in enumerate(letters)}, merges=[]))
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="<eos>")


def as_released(model: Any) -> dict[str, Tensor]:
    """A model's weights under the release's names, with what its checkpoints hold besides."""
    renamed = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if key.startswith("model.vision_tower."):
            key = TOWER + ".".join(parts[2:])
        elif "multi_modal_projector" in key:
            key = f"model.mm_projector.{ {'linear_1': 0, 'linear_2': 2}[parts[2]] }.{parts[3]}"
        elif key.startswith("model.language_model."):
            key = "model." + ".".join(parts[2:])
        renamed[key] = value.clone().contiguous()
    deleted = {k: v.clone() for k, v in renamed.items() if k.startswith(f"{TOWER}encoder.layers.1.")}
    renamed |= {key.replace("layers.1.", "layers.2."): value for key, value in deleted.items()}
    renamed |= {
        f"{TOWER}head.probe": torch.zeros(1, 1, 16),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    return renamed


def released(folder: Path, shards: int = 1, **changed: Any) -> tuple[Any, dict[str, Any]]:
    """A tiny checkpoint as the release writes it; returns the model it holds, and its tower's configuration."""
    model = tiny.build(FAMILY, vocabulary=BYTES)
    text = model.config.text_config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    described = {name: getattr(text, name) for name in (*names, "num_key_value_heads", "rms_norm_eps")}
    described |= {"architectures": ["LlavaQwenForCausalLM"], "model_type": "llava", "rope_theta": 100.0}
    described |= {
        "mm_vision_tower": "a tiny one",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
    }
    described |= {
        "mm_spatial_pool_mode": "bilinear",
        "mm_newline_position": "grid",
        "image_aspect_ratio": "anyres_max_9",
    }
    described |= {"image_grid_pinpoints": "(1x1),...,(2x3)", "torch_dtype": "float32", "tie_word_embeddings": False}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(described | changed))
    tokenizer().save_pretrained(folder)
    weights = as_released(model)
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
    else:
        where = {key: f"model-{i % shards}.safetensors" for i, key in enumerate(weights)}
        for name in set(where.values()):
            save_file({key: value for key, value in weights.items() if where[key] == name}, folder / name)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return model, {"model_type": "siglip_vision_model", **model.config.vision_config.to_diff_dict()}


@pytest.mark.parametrize("shards", [1, 3])
def test_a_converted_checkpoint_is_the_model(tmp_path: Path, shards: int) -> None:
    model, tower = released(tmp_path / "old", shards)
    unused = convert(tmp_path / "old", tmp_path / "new", tower=tower)
    assert len(unused) == 16 + 2
    assert unused[f"{TOWER}head.probe"].startswith("the tower's pooling head")
    assert "last layer" in unused[f"{TOWER}encoder.layers.2.self_attn.k_proj.weight"]
    assert not list((tmp_path / "new").glob("*.bin"))

    got, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert isinstance(got, LlavaVideoForConditionalGeneration)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    want = model.state_dict()
    assert got.state_dict().keys() == want.keys()
    assert all(torch.equal(value, want[key]) for key, value in got.state_dict().items())

    config, text = got.config, AutoTokenizer.from_pretrained(tmp_path / "new")
    assert (config.spatial_pool_mode, config.newline_position, config.vision_feature_layer) == ("average", "grid", -1)
    assert config.text_config.rope_parameters["rope_theta"] == 100.0
    assert config.image_grid_pinpoints == [[10 * h, 10 * w] for h in (1, 2) for w in (1, 2, 3)]
    assert text.convert_tokens_to_ids(["<image>", "<video>"]) == [config.image_token_id, config.video_token_id]
    assert text.decode([config.video_token_id]) == "<video>"
    assert text.padding_side == "left"
    inputs = tiny.prompt(FAMILY, tiny.LAYOUTS["one"])
    with torch.no_grad():
        logits = model(**inputs).logits
        ids = inputs["input_ids"]
        inputs["input_ids"] = torch.where(ids == tiny.VIDEO, config.video_token_id, ids)
        torch.testing.assert_close(got.eval()(**inputs).logits, logits, rtol=1e-4, atol=1e-4)


def test_the_pooling_can_be_the_configuration_s(tmp_path: Path) -> None:
    _, tower = released(tmp_path / "old")
    convert(tmp_path / "old", tmp_path / "new", pool="config", tower=tower)
    assert AutoConfig.from_pretrained(tmp_path / "new").spatial_pool_mode == "bilinear"


def test_keys_that_do_not_match_are_named(tmp_path: Path) -> None:
    model, tower = released(tmp_path / "old")
    weights = as_released(model)
    weights["model.mm_projector.4.weight"] = torch.zeros(2)
    weights["model.norm.weight"] = torch.zeros(3)
    del weights["model.image_newline"]
    save_file(weights, tmp_path / "old" / "model.safetensors")
    with pytest.raises(LoadError) as refused:
        convert(tmp_path / "old", tmp_path / "new", tower=tower)
    message = str(refused.value)
    assert "Missing: model.image_newline, model.language_model.norm.weight" in message
    assert "model.mm_projector.4.weight (2,)" in message
    assert "model.norm.weight (3,) (expected (32,))" in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type=linear"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type=perceiver"),
        ({"add_faster_video": True}, "add_faster_video=True"),
        ({"mm_newline_position": "column"}, "newlines 'column'"),
        ({"vocab_size": 259}, "beyond vocab_size=259"),
    ],
)
def test_settings_that_are_not_known_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    _, tower = released(tmp_path / "old", **changed)
    with pytest.raises(LoadError, match=message):
        convert(tmp_path / "old", tmp_path / "new", tower=tower)


def test_other_towers_and_pickles_are_refused(tmp_path: Path) -> None:
    _, tower = released(tmp_path / "old")
    with pytest.raises(LoadError, match=r"vision tower 'a tiny one' is not known; known: google/siglip"):
        convert(tmp_path / "old", tmp_path / "new")
    (tmp_path / "old" / "model.safetensors").rename(tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(LoadError, match="pickled ones"):
        convert(tmp_path / "old", tmp_path / "new", tower=tower)


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "adapters.llava_video.convert", str(tmp_path), str(tmp_path / "new")]
    done = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/config.json could not be read")
    with pytest.raises(LoadError, match="would be written over"):
        convert(tmp_path, tmp_path / "." / ".")


def test_loading_the_release_names_the_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released(tmp_path / "old")
    monkeypatch.setattr("adapters.loading.importlib.util.find_spec", lambda name: object())
    with pytest.raises(
        LoadError, match=r"/old is in .* python -m adapters\.llava_video\.convert .*/old TARGET, then [^ ]+ [^ ]+$"
    ):
        load_published(str(tmp_path / "old"), device="cpu")
