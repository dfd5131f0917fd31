"""Checkpoints in the layout of the release become this package's, every key accounted for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from adapters.errors import LoadError
from adapters.llava_video import LlavaVideoForConditionalGeneration
from adapters.llava_video.convert import convert, main
from adapters.llava_video.release import configuration
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


def release_of(model: Any) -> dict[str, Any]:
    """What the release's config.json says of such a model, LLaVA-Video's newlines and pooling included."""
    text = model.config.text_config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {
        **{name: getattr(text, name) for name in (*names, "num_key_value_heads", "rms_norm_eps")},
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "rope_theta": 100.0,
        "rope_scaling": None,
        "mm_vision_tower": "a tiny one",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_spatial_pool_mode": "bilinear",
        "mm_newline_position": "grid",
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": "(1x1),...,(2x3)",
        "torch_dtype": "float32",
        "tie_word_embeddings": model.config.tie_word_embeddings,
    }


def released(folder: Path, shards: int = 1, model: Any = None, **changed: Any) -> tuple[Any, dict[str, Any]]:
    """A tiny checkpoint as the release writes it; returns the model it holds, and its tower's configuration.

    Args:
        folder: to be made.
        shards: files of weights.
        model: LLaVA-Video's if not given.
        changed: settings of config.json; None leaves one out.
    """
    model = tiny.build(FAMILY, vocabulary=BYTES) if model is None else model
    folder.mkdir()
    described = {key: value for key, value in (release_of(model) | changed).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(described))
    tokenizer().save_pretrained(folder)
    weights = as_released(model)
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
    else:
        where = {key: f"model-{i % shards}.safetensors" for i, key in enumerate(weights)}
        for name in set(where.values()):
            save_file({key: value for key, value in weights.items() if where[key] == name}, folder / name)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return model, {"model_type": "siglip_vision_model", **model.config.vision_config.to_diff_dict()}


def assert_same(folder: Path, model: Any, inputs: dict[str, Tensor]) -> Any:
    """The checkpoint in `folder` has every weight of `model`, bit by bit, and its logits; returns what was loaded."""
    got, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert isinstance(got, LlavaVideoForConditionalGeneration)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    want = model.state_dict()
    assert got.state_dict().keys() == want.keys()
    assert all(torch.equal(value, want[key]) for key, value in got.state_dict().items())
    with torch.no_grad():
        logits, ids = model(**inputs).logits, inputs["input_ids"]
        ours = {**inputs, "input_ids": torch.where(ids == tiny.VIDEO, got.config.video_token_id, ids)}
        torch.testing.assert_close(got.eval()(**ours).logits, logits, rtol=1e-4, atol=1e-4)
    return got


@pytest.mark.parametrize("shards", [1, 3])
def test_a_converted_checkpoint_is_the_model(tmp_path: Path, shards: int) -> None:
    model, tower = released(tmp_path / "old", shards)
    unused = convert(tmp_path / "old", tmp_path / "new", tower=tower).unused
    assert len(unused) == 16 + 2
    assert unused[f"{TOWER}head.probe"].startswith("the tower's pooling head")
    assert "last layer" in unused[f"{TOWER}encoder.layers.2.self_attn.k_proj.weight"]
    assert not list((tmp_path / "new").glob("*.bin"))

    got = assert_same(tmp_path / "new", model, tiny.prompt(FAMILY, tiny.LAYOUTS["one"]))
    config, text = got.config, AutoTokenizer.from_pretrained(tmp_path / "new")
    assert (config.spatial_pool_mode, config.newline_position, config.vision_feature_layer) == ("average", "grid", -1)
    assert config.text_config.rope_parameters["rope_theta"] == 100.0
    assert config.image_grid_pinpoints == [[10 * h, 10 * w] for h in (1, 2) for w in (1, 2, 3)]
    assert text.convert_tokens_to_ids(["<image>", "<video>"]) == [config.image_token_id, config.video_token_id]
    assert text.decode([config.video_token_id]) == "<video>"
    assert text.padding_side == "left"


def test_a_onevision_checkpoint_is_the_library_s_model(tmp_path: Path) -> None:
    """At the published grid: 27×27 patches, 14×14 tokens and one newline, against the library's own class."""
    config = tiny.FAMILIES["llava_onevision"].config()
    config.vision_config.image_size = 27 * tiny.PATCH
    config.text_config.vocab_size = BYTES
    model = LlavaOnevisionForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    tiny.randomize(model)
    _, tower = released(tmp_path / "old", model=model, mm_newline_position="one_token")
    done = convert(tmp_path / "old", tmp_path / "new", tower=tower)
    assert done.taken["spatial_pool_mode"] == done.taken["newline_position"] == "config.json"
    assert len(done.unused) == 16 + 2
    stated = json.loads((tmp_path / "new" / "processor_config.json").read_text())
    setting = {"newline_position": "one_token", "spatial_pool_mode": "bilinear", "spatial_pool_stride": 2}
    assert {key: stated[key] for key in (*setting, "num_image_tokens")} == {**setting, "num_image_tokens": 27 * 27}

    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([[20, 21, *[tiny.VIDEO] * (2 * 14 * 14 + 1), 22, 23]])
    pixels = torch.randn(1, 2, 3, 54, 54, generator=generator)
    got = assert_same(tmp_path / "new", model, {"input_ids": ids, "pixel_values_videos": pixels})
    assert {key: getattr(got.config, key) for key in setting} == setting


@pytest.mark.parametrize("stored", [False, True])
def test_tied_embeddings(tmp_path: Path, stored: bool) -> None:
    """The head may be left out of the file, as it is of the 0.5B model's, or be in it once more."""
    model, tower = tied(tmp_path / "old", torch.clone if stored else None)
    unused = convert(tmp_path / "old", tmp_path / "new", tower=tower).unused
    assert unused.get("lm_head.weight") == ("tied to the embeddings" if stored else None)
    assert len(unused) == 16 + 2 + stored
    got = assert_same(tmp_path / "new", model, tiny.prompt(FAMILY, tiny.LAYOUTS["one"]))
    assert got.lm_head.weight is got.get_input_embeddings().weight
    assert got.config.tie_word_embeddings


def tied(folder: Path, head: Callable[[Tensor], Tensor] | None = None) -> tuple[Any, dict[str, Any]]:
    """As `released`, embeddings tied; `head` makes a head for the file from the embeddings."""
    config = tiny.build(FAMILY, vocabulary=BYTES).config
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    model = LlavaVideoForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    tiny.randomize(model)
    made = released(folder, model=model)
    if head is not None:
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = head(weights["model.embed_tokens.weight"])
        save_file(weights, folder / "model.safetensors")
    return made


def test_a_head_that_is_not_the_embeddings_is_not_dropped(tmp_path: Path) -> None:
    """One of file and configuration lies, whichever way."""
    _, tower = tied(tmp_path / "old", lambda embeddings: embeddings + 1)
    with pytest.raises(LoadError, match=r"tie_word_embeddings, but lm_head\.weight is not model\.embed_tokens\.weight"):
        convert(tmp_path / "old", tmp_path / "new", tower=tower)
    described = json.loads((tmp_path / "old" / "config.json").read_text())
    (tmp_path / "old" / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": False}))
    assert "lm_head.weight" not in convert(tmp_path / "old", tmp_path / "new", tower=tower).unused
    _, tower = tied(tmp_path / "headless")
    (tmp_path / "headless" / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": False}))
    with pytest.raises(LoadError, match=r"Missing: lm_head\.weight.* in config\.json: tie_word_embeddings"):
        convert(tmp_path / "headless", tmp_path / "other", tower=tower)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("newlines", "said", "pool", "mode", "source"),
    [
        ("grid", "bilinear", None, "average", "newlines of LLaVA-Video, which .* config.json says bilinear"),
        ("grid", None, None, "average", "newlines of LLaVA-Video"),
        ("grid", "max", None, "max", "config.json"),
        ("grid", "bilinear", "config", "bilinear", "config.json"),
        ("one_token", "bilinear", None, "bilinear", "config.json"),
        ("one_token", None, None, "bilinear", "newlines of LLaVA-OneVision"),
        ("one_token", "average", None, "average", "config.json"),
        ("one_token", "bilinear", "average", "average", "asked for"),
        (None, "bilinear", None, "bilinear", "config.json"),
        ("frame", "max", None, "max", "config.json"),
        (None, None, "max", "max", "asked for"),
        (None, None, None, None, r"neither mm_spatial_pool_mode nor .* --pool average\|max\|bilinear"),
        ("frame", None, None, None, "neither mm_spatial_pool_mode nor"),
        ("no_token", None, None, None, "neither mm_spatial_pool_mode nor"),
        ("one_token", None, "config", None, "does not say mm_spatial_pool_mode"),
        ("one_token", "cubic", None, None, "mm_spatial_pool_mode='cubic' is not known"),
    ],
)
def test_the_pooling_is_found_or_asked_for(
    newlines: str | None, said: str | None, pool: str | None, mode: str | None, source: str
) -> None:
    """By what the configuration says, else by its newlines, else not at all; and what it is from is said."""
    model = tiny.untouched(FAMILY, vocabulary=BYTES)
    changed = {"mm_newline_position": newlines, "mm_spatial_pool_mode": said}
    described = {key: value for key, value in (release_of(model) | changed).items() if value is not None}
    tower = {"image_size": 10, "patch_size": 2}
    if mode is None:
        with pytest.raises(LoadError, match=source):
            configuration(described, (258, 259), pool, tower)
        return
    config, taken = configuration(described, (258, 259), pool, tower)
    assert config.spatial_pool_mode == mode
    assert re.match(source, taken["spatial_pool_mode"])
    assert config.newline_position == (newlines or "one_token")
    assert taken["newline_position"].startswith("config.json" if newlines else "not in config.json")
    assert config.spatial_pool_stride == 2
    assert taken["spatial_pool_stride"].startswith("not in config.json")


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
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end=True"),
        ({"mm_newline_position": "column"}, "mm_newline_position='column'"),
        ({"mm_spatial_pool_stride": 6}, "mm_spatial_pool_stride=6 does not fit 5×5 patches"),
        ({"vocab_size": 259}, "beyond vocab_size=259"),
        ({"rms_norm_eps": None, "rope_theta": None}, "lacks rms_norm_eps, rope_theta"),
        ({"num_hidden_layers": 1}, r"Unknown .* model\.layers\.1\."),
        ({"num_hidden_layers": 3}, r"Missing: model\.language_model\.layers\.2\."),
        ({"num_key_value_heads": 2}, r"k_proj\.weight \(16, 32\) \(expected \(32, 32\)\)"),
    ],
)
def test_configurations_that_are_not_known_or_not_true_are_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    _, tower = released(tmp_path / "old", **changed)
    with pytest.raises(LoadError, match=message):
        convert(tmp_path / "old", tmp_path / "new", tower=tower)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changed", "rope"),
    [
        ({}, {"rope_type": "default", "rope_theta": 100.0}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0},
        ),
        (
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
            {"rope_type": "default", "rope_theta": 7.0},
        ),
    ],
)
def test_rotary_embeddings_as_either_transformers_writes_them(changed: dict[str, Any], rope: dict[str, Any]) -> None:
    described = release_of(tiny.untouched(FAMILY, vocabulary=BYTES)) | changed
    config, _ = configuration(described, (258, 259), None, {"image_size": 10, "patch_size": 2})
    assert config.text_config.rope_parameters == rope


def test_other_towers_and_pickles_are_refused(tmp_path: Path) -> None:
    _, tower = released(tmp_path / "old")
    with pytest.raises(LoadError, match=r"vision tower 'a tiny one' is not known; known: google/siglip"):
        convert(tmp_path / "old", tmp_path / "new")
    (tmp_path / "old" / "model.safetensors").rename(tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(LoadError, match="pickled ones"):
        convert(tmp_path / "old", tmp_path / "new", tower=tower)


def test_the_command_says_what_was_taken_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tower = released(tmp_path / "old")
    monkeypatch.setattr("adapters.llava_video.release.TOWERS", {"a tiny one": tower})
    monkeypatch.setattr(sys, "argv", ["convert", str(tmp_path / "old"), str(tmp_path / "new")])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("not used: ") for line in lines) == 16 + 2
    assert "newline_position: grid (config.json)" in lines
    assert any(
        re.match(r"spatial_pool_mode: average \(.*LLaVA-Video.*says bilinear.*--pool config", line) for line in lines
    )
    assert lines[-2:] == ["a frame: 5×5 patches, 2×2 tokens", f"written: {tmp_path / 'new'}"]


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
