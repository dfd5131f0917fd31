"""Taps on vision towers: what they read, that they change nothing, and that they leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from adapters import attention_rows, family_of
from adapters.errors import UnsupportedError
from adapters.recording import Recording
from adapters.taps import Taps
from adapters.tower import Tower, batched_tower
from compressors import rows as method_rows
from compressors.base import Compression, Compressor
from compressors.errors import RequirementError
from compressors.requirements import Attention, FrameFeatures, Keys, Requirement
from compressors.tokens import VideoTokens
from tests.adapters import tiny
from tests.adapters.tiny.families.llava_onevision import SIDE as LLAVA_SIDE
from vidpress import press

pytestmark = pytest.mark.core
LAYOUT = "ragged"  # three rows, three videos of two sizes, one row without any
IMPLEMENTATIONS = ("eager", "sdpa")
NEEDS = (Attention(-1, "column_mean"), Keys(-2), FrameFeatures())


@dataclass(frozen=True, eq=False)
class Spy(Compressor):
    """Keeps every `step`-th token and remembers what it was given."""

    needs: tuple[Requirement, ...] = NEEDS
    step: int = 2
    seen: list[VideoTokens] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return False

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset(self.needs)

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        self.seen.append(tokens)
        keep = torch.arange(0, tokens.total, self.step)
        return Compression(tokens, keep, torch.bincount(keep // tokens.places, minlength=tokens.frames))


def layout(family: tiny.Family) -> tiny.Rows:
    return tiny.LAYOUTS[LAYOUT]


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """What a module is called with."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = module.register_forward_pre_hook(lambda m, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    yield calls
    handle.remove()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding by its definition: pairs (i, i + d/2) turned by an angle. `x [P, H, d]`."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]


def by_hand(model: Any, inputs: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """A Qwen tower's whole attention matrix `[P, P]` (summed over heads), its head-mean keys `[P, d]` before rotary
    embedding and its final features `[P, C]`, all in the order of the pixels."""
    tower = model.base_model.visual
    attention = tower.blocks[layer].attn
    with torch.no_grad(), inputs_of(attention) as calls, inputs_of(tower.blocks[0]) as first, inputs_of(tower) as whole:
        pixels, grids = inputs["pixel_values_videos"], inputs["video_grid_thw"]
        final = tower(pixels, grid_thw=grids).last_hidden_state
        plain = tower.patch_embed(whole[0][0][0])
    args, kwargs = calls[0]
    hidden = args[0] if args else kwargs["hidden_states"]
    query, key, _ = attention.qkv(hidden).view(len(hidden), 3, attention.num_heads, -1).unbind(1)
    cos, sin = kwargs["position_embeddings"]
    logits = torch.einsum("qhd,khd->hqk", rotated(query, cos, sin), rotated(key, cos, sin)) * attention.head_dim**-0.5
    sequence = torch.bucketize(torch.arange(len(hidden)), kwargs["cu_seqlens"][1:], right=True)
    logits = logits.masked_fill(sequence[:, None] != sequence[None], -torch.inf)
    # Where did each patch go? Before the first layer it is still what the patch embedding made of it.
    order = torch.arange(len(hidden))
    if hasattr(tower, "window_size"):
        order = torch.cdist(plain, (first[0][0] or (first[0][1]["hidden_states"],))[0]).argmin(1)
    return logits.softmax(-1).sum(0)[order][:, order], key.mean(1)[order], final[order]


def qwen_truth(model: Any, inputs: dict[str, Tensor], needs: tuple[Requirement, ...]) -> list[dict[str, Tensor]]:
    videos = []
    layers = {type(need): getattr(need, "layer", -1) for need in needs}
    matrix = by_hand(model, inputs, layers[Attention])[0]
    keys, final = by_hand(model, inputs, layers[Keys])[1:]
    start = 0
    for frames, h, w in inputs["video_grid_thw"].tolist():
        truth: dict[str, list[Tensor]] = {"attention": [], "keys": [], "frame_features": []}
        for _ in range(frames):
            mine = slice(start, start := start + h * w)
            truth["attention"].append(matrix[mine].mean(0)[mine].view(-1, 4).mean(1))
            truth["keys"].append(keys[mine].view(h * w // 4, 4, -1).mean(1))
            truth["frame_features"].append(final[mine].mean(0))
        videos.append({name: torch.stack(values) for name, values in truth.items()})
    return videos


def llava_truth(model: Any, inputs: dict[str, Tensor], needs: tuple[Requirement, ...]) -> list[dict[str, Tensor]]:
    tower = model.base_model.vision_tower
    layers = {type(need): getattr(need, "layer", -1) for need in needs}
    side = LLAVA_SIDE
    videos = []
    for clip in inputs["pixel_values_videos"]:
        layer = tower.encoder.layers[layers[Keys]]
        with torch.no_grad(), inputs_of(layer.self_attn) as calls:
            out = tower(clip, output_attentions=True)
        hidden = calls[0][1]["hidden_states"]
        keys = layer.self_attn.k_proj(hidden).view(*hidden.shape[:2], layer.self_attn.num_heads, -1).mean(2)
        planes = torch.cat([out.attentions[layers[Attention]].sum(1).mean(1, keepdim=True), keys.transpose(1, 2)], 1)
        pooled = nn.functional.interpolate(planes.view(len(clip), -1, side, side), size=(3, 3), mode="bilinear")
        pooled = pooled.flatten(2).transpose(1, 2)
        features = out.last_hidden_state.mean(1)
        videos.append({"attention": pooled[..., 0], "keys": pooled[..., 1:], "frame_features": features})
    return videos


def truth(family: tiny.Family, inputs: dict[str, Tensor], needs: tuple[Requirement, ...]) -> list[dict[str, Tensor]]:
    """What the taps must give, computed by hand in an eager model."""
    return (qwen_truth if family.mrope else llava_truth)(tiny.untouched(family, "eager"), inputs, needs)


def assert_seen(seen: list[VideoTokens], wanted: list[dict[str, Tensor]]) -> None:
    assert len(seen) == len(wanted)
    for tokens, fields in zip(seen, wanted, strict=True):
        for name, value in fields.items():
            got = getattr(tokens, name)
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-5)


# On the grid -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("layers", [(-2, -1), (1, 0)])
def test_values_on_the_token_grid(family: tiny.Family, implementation: str, layers: tuple[int, int]) -> None:
    """Several videos in a batch; with Qwen2.5-VL one of the layers attends within windows."""
    needs = (Attention(layers[0], "column_mean"), Keys(layers[1]), FrameFeatures())
    model, inputs, spy = tiny.build(family, implementation), tiny.prompt(family, layout(family)), Spy(needs)
    with torch.no_grad(), press(model, spy):
        model(**inputs)
    wanted = truth(family, inputs, needs)
    assert_seen(spy.seen, wanted)
    for tokens in spy.seen:
        patches = 4 * tokens.places if family.mrope else LLAVA_SIDE**2
        heads, share = 2, tokens.attention.sum(1) * patches / tokens.places
        if family.mrope:  # every query row sums to one; the bilinear pooling of LLaVA-OneVision is no partition
            torch.testing.assert_close(share, torch.full_like(share, heads))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_outputs_change_no_bit(family: tiny.Family, implementation: str) -> None:
    """Taps on, every token kept: logits are those of the plain model."""
    inputs = tiny.prompt(family, layout(family))
    model, plain = tiny.build(family, implementation), tiny.untouched(family, implementation)
    spy = Spy(step=1)
    with torch.no_grad(), press(model, spy):
        logits = model(**inputs).logits
    assert spy.seen
    with torch.no_grad():
        assert torch.equal(logits, plain(**inputs).logits)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 2}], ids=["cache", "no_cache", "beams"])
def test_generation(family: tiny.Family, options: dict[str, Any]) -> None:
    """However often videos are encoded, each is compressed once, with the same values."""
    inputs = tiny.prompt(family, tiny.LAYOUTS["one"])
    model, spy = tiny.build(family), Spy()
    with press(model, spy):
        model.generate(**inputs, max_new_tokens=3, **options)
    assert spy.seen
    for tokens in spy.seen:
        assert_seen([tokens], truth(family, inputs, NEEDS))


def test_threads_do_not_mix(family: tiny.Family) -> None:
    """Two prompts at once under one press."""
    model, spy = tiny.build(family), Spy()
    prompts = [tiny.prompt(family, tiny.LAYOUTS["one"], seed) for seed in range(4)]
    with press(model, spy):
        threads = [threading.Thread(target=model.generate, kwargs=dict(p, max_new_tokens=2)) for p in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wanted = [truth(family, p, NEEDS)[0] for p in prompts]
    assert len(spy.seen) == len(prompts)
    matched = set()
    for tokens in spy.seen:
        distances = [float((fields["attention"] - tokens.attention).abs().max()) for fields in wanted]
        nearest = distances.index(min(distances))
        assert_seen([tokens], [wanted[nearest]])
        matched.add(nearest)
    assert len(matched) == len(prompts)


def test_images_are_left_alone(family: tiny.Family) -> None:
    """A prompt of images alone runs through the tapped tower, and nothing is kept of it."""
    inputs = tiny.prompt(family, ((tiny.Text(2), tiny.Image(), tiny.Text(3)),))
    model, spy = tiny.build(family), Spy()
    with torch.no_grad(), press(model, spy):
        logits = model(**inputs).logits
    with torch.no_grad():
        assert torch.equal(logits, tiny.untouched(family)(**inputs).logits)
    assert not spy.seen


# Attaching and detaching -------------------------------------------------------------------------------------------


def state(model: nn.Module) -> dict[str, Any]:
    """Everything an attachment could leave on a model's modules."""
    found: dict[str, Any] = {"functions": sorted(ALL_ATTENTION_FUNCTIONS)}
    for name, module in model.named_modules():
        # A model's own forward leaves its rope_deltas.
        found[name] = {key: id(value) for key, value in vars(module).items() if key != "rope_deltas"}
        found[name + " hooks"] = [len(getattr(module, f"_forward_{kind}hooks")) for kind in ("", "pre_")]
        config = getattr(module, "config", None)
        found[name + " attention"] = getattr(config, "_attn_implementation", None)
    return found


@pytest.mark.parametrize("error", [False, True])
def test_nothing_is_left_behind(family: tiny.Family, error: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, spy, inputs = tiny.build(family, "sdpa"), Spy(), tiny.prompt(family, layout(family))
    with torch.no_grad():
        model(**inputs)  # some models install hooks of their own on their first forward
    before = state(model)
    if error:
        monkeypatch.setattr(Spy, "_compress", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError) if error else torch.no_grad(), press(model, spy):
        assert state(model) != before
        model(**inputs)
    assert state(model) == before


def test_an_attachment_that_fails_leaves_nothing(family: tiny.Family) -> None:
    model = tiny.build(family)
    before, tower = state(model), family_of(model).tower(model)
    with pytest.raises(UnsupportedError, match="has 2 layers"):
        Taps(tower, [Keys(0), FrameFeatures(), Attention(-3, "column_mean")])
    assert state(model) == before


def test_only_the_tapped_layer_is_touched(family: tiny.Family) -> None:
    model = tiny.build(family, "sdpa")
    with press(model, Spy((Attention(-1, "column_mean"),))):
        named = {
            name: module.config._attn_implementation
            for name, module in model.named_modules()
            if hasattr(module, "config") and module.config._attn_implementation != "sdpa"
        }
    assert len(named) == 1
    ((name, implementation),) = named.items()
    assert "1." in name
    assert implementation.endswith("_sdpa")


# Refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (Attention(-1, "cls"), "has no class token"),
        (Attention(-1, "pool_head"), "has no attention pooling head"),
        (Attention(5, "column_mean"), "has 2 layers"),
        (Keys(-3), "has 2 layers"),
    ],
    ids=str,
)
def test_what_a_model_cannot_give_is_refused_at_once(family: tiny.Family, need: Requirement, reason: str) -> None:
    """With the component, the need, the reason, and the methods that do work on this very model."""
    model = tiny.build(family)
    with pytest.raises(RequirementError, match=reason) as caught:
        press(model, Spy((need,)))
    message = str(caught.value)
    assert all(part in message for part in ("Spy", str(need), "vidcom2"))
    named = message.split("this model: ")[1].rstrip(".").split(", ")
    known = family_of(model)
    lacking = {row.name for row in method_rows() if any(known.lacks(model, n) for n in row.needs)}
    assert not lacking & set(named)


# Bare towers -------------------------------------------------------------------------------------------------------


VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
VISION |= {"image_size": 8, "patch_size": 2}


def bare(name: str, implementation: str) -> Any:
    config = getattr(transformers, f"{name}VisionConfig")(**VISION)
    model = getattr(transformers, f"{name}VisionModel")._from_config(config, attn_implementation=implementation)
    tiny.randomize(model)
    return model.eval().requires_grad_(False)


def tapped(model: Any, pixels: Tensor, *needs: Requirement) -> tuple[Recording, Any]:
    taps = Taps(batched_tower(model), needs)
    with taps.recording() as recording:
        out = model(pixels)
    taps.remove()
    assert torch.equal(out.last_hidden_state, model(pixels).last_hidden_state)
    return recording, out


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("row", ["cls", "column_mean"])
def test_clip(implementation: str, row: Any) -> None:
    """A tower with a class token: its row, or the mean row; the class token itself is no place."""
    model, reference = bare("CLIP", implementation), bare("CLIP", "eager")
    pixels = torch.randn(3, 3, 8, 8)
    recording, out = tapped(model, pixels, Attention(-2, row), Keys(-2), FrameFeatures())
    with inputs_of(reference.encoder.layers[-2].self_attn) as calls:
        matrix = reference(pixels, output_attentions=True).attentions[-2].sum(1)
    wanted = matrix[:, 0, 1:] if row == "cls" else matrix.mean(1)[:, 1:]
    torch.testing.assert_close(recording.attention[0] / recording.queries, wanted)
    hidden = (calls[0][0] or (calls[0][1]["hidden_states"],))[0]
    keys = reference.encoder.layers[-2].self_attn.k_proj(hidden)[:, 1:]
    torch.testing.assert_close(recording.keys[0], keys.view(3, 16, 2, 8).mean(2))
    assert torch.equal(recording.frames[0], out.pooler_output)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_siglip_pooling_head(implementation: str) -> None:
    model, reference = bare("Siglip", implementation), bare("Siglip", "eager")
    pixels = torch.randn(3, 3, 8, 8)
    recording, out = tapped(model, pixels, Attention(-1, "pool_head"), FrameFeatures())
    hidden, head = reference(pixels).last_hidden_state, reference.head
    weights = head.attention(head.probe.repeat(3, 1, 1), hidden, hidden, average_attn_weights=False)[1]
    torch.testing.assert_close(recording.attention[0], weights.sum(1)[:, 0])
    assert torch.equal(recording.frames[0], out.pooler_output)


def test_taps_are_inert_without_a_recording() -> None:
    model = bare("CLIP", "sdpa")
    taps = Taps(batched_tower(model), [Attention(-1, "cls"), Keys(-1), FrameFeatures()])
    with taps.recording() as recording:
        pass
    model(torch.randn(1, 3, 8, 8))
    taps.remove()
    assert not any(vars(recording).values())


def test_a_pooling_head_inside_a_model() -> None:
    """LLaVA-OneVision with a SigLIP that kept its head, as FastVID needs it."""
    family = tiny.FAMILIES["llava_onevision"]
    config = family.config()
    config.vision_config.vision_use_head = True
    model = transformers.LlavaOnevisionForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    tiny.randomize(model)
    inputs, spy = tiny.prompt(family, tiny.LAYOUTS["one"]), Spy((Attention(-1, "pool_head"), FrameFeatures()))
    with torch.no_grad(), press(model, spy):
        model(**inputs)
    tower, clip = model.base_model.vision_tower, inputs["pixel_values_videos"][0]
    with torch.no_grad():
        out = tower(clip)
        probe = tower.head.probe.repeat(len(clip), 1, 1)
        hidden = out.last_hidden_state
        row = tower.head.attention(probe, hidden, hidden, average_attn_weights=False)[1].sum(1)
    row = nn.functional.interpolate(row.view(len(clip), 1, 5, 5), size=(3, 3), mode="bilinear").flatten(1)
    (tokens,) = spy.seen
    torch.testing.assert_close(tokens.attention, row)
    torch.testing.assert_close(tokens.frame_features, out.pooler_output)


# Backends ----------------------------------------------------------------------------------------------------------


def test_packed_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends with "flash" in their name get all frames in one call, with cumulative lengths; tapped ones as well."""
    family, seen = tiny.FAMILIES["qwen2_5_vl"], []

    def packed(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
        seen.append(module.config._attn_implementation)
        sizes = kwargs["cu_seq_lens_q"].diff().tolist()
        parts = zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True)
        out = [nn.functional.scaled_dot_product_attention(*part, scale=kwargs["scaling"]) for part in parts]
        return torch.cat(out, dim=2).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "test_flash", packed)
    model, inputs, spy = tiny.build(family, "sdpa"), tiny.prompt(family, layout(family)), Spy()
    for module in model.base_model.visual.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "test_flash"
    with torch.no_grad(), press(model, spy):
        model(**inputs)
    assert seen == ["test_flash"] * 2
    assert_seen(spy.seen, truth(family, inputs, NEEDS))


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 9, 4)
    whole = attention_rows.attention_received(query, key, 0.5)
    torch.testing.assert_close(whole, (query @ key.transpose(2, 3) * 0.5).softmax(-1).sum((1, 2)))
    monkeypatch.setattr(attention_rows, "BLOCK", 60)
    torch.testing.assert_close(attention_rows.attention_received(query, key, 0.5), whole)


def test_low_precision_is_scored_in_float32() -> None:
    query, key = torch.randn(1, 2, 5, 4).bfloat16(), torch.randn(1, 2, 6, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = attention_rows.attention_received(query, key, 1.0)
    torch.testing.assert_close(got, (query.float() @ key.float().transpose(2, 3)).softmax(-1).sum((1, 2)))


def test_masked_attention_is_refused() -> None:
    model = bare("Siglip", "eager")
    taps = Taps(batched_tower(model), [Attention(-1, "column_mean")])
    hidden = torch.randn(1, 16, 16)
    with taps.recording(), pytest.raises(UnsupportedError, match="masks"):
        model.encoder.layers[-1](hidden, torch.zeros(1, 1, 16, 16))
    taps.remove()


def test_a_family_without_a_tower_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="vision tower"):
        Taps(None, [FrameFeatures()])
    Taps(None, []).remove()


def test_towers_by_family(family: tiny.Family) -> None:
    model = tiny.build(family)
    tower = family_of(model).tower(model)
    assert isinstance(tower, Tower)
    assert len(tower.attentions) == 2
    assert tower.packed == family.mrope
    assert (tower.class_token, tower.head, tower.pooled) == (False, None, False)
