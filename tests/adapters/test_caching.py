"""A cacher in real vision towers: every layer layout against an oracle on the library's own forward, and what `press`
makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from adapters.caching import bind_cacher, tower_layers
from adapters.errors import AlreadyBound
from adapters.layer_layouts import layouts
from compressors import RequirementError
from compressors.cachers.stc import STC
from tests.adapters import tiny
from tests.adapters.harness import generated
from tests.adapters.test_costs import Reads
from tests.adapters.test_press import snapshot
from tests.adapters.tiny.models import randomize
from vidpress import UnsupportedError, press

pytestmark = pytest.mark.core

CACHER = STC(interval=3, update_ratio=0.3)


class OldAttention(nn.Module):
    """Attention as StreamForest's and Dispider's towers ship it: no configuration of the library's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, causal_attention_mask: Any = None, **kwargs: Any
    ) -> Any:
        q, k, v = (
            p(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = (q @ k.transpose(2, 3) * self.scale).softmax(-1) @ v
        return self.out_proj(out.transpose(1, 2).flatten(2)), None


class OldLayer(nn.Module):
    """A layer of older libraries: further masks, `output_attentions`, and a tuple as result."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = OldAttention(width, heads)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any = None,
        causal_attention_mask: Any = None,
        output_attentions: bool | None = False,
    ) -> Any:
        attended, _ = self.self_attn(
            self.layer_norm1(hidden_states), attention_mask, causal_attention_mask=causal_attention_mask
        )
        hidden_states = hidden_states + attended
        return (hidden_states + self.mlp(self.layer_norm2(hidden_states)),)


class OldEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(OldLayer(16, 2) for _ in range(3))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, None, None, output_attentions=False)[0]
        return hidden


class OldTower(nn.Module):
    """As in LLaVA's forks: a wrapper, a vision model, its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = nn.Module()
        self.vision_tower.vision_model.encoder = OldEncoder()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.vision_tower.vision_model.encoder(hidden)  # type: ignore[no-any-return, operator, union-attr]


@dataclass(frozen=True, eq=False)
class Case:
    """A tower, its layers, a call with some streams' frames, and which rows of a layer's input are whose frames.

    Attributes:
        rows: per stream, per frame: the rows of the layer's input, flattened to `[P, C]`.
    """

    tower: nn.Module
    layers: Sequence[Any]
    call: Callable[[], Tensor]
    streams: int
    rows: list[list[range]]


def _batched(tower: nn.Module, layers: Any, call: Callable[[], Tensor], videos: int, frames: int, places: int) -> Case:
    each = [range(at * places, (at + 1) * places) for at in range(videos * frames)]
    return Case(tower, layers, call, videos, [each[v * frames : (v + 1) * frames] for v in range(videos)])


def case(name: str) -> Case:
    torch.manual_seed(0)
    if name in ("siglip", "clip"):
        config: Any = transformers.SiglipVisionConfig if name == "siglip" else transformers.CLIPVisionConfig
        model: Any = transformers.SiglipVisionModel if name == "siglip" else transformers.CLIPVisionModel
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
        tower = model(config(**sizes, image_size=12, patch_size=3)).eval()
        randomize(tower)
        pixels = torch.randn(2, 1, 3, 12, 12) + 0.4 * torch.randn(2, 4, 3, 12, 12)
        encoder = next(m for m in tower.modules() if type(m).__name__.endswith("Encoder"))
        places = 16 + (name == "clip")
        return _batched(tower, encoder.layers, lambda: tower(pixels.flatten(0, 1)).last_hidden_state, 2, 4, places)
    if name == "old":
        old = OldTower().eval()
        randomize(old)
        hidden = (torch.randn(2, 1, 9, 16) + 0.4 * torch.randn(2, 4, 9, 16)).flatten(0, 1)
        return _batched(old, old.vision_tower.vision_model.encoder.layers, lambda: old(hidden), 2, 4, 9)  # type: ignore[union-attr]
    family = tiny.FAMILIES[name]
    visual = tiny.build(family, "sdpa").model.visual
    grids = torch.tensor([[4, 4, 6], [5, 4, 6], [3, 6, 4]])
    pieces = []
    for t, h, w in grids.tolist():
        width = visual.patch_embed.proj.weight[0].numel()
        pieces.append((torch.randn(1, h * w, width) + 0.4 * torch.randn(t, h * w, width)).flatten(0, 1))
    patches = torch.cat(pieces)
    rows, start = [], 0
    for t, h, w in grids.tolist():
        rows.append([range(start + i * h * w, start + (i + 1) * h * w) for i in range(t)])
        start += t * h * w
    call = lambda: visual(patches, grid_thw=grids).last_hidden_state  # noqa: E731
    return Case(visual, visual.blocks, call, len(rows), rows)


NAMES = ("siglip", "clip", "old", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(params=NAMES)
def tower(request: pytest.FixtureRequest) -> Iterator[Case]:
    with torch.no_grad():
        yield case(request.param)


@contextmanager
def mixed(made: Case, cacher: STC) -> Iterator[None]:
    """Hooks on the tower's own forward: everything is computed, and what a cacher would not is replaced afterwards."""
    undo = []
    for layer in made.layers:
        chosen: dict[int, Tensor] = {}
        attention = layer.self_attn if hasattr(layer, "self_attn") else layer.attn

        def reference(frames: list[range], number: int) -> range | None:
            last = number // cacher.interval * cacher.interval  # type: ignore[operator]
            return None if last == number else frames[last]

        def choose(keys: Tensor, chosen: dict[int, Tensor] = chosen) -> None:
            for frames in made.rows:
                for number, frame in enumerate(frames):
                    held = reference(frames, number)
                    if held is not None:
                        alike = torch.cosine_similarity(keys[frame], keys[held], dim=-1)
                        update = alike.argsort(stable=True)[: int(cacher.update_ratio * len(frame) + 0.5)]
                        chosen[frame.start] = torch.zeros(len(frame), 1, dtype=torch.bool).index_fill(0, update, True)

        def mix(values: Tensor, chosen: dict[int, Tensor] = chosen) -> Tensor:
            flat = values.flatten(0, -2).clone()
            for frames in made.rows:
                for number, frame in enumerate(frames):
                    held = reference(frames, number)
                    if held is not None:
                        flat[frame] = torch.where(chosen[frame.start], flat[frame], flat[held])
            return flat.view_as(values)

        def on_keys(m: Any, a: Any, out: Tensor, choose: Any = choose) -> None:
            choose(out.flatten(0, -2))

        def on_fused(m: Any, a: Any, out: Tensor, choose: Any = choose, mix: Any = mix) -> Tensor:
            q, k, v = out.chunk(3, dim=-1)
            choose(k)
            return torch.cat([q, k, mix(v)], dim=-1)

        def on_output(m: Any, a: Any, out: Any, mix: Any = mix) -> Any:
            return (mix(out[0]), *out[1:]) if isinstance(out, tuple) else mix(out)

        if hasattr(attention, "qkv"):
            undo.append(attention.qkv.register_forward_hook(on_fused))
        else:
            undo.append(attention.k_proj.register_forward_hook(on_keys))
            # In these towers values are projected before or after keys: mix them where both are there.
            undo.append(
                attention.v_proj.register_forward_hook(
                    lambda m, a, out, mix=mix, w=attention, c=choose: _value(m, a, out, mix, w, c)
                )
            )
        undo += [attention.register_forward_hook(on_output), layer.mlp.register_forward_hook(on_output)]
    try:
        yield
    finally:
        for handle in undo:
            handle.remove()


def _value(module: Any, args: Any, out: Tensor, mix: Any, attention: Any, choose: Any) -> Any:
    choose(nn.functional.linear(args[0], attention.k_proj.weight, attention.k_proj.bias).flatten(0, -2))
    return mix(out)


def under(made: Case, cacher: STC) -> Tensor:
    binding = bind_cacher(made.tower, cacher)
    states = [binding.new_state() for _ in range(made.streams)]
    try:
        with binding.using(states):
            return made.call()
    finally:
        binding.remove()


def test_it_is_what_its_definition_says(tower: Case) -> None:
    dense = tower.call()
    with mixed(tower, CACHER):
        expected = tower.call()
    torch.testing.assert_close(under(tower, CACHER), expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(expected, dense, atol=1e-2)


@pytest.mark.parametrize("reuse", ["both", "attention", "mlp"])
def test_updating_everything_is_the_tower_itself(tower: Case, reuse: Any) -> None:
    torch.testing.assert_close(under(tower, STC(update_ratio=1.0, reuse=reuse)), tower.call(), atol=1e-5, rtol=1e-4)


def test_shared_selection_and_one_frame_at_a_time(tower: Case) -> None:
    """All options that touch the layout in their own way run on it, and eager attention does."""
    for setting in ({"selection": "shared"}, {"feature": "value"}, {"feature": "input", "refresh_above": 0.99}):
        assert under(tower, STC(**setting)).isfinite().all()  # type: ignore[arg-type]
    if isinstance(tower.tower, transformers.PreTrainedModel):
        sdpa = under(tower, CACHER)
        tower.tower.set_attn_implementation("eager")
        torch.testing.assert_close(under(tower, CACHER), sdpa, atol=1e-4, rtol=1e-3)


def test_outside_using_nothing_changes_and_nothing_is_left(tower: Case) -> None:
    plain = tower.call()
    before = {name: dict(vars(module)) for name, module in tower.tower.named_modules()}
    binding = bind_cacher(tower.tower, CACHER)
    state = binding.new_state()
    assert torch.equal(tower.call(), plain)
    binding.remove()
    binding.remove()
    after = {name: dict(vars(module)) for name, module in tower.tower.named_modules()}
    assert after == before
    with pytest.raises(UnsupportedError, match="removed"):
        binding.using(state)


def test_a_forward_that_was_on_the_instance_before_comes_back() -> None:
    made = case("siglip")
    layer, calls = made.layers[1], []
    own = type(layer).forward

    def forward(*args: Any, **kwargs: Any) -> Any:  # as accelerate leaves one
        calls.append(1)
        return own(layer, *args, **kwargs)

    layer.forward = forward
    binding = bind_cacher(made.tower, CACHER)
    made.call()
    assert calls
    binding.remove()
    assert vars(layer)["forward"] is forward


def test_equal_cachers_share_a_tower_and_others_are_refused() -> None:
    made = case("siglip")
    first, second = bind_cacher(made.tower, "stc"), bind_cacher(made.tower, {"name": "stc", "interval": 2})
    with pytest.raises(AlreadyBound, match="interval=2"):
        bind_cacher(made.tower, "stc", interval=4)
    first.remove()
    with torch.no_grad(), second.using(state := second.new_state()):
        made.call()
    assert state.total == 8 * 16
    second.remove()
    bind_cacher(made.tower, "stc", interval=4).remove()


def test_a_deep_copy_is_a_model_of_its_own() -> None:
    model = tiny.build(tiny.FAMILIES["qwen2_vl"])
    inputs = tiny.prompt(tiny.FAMILIES["qwen2_vl"], tiny.LAYOUTS["one"])
    binding = bind_cacher(model, CACHER)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.visual.blocks[0].mlp.fc1.weight.zero_()
        assert not torch.equal(twin(**inputs).logits, model(**inputs).logits)
        other = bind_cacher(twin, "stc", interval=None)
        with press_free(other, twin, inputs) as out:
            assert out.isfinite().all()
        other.remove()
    binding.remove()


@contextmanager
def press_free(binding: Any, model: Any, inputs: dict[str, Tensor]) -> Iterator[Tensor]:
    with binding.using(binding.new_state()):
        yield model(**inputs).logits


def test_a_towers_stream_goes_on_from_call_to_call() -> None:
    """Qwen's packed calls, group by group as a session feeds them, with another grid in between."""
    with torch.no_grad():
        for name in ("qwen2_vl", "qwen2_5_vl"):
            visual = tiny.build(tiny.FAMILIES[name]).model.visual
            width = visual.patch_embed.proj.weight[0].numel()
            video = torch.randn(1, 24, width) + 0.4 * torch.randn(6, 24, width)
            binding = bind_cacher(visual, CACHER)
            state, whole = binding.new_state(), binding.new_state()
            with binding.using(whole):
                expected = visual(video.flatten(0, 1), grid_thw=torch.tensor([[6, 4, 6]])).last_hidden_state
            found = []
            for part in video.split([1, 2, 3]):
                with binding.using(state):
                    grid = torch.tensor([[len(part), 4, 6]])
                    found.append(visual(part.flatten(0, 1), grid_thw=grid).last_hidden_state)
            torch.testing.assert_close(torch.cat(found), expected, atol=1e-5, rtol=1e-4)
            assert state.reuse == whole.reuse
            turned = video[:1].flatten(0, 1)
            with binding.using(state):
                out = visual(turned, grid_thw=torch.tensor([[1, 6, 4]])).last_hidden_state
            dense = visual(turned, grid_thw=torch.tensor([[1, 6, 4]])).last_hidden_state
            torch.testing.assert_close(out, dense, atol=1e-5, rtol=1e-4)


def test_what_reuse_cannot_give_is_refused() -> None:
    made = case("siglip")
    binding = bind_cacher(made.tower, CACHER)
    with binding.using(binding.new_state()):
        with pytest.raises(UnsupportedError, match="attention_mask"):
            made.layers[0](torch.randn(1, 4, 16), torch.zeros(1, 1, 4, 4))
        with pytest.raises(UnsupportedError, match="output_attentions"):
            made.layers[0](torch.randn(1, 4, 16), None, output_attentions=True)
        with pytest.raises(UnsupportedError, match="at least one frame"):
            made.layers[0](torch.randn(0, 4, 16), None)
    binding.remove()
    visual = tiny.build(tiny.FAMILIES["qwen2_vl"]).model.visual
    visual.blocks[1].attn.qkv = nn.utils.parametrizations.weight_norm(nn.Linear(16, 48))
    binding = bind_cacher(visual, CACHER)
    with binding.using(binding.new_state()), pytest.raises(UnsupportedError, match=r"plain nn\.Linear"):
        visual(torch.randn(24, visual.patch_embed.proj.weight[0].numel()), grid_thw=torch.tensor([[1, 4, 6]]))
    binding.remove()
    with pytest.raises(UnsupportedError, match=r"no stack of layers .*qwen-vl"):
        bind_cacher(tiny.tiny_llama(), "stc")
    with pytest.raises(UnsupportedError, match="2 stacks of layers"):
        bind_cacher(nn.ModuleList([OldTower(), OldTower()]), "stc")
    with pytest.raises(UnsupportedError, match="takes no interval"):
        bind_cacher(made.tower, CACHER, interval=3)


def test_every_familys_tower_is_found(family: tiny.Family) -> None:
    model = tiny.build(family)
    _, layers, layout = tower_layers(model)
    assert len(layers) == 2
    assert layout.name in layouts()


def features(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    # By position: the pixels' argument was renamed between versions of the library.
    given = [inputs[name] for name in ("pixel_values_videos", "video_grid_thw") if name in inputs]
    out = model.get_video_features(*given, return_dict=True)
    pooled = out.pooler_output
    return pooled.flatten(0, 1) if isinstance(pooled, Tensor) else torch.cat(list(pooled))


@torch.no_grad()
def test_press_treats_every_video_as_a_stream_of_its_own(family: tiny.Family) -> None:
    model, rows = tiny.build(family), ((tiny.Text(2), tiny.Video(4), tiny.Text(1), tiny.Video(4), tiny.Text(2)),)
    inputs = tiny.prompt(family, rows)
    base = model.model
    dense = features(base, inputs)
    before = snapshot(model)  # after a first run: the library leaves hooks behind
    with press(model, "none", cacher="stc", interval=None, update_ratio=0.25) as report:
        both = features(base, inputs)
        assert report.reuse == pytest.approx(0.75 * 0.75, abs=0.1)
        assert "of its places reused" in str(report)
    assert snapshot(model) == before
    half = {name: value[: len(value) // 2] for name, value in inputs.items() if name.startswith(("pixel", "video"))}
    if "pixel_values_videos" in half and not family.mrope:
        half["pixel_values_videos"] = inputs["pixel_values_videos"][:1]
    with press(model, "none", cacher=STC(interval=None)):
        first = features(base, half)
    torch.testing.assert_close(both[: len(first)], first, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both, dense, atol=1e-3)
    with press(model, "none", cacher={"name": "stc", "update_ratio": 1.0}):
        torch.testing.assert_close(features(base, inputs), dense, atol=1e-5, rtol=1e-4)


def test_a_model_generates_under_cacher_and_compressor(family: tiny.Family) -> None:
    model, layout = tiny.build(family), tiny.LAYOUTS["ragged"]
    inputs = tiny.prompt(family, layout)
    plain = generated(model, inputs)
    before = snapshot(model)
    with press(model, "stc_pruner", cacher="stc", update_ratio=1.0, retention=1.0):
        again = generated(model, inputs)
    assert torch.equal(again.tokens, plain.tokens)
    with press(model, "stc_pruner", cacher="stc", retention=0.5) as report:
        generated(model, inputs)
    assert 0 < (report.reuse or 0) < 1
    assert report.retention == pytest.approx(0.5, abs=0.1)
    assert snapshot(model) == before


def test_what_reads_the_towers_attention_does_not_go_with_a_cacher() -> None:
    family = tiny.FAMILIES["qwen2_vl"]
    model = tiny.build(family)
    with pytest.raises(RequirementError, match=r"cacher stc skips most of the tower's attention.*Methods that work"):
        press(model, "visionzip", cacher="stc")
    with press(model, "fastvid_qwen"):
        pass
    binding, pressed = bind_cacher(model, "stc", interval=7), press(model, "none", cacher="stc")
    with pytest.raises(AlreadyBound):
        pressed.attach()
    binding.remove()
    with press(model, "none", cacher="stc"):  # nothing was left behind by the refusals
        pass


def test_a_press_with_a_cacher_reads_hardly_more_on_the_host(family: tiny.Family) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["two"])
    counts = []
    for options in (None, {}, {"refresh_above": 0.5}):
        with press(model, "none", cacher="stc", **options) if options is not None else nullcontext():
            features(model.model, inputs)
            with Reads() as reads:
                features(model.model, inputs)
        counts.append(reads.count)
    # A packed tower's grids are read once more, but not its lengths in every layer.
    assert counts[1] <= counts[0] + 1
    assert counts[2] <= counts[1] + 1


def test_an_exception_in_the_tower_leaves_the_press_usable() -> None:
    family = tiny.FAMILIES["qwen2_vl"]
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["one"])
    block = model.model.visual.blocks[1]

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    with press(model, "none", cacher="stc") as report:
        expected = features(model.model, inputs)
        handle = block.mlp.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            features(model.model, inputs)
        handle.remove()
        counted = report.reuse
        assert torch.equal(features(model.model, inputs), expected)
        assert report.reuse == counted
