"""What the mechanism relies on in transformers, one fact per assertion, each message naming the attachment point.

Nothing here is pressed: these tests look at the library alone, through `inspect` and by watching an unpressed model
run. A release that breaks one of them has moved an attachment point, and the message says which of
`adapters/attachment.py` to look at.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, StaticCache, modeling_flash_attention_utils
from transformers.cache_utils import CacheLayerMixin

from adapters.attention import one_sequence
from adapters.caching import tower_layers
from adapters.errors import UnsupportedError
from adapters.family import family_of
from adapters.streaming.memory.queries import query_modules
from adapters.streaming.memory.slots import SlotLayer, Slots
from adapters.streaming.rotation import Rotation
from adapters.tower import Tower, batched_tower, key_projection, mean_key
from compressors.cachers.layers import FrameGroup
from compressors.requirements import Attention, FrameFeatures, Keys
from tests.adapters import flash, tiny
from tests.adapters.harness import generated, second_turn

pytestmark = pytest.mark.quick
VERSION = f"transformers {transformers.__version__}"
FEATURES = "1 (the base model's method that encodes videos)"
BASE = "2 (forward hooks on the base model)"
DECODER = "3 (forward pre-hook on the decoder)"
INPUTS = "4 (model.prepare_inputs_for_generation)"
POSITIONS = "5 (model._prepare_position_ids_for_generation)"
BEAMS = "of beams (model._expand_inputs_for_generation)"
MASKS = "3 (model.create_masks_for_generate, by which masks are made again)"
TOWER = "6 (the vision tower, where taps read attention, keys and pooled output)"
LAYERS = "7 (the vision tower's layers, which a cacher takes apart)"
SLOTS = "8 (the key/value cache that streams fill)"
FLASH = "8 (the lengths that FlashAttention is told)"

# Everything known to reach a decoder. Arguments shaped [B, L, …] are gathered with the kept tokens.
DECODER_ARGUMENTS = {
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "past_key_values",
    "use_cache",
    "visual_pos_masks",
    "deepstack_visual_embeds",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "logits_to_keep",
}


def moved(point: str, what: str) -> str:
    return f"{VERSION} has moved attachment point {point}: {what}"


def method(owner: Any, name: str, point: str) -> Callable[..., Any]:
    found: Callable[..., Any] | None = getattr(owner, name, None)
    assert found is not None, moved(point, f"{type(owner).__name__} has no {name}")
    return found


@contextmanager
def relied_on(point: str, what: str) -> Iterator[None]:
    """What an adapter looks up is found; whatever it stumbles over instead goes into the message."""
    try:
        yield
    except (AttributeError, KeyError, ImportError, StopIteration, TypeError, ValueError, UnsupportedError) as error:
        raise AssertionError(moved(point, f"{what}: {type(error).__name__}: {error}")) from error


class Watched:
    """An unpressed tiny model whose attachment points record their calls as (arguments by name, result)."""

    def __init__(self, family: tiny.Family, layout: str = "two") -> None:
        if reason := family.unfit(tiny.LAYOUTS[layout]):
            pytest.skip(reason)
        self.family, self.model = family, tiny.build(family)
        self.inputs = tiny.prompt(family, tiny.LAYOUTS[layout])
        self.base, self.decoder = family.known.base(self.model), family.known.decoder(self.model)
        self.calls: dict[str, list[tuple[dict[str, Any], Any]]] = {p: [] for p in (FEATURES, INPUTS, POSITIONS)}
        self.hooked: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {BASE: [], DECODER: []}
        self._watch(FEATURES, self.base, family.known.encoder)
        self._watch(INPUTS, self.model, "prepare_inputs_for_generation")
        self._watch(POSITIONS, self.model, "_prepare_position_ids_for_generation")
        for point, module in ((BASE, self.base), (DECODER, self.decoder)):
            module.register_forward_pre_hook(functools.partial(self._hook, point), with_kwargs=True)

    def _watch(self, point: str, owner: Any, name: str) -> None:
        original = method(owner, name, point)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(original).bind(*args, **kwargs)
            arguments = {**bound.arguments, **bound.arguments.get("kwargs", {})}
            # Before the call: the library changes some of its dictionaries while it runs.
            self.calls[point].append((arguments, None))
            result = original(*args, **kwargs)
            self.calls[point][-1] = (arguments, result)
            return result

        setattr(owner, name, watched)

    def _hook(self, point: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.hooked[point].append((args, dict(kwargs)))


@pytest.fixture
def watched(family: tiny.Family) -> Watched:
    return Watched(family)


def names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_parts_are_where_they_are_looked_for(family: tiny.Family) -> None:
    model = tiny.build(family)
    known = family_of(model)
    base, decoder = known.base(model), known.decoder(model)
    assert hasattr(base, known.encoder), moved(FEATURES, f"{type(base).__name__} has no {known.encoder}")
    assert any(module is decoder for module in base.modules()), moved(DECODER, "get_decoder() is not in the base model")
    inputs = tiny.prompt(family, tiny.LAYOUTS["one"])
    found = known.video_mask(model, inputs["input_ids"], inputs)[0]
    assert torch.equal(found, family.video_mask(inputs.samples[0])), moved(BASE, "the placeholders are other ids")
    vectors = model.get_input_embeddings()(inputs["input_ids"])
    assert vectors.shape[-1] == model.config.get_text_config().hidden_size, moved(
        BASE, "embeddings are of another size"
    )


def test_signatures(family: tiny.Family) -> None:
    model = tiny.build(family)
    features = names(method(family.known.base(model), family.known.encoder, FEATURES))
    want = list(family.encoder_parameters)
    if want == ["pixel_values_videos"] and features[0] == "pixel_values":
        want = ["pixel_values"]  # LLaVA's name before 5.18
    assert features[: len(want)] == want, moved(FEATURES, f"its parameters are now {features}")
    inputs = names(method(model, "prepare_inputs_for_generation", INPUTS))
    for name in ("input_ids", "next_sequence_length", "past_key_values", "attention_mask", "is_first_iteration"):
        known = name in inputs or ("kwargs" in inputs and name in names(GenerationMixin.prepare_inputs_for_generation))
        assert known, moved(INPUTS, f"it has no parameter {name}, only {inputs}")
    positions = names(method(model, "_prepare_position_ids_for_generation", POSITIONS))
    assert positions == ["inputs_tensor", "model_kwargs"], moved(POSITIONS, f"its parameters are now {positions}")
    expand = names(method(model, "_expand_inputs_for_generation", BEAMS))
    assert "expand_size" in expand, moved(BEAMS, f"its parameters are now {expand}")
    forward = names(model.forward)
    wanted = ["input_ids", "attention_mask", "position_ids", "past_key_values", "labels"]
    for name in (*wanted, "logits_to_keep"):
        found = name in forward or name in family.absent
        assert found, moved(BASE, f"the model's forward has no parameter {name}")
    if marks := family.known.token_marks:
        masks = names(method(model, "create_masks_for_generate", MASKS))
        want = ["config", "inputs_embeds", "attention_mask", "past_key_values", "position_ids", *marks]
        assert set(want) <= set(masks), moved(MASKS, f"its parameters are now {masks}, not {want}")
        assert set(marks) <= set(names(family.known.base(model).forward)), moved(BASE, f"it takes no {marks}")


def test_features_arrive_as_one_object_with_the_videos_in_order(watched: Watched) -> None:
    generated(watched.model, watched.inputs, 2)
    calls = watched.calls[FEATURES]
    assert len(calls) == 1, moved(FEATURES, f"generate called it {len(calls)} times for one prompt")
    _, output = calls[0]
    assert hasattr(output, "pooler_output"), moved(FEATURES, "its result has no pooler_output")
    output.vidpress_test = object()  # the capture travels on the object
    family, (sample,) = watched.family, watched.inputs.samples
    capture = family.known.capture(watched.model, output, watched.calls[FEATURES][0][0])
    assert capture is not None, moved(FEATURES, "no videos are found in its result")
    numbers = family.known.further(watched.model, capture, sample["input_ids"], sample, 1)
    read = [] if numbers is None else numbers.tolist()
    videos = family.known.videos(watched.model, capture, capture.geometry.tolist(), read)
    videos, _ = family.known.joined(videos, [range(len(videos))], read)
    shapes, found = family.shapes(sample), [(len(video.features), *video.grid) for video in videos]
    assert found == shapes, moved(FEATURES, f"videos of {found} for {shapes}")
    row = watched.hooked[DECODER][0][1]["inputs_embeds"][0][family.video_mask(sample)]
    if all(video.valid is None for video in videos):
        row = row[torch.cat([family.visual(shape) for shape in shapes])]
    given = [video.features.flatten(0, 1) if video.valid is None else video.features[video.valid] for video in videos]
    embedded = family.known.embed(watched.model, torch.cat(given))
    assert torch.equal(row, embedded.to(row.dtype)), moved(
        FEATURES, "what it gives is not what the decoder gets at the placeholders"
    )
    encoded = [kwargs.get("mm_encoder_outputs") for _, kwargs in watched.hooked[BASE][:1]]
    if encoded[0]:
        assert any(value is output for value in encoded[0].values()), moved(
            FEATURES, "the base model gets another object than it returned"
        )


def test_the_base_model_gets_the_ids_by_name(watched: Watched) -> None:
    generated(watched.model, watched.inputs, 2)
    args, kwargs = watched.hooked[BASE][0]
    assert not args, moved(BASE, "it is called with positional arguments")
    assert isinstance(kwargs.get("input_ids"), Tensor), moved(BASE, "input_ids are not passed to it")
    assert torch.equal(kwargs["input_ids"], watched.inputs["input_ids"]), moved(BASE, "it gets other input_ids")


def test_the_decoder_gets_what_the_mechanism_gathers(watched: Watched) -> None:
    generated(watched.model, watched.inputs, 3)
    assert len(watched.hooked[DECODER]) == 3, moved(DECODER, "it does not run once per step")
    args, kwargs = watched.hooked[DECODER][0]
    rows, length = watched.inputs["input_ids"].shape
    assert not args, moved(DECODER, "it is called with positional arguments")
    unknown = {name for name, value in kwargs.items() if value is not None}
    unknown -= DECODER_ARGUMENTS | watched.family.decoder_arguments
    assert not unknown, moved(DECODER, f"it gets new arguments {sorted(unknown)}")
    assert kwargs["inputs_embeds"].shape[:2] == (rows, length), moved(DECODER, "inputs_embeds is not [B, L, C]")
    want = (4, rows, length) if watched.family.mrope else (rows, length)
    assert tuple(kwargs["position_ids"].shape) == want, moved(
        DECODER, f"position_ids is {tuple(kwargs['position_ids'].shape)}, not {want}"
    )
    if "visual_pos_masks" in kwargs:
        assert kwargs["visual_pos_masks"].shape == (rows, length), moved(DECODER, "visual_pos_masks is not [B, L]")
        visual = int(kwargs["visual_pos_masks"].sum())
        planes = [len(plane) for plane in kwargs["deepstack_visual_embeds"]]
        assert planes == [visual] * len(planes), moved(DECODER, f"DeepStack planes have {planes} rows for {visual}")


def test_positions_are_made_once_and_count_on_from_the_last(watched: Watched) -> None:
    generated(watched.model, watched.inputs, 3)
    made = watched.calls[POSITIONS]
    assert len(made) == 1, moved(POSITIONS, f"generate called it {len(made)} times")
    (_, positions), steps = made[0], [kwargs["position_ids"] for _, kwargs in watched.hooked[DECODER]]
    assert torch.equal(steps[0], positions), moved(POSITIONS, "the decoder gets other positions than it returned")
    for i, step in enumerate(steps[1:], 1):
        want = positions[..., -1:] + i
        assert torch.equal(step, want), moved(POSITIONS, f"step {i} is at {step.tolist()}, not {want.tolist()}")


def test_inputs_are_prepared_at_every_step(watched: Watched) -> None:
    generated(watched.model, watched.inputs, 3)
    calls = watched.calls[INPUTS]
    assert len(calls) == 3, moved(INPUTS, f"generate called it {len(calls)} times in three steps")
    first = [bool(arguments.get("is_first_iteration")) for arguments, _ in calls]
    assert first == [True, False, False], moved(INPUTS, f"is_first_iteration was {first}")
    length = watched.inputs["input_ids"].shape[1]
    for i, (arguments, result) in enumerate(calls):
        mask = arguments.get("attention_mask")
        assert mask is None or mask.shape[1] == length + i, moved(INPUTS, "the mask does not grow with the sequence")
        assert "input_ids" in result, moved(INPUTS, "its result has no input_ids")
    assert calls[1][0].get("next_sequence_length") == 1, moved(INPUTS, "decoding does not ask for one new token")


def test_a_padded_prompt_brings_its_mask(family: tiny.Family) -> None:
    watched = Watched(family, "padded")
    generated(watched.model, watched.inputs, 2)
    for arguments, _ in watched.calls[INPUTS]:
        assert arguments["attention_mask"].ndim == 2, moved(INPUTS, "the padding mask is not 2-D")
    # A base model that builds masks itself gets the one they are made of.
    point = BASE if family.known.token_marks else DECODER
    _, kwargs = watched.hooked[point][0]
    assert torch.equal(kwargs["attention_mask"], watched.inputs["attention_mask"]), moved(
        point, "a dynamic cache's prompt comes without its 2-D mask"
    )


def test_a_later_turn_asks_the_cache_for_its_length(watched: Watched) -> None:
    first = generated(watched.model, watched.inputs, 3)
    more = torch.full((1, 2), tiny.VOCABULARY - 1)
    turn = second_turn(watched.inputs, first, more, "nothing")
    past = first.cache.get_seq_length()
    generated(watched.model, turn, 2, past_key_values=first.cache)
    arguments, result = watched.calls[INPUTS][3]
    new = turn["input_ids"].shape[1] - past
    assert arguments["next_sequence_length"] == new, moved(INPUTS, "a later turn's new tokens are counted otherwise")
    assert result["input_ids"].shape[1] == new, moved(INPUTS, "next_sequence_length does not cut the ids")
    assert result["position_ids"].shape[-1] == new, moved(INPUTS, "next_sequence_length does not cut the positions")
    arguments, _ = watched.calls[POSITIONS][1]
    cache = arguments["model_kwargs"].get("past_key_values")
    assert cache is first.cache, moved(POSITIONS, "the cache is not in model_kwargs['past_key_values']")
    if watched.family.mrope:
        assert isinstance(watched.base.rope_deltas, Tensor), moved(POSITIONS, "base.rope_deltas is no tensor")
        source = inspect.getsource(type(watched.model)._prepare_position_ids_for_generation)
        assert "get_seq_length" in source, moved(POSITIONS, "it no longer asks the cache for its length")
        assert "rope_deltas" in source, moved(POSITIONS, "it no longer counts on from rope_deltas")


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_carries_what_is_put_on_it(family: tiny.Family, kind: str) -> None:
    where = "of the record (an attribute of the cache)"
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["one"])
    text = model.config.get_text_config(decoder=True)
    cache = DynamicCache(config=text) if kind == "dynamic" else StaticCache(config=text, max_cache_len=128)
    marker = [torch.arange(3)]
    cache.vidpress_test = marker
    out = generated(model, inputs, 2, past_key_values=cache)
    assert out.cache is cache, moved(where, "generate returns another cache than it was given")
    length = inputs["input_ids"].shape[1] + 1
    assert int(cache.get_seq_length()) == length, moved(where, "get_seq_length() is not the number of filled slots")
    assert cache.vidpress_test is marker, moved(where, "the attribute was lost")
    assert torch.equal(copy.deepcopy(cache).vidpress_test[0], marker[0]), moved(where, "a deep copy loses it")


@pytest.mark.needs("beams")
def test_beams_keep_the_encoder_s_object(family: tiny.Family) -> None:
    watched = Watched(family, "padded")
    generated(watched.model, watched.inputs, 2, num_beams=2)
    _, kwargs = watched.hooked[BASE][0]
    rows = watched.inputs["input_ids"].repeat_interleave(2, dim=0)
    assert torch.equal(kwargs["input_ids"], rows), moved(BEAMS, "rows of one sample are not next to each other")
    if encoded := kwargs.get("mm_encoder_outputs"):
        _, output = watched.calls[FEATURES][0]
        assert any(value is output for value in encoded.values()), moved(
            BEAMS, "the encoder's output is copied, so its capture is lost"
        )


# 6: what taps read in the vision tower


def tower_of(family: tiny.Family, model: Any) -> Tower:
    if not {Attention, Keys, FrameFeatures} & set(family.known.supplies):
        pytest.skip("taps do not read this tower")
    with relied_on(TOWER, f"{type(family.known).__name__}.tower()"):
        tower = family.known.tower(model)
    assert tower is not None, moved(TOWER, "the modules that show its layout are gone")
    return tower


def attention_functions(module: nn.Module) -> Any:
    """The table of attention functions that a module looks into."""
    library = vars(sys.modules[type(module).__module__])
    for name in ("ALL_ATTENTION_FUNCTIONS", "eager_attention_forward"):
        assert name in library, moved(TOWER, f"{type(module).__name__} looks up no {name} in its file")
    method(library["ALL_ATTENTION_FUNCTIONS"], "get_interface", TOWER)
    return library["ALL_ATTENTION_FUNCTIONS"]


def given_own_function(module: nn.Module, name: str) -> None:
    """As taps do it: a shallow copy of the configuration that names another attention function, for one module."""
    assert hasattr(module, "config"), moved(TOWER, f"{type(module).__name__} has no config of its own")
    shared: Any = module.config
    before, own = shared._attn_implementation, copy.copy(shared)
    vars(own)["_attn_implementation_internal"] = name
    assert own._attn_implementation == name, moved(TOWER, "_attn_implementation_internal no longer says what is used")
    assert shared._attn_implementation == before, moved(TOWER, "a copied configuration shares what is used")
    module.config = own


@torch.no_grad()
def run(model: Any, inputs: Any) -> None:
    model(**tiny.understood(model, inputs))


def test_the_tower_has_the_layers_that_taps_read(family: tiny.Family) -> None:
    model = tiny.build(family)
    tower, vision = tower_of(family, model), model.config.vision_config
    depth = getattr(vision, "depth", None) or vision.num_hidden_layers
    assert len(tower.attentions) == depth, moved(TOWER, f"{len(tower.attentions)} attention modules of {depth} layers")
    for attention in tower.attentions:
        with relied_on(TOWER, f"the projection of keys in {type(attention).__name__}"):
            key_projection(attention)


@pytest.mark.parametrize("packing", ["frame by frame", "all at once"])
def test_attention_goes_through_the_function_that_a_module_s_configuration_names(
    family: tiny.Family, packing: str
) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["one"])
    tower = tower_of(family, model)
    if packing == "all at once" and not tower.packed:
        pytest.skip("frames are the batch")
    attention, name = tower.attention(-1), f"vidpress_test_{'flash' if packing == 'all at once' else 'plain'}"
    calls: list[tuple[nn.Module, Tensor, Tensor, Any, dict[str, Any]]] = []
    made: list[Any] = []

    def listen(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
        calls.append((module, query, key, attention_mask, kwargs))
        return query.transpose(1, 2), None

    functions = attention_functions(attention)
    functions[name] = listen
    try:
        given_own_function(attention, name)
        key_projection(attention).register_forward_hook(lambda module, args, output: made.append(output))
        with relied_on(TOWER, f"{type(attention).__name__}, its attention function replaced"):
            run(model, inputs)
    finally:
        del functions[name]
    assert calls, moved(TOWER, f"{type(attention).__name__} does not call the function its configuration names")
    assert made, moved(TOWER, f"{type(attention).__name__} does not call its projection of keys")
    module, query, key, mask, kwargs = calls[0]
    assert module is attention, moved(TOWER, "attention functions no longer get the module first")
    assert query.ndim == key.ndim == 4, moved(TOWER, "queries and keys are not [F, H, n, d]")
    heads, width = key.shape[1], key.shape[3]
    assert mean_key(attention, made[0]).shape[-1] == width, moved(TOWER, f"projected keys are not {heads} × {width}")
    assert kwargs.get("scaling") is not None, moved(TOWER, "attention functions get no scaling")
    assert mask is None, moved(TOWER, f"{tower.kind} now masks places in its attention")
    if packing == "all at once":
        lengths = kwargs.get("cu_seq_lens_q")
        assert isinstance(lengths, Tensor), moved(TOWER, "flash functions get no cu_seq_lens_q from a packed tower")
        assert int(lengths[-1]) == query.shape[2], moved(TOWER, "cu_seq_lens_q does not cover all patches")


def test_the_tower_returns_what_frame_features_are_made_of(family: tiny.Family) -> None:
    model, outputs = tiny.build(family), list[Any]()
    tower = tower_of(family, model)
    name = "pooler_output" if tower.pooled else "last_hidden_state"
    # Looked at at once: some models write their own features into the object afterwards.
    tower.module.register_forward_hook(lambda module, args, output: outputs.append(getattr(output, name, None)))
    run(model, tiny.prompt(family, tiny.LAYOUTS["one"]))
    assert outputs, moved(TOWER, f"{tower.kind} is not called as a module")
    assert isinstance(outputs[0], Tensor), moved(TOWER, f"{tower.kind} returns no {name}")


def test_a_class_token_and_a_pooling_head_are_where_they_are_looked_for() -> None:
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"image_size": 4, "patch_size": 2}
    clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**size))
    siglip = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**size, vision_use_head=True))
    with relied_on(TOWER, "CLIP's and SigLIP's encoder.layers[i].self_attn"):
        with_class, with_head = batched_tower(clip), batched_tower(siglip)
    assert with_class.class_token, moved(TOWER, "CLIP has no embeddings.class_embedding")
    assert with_head.head is not None, moved(TOWER, "SigLIP has no head with probe and attention")
    attention = with_head.head.attention
    assert isinstance(attention, nn.MultiheadAttention), moved(TOWER, "SigLIP's head has an attention of its own")
    calls: list[Any] = []
    with_head.head.register_forward_pre_hook(lambda module, args: calls.append(args))
    with relied_on(TOWER, "SigLIP's pooled output"):
        pooled = siglip(torch.zeros(3, 3, 4, 4)).pooler_output
    assert pooled.shape == (3, 16), moved(TOWER, "SigLIP's pooled output is not one vector per frame")
    assert [argument.shape for argument in calls[0]] == [(3, 4, 16)], moved(TOWER, "SigLIP's head is called otherwise")


# 7: what a cacher takes apart


def put_together(group: FrameGroup) -> Tensor:
    """A layer computed from its parts, by `LayerParts`' definition."""
    parts, x = group.parts, group.hidden
    x = x + parts.output(parts.attend(*parts.qkv(parts.norm1(x)), None))
    return x + parts.mlp(parts.norm2(x))


def test_a_layer_is_the_sum_of_its_parts(family: tiny.Family) -> None:
    if not family.known.reuses:
        pytest.skip("no cacher goes into this tower")
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["two"])
    with relied_on(LAYERS, "encoder.layers or blocks, and the modules in each"):
        tower, layers, layout = tower_layers(model)
    grids: list[tuple[int, int, int]] = []
    if layout.packed:
        parameters = names(tower.forward)
        assert "grid_thw" in parameters, moved(LAYERS, f"{type(tower).__name__} takes {parameters}, not grid_thw")

        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = dict(zip(parameters, args, strict=False)) | kwargs
            grids[:] = [(t, h, w) for t, h, w in given["grid_thw"].tolist()]

        tower.register_forward_pre_hook(note, with_kwargs=True)
    calls: dict[nn.Module, tuple[Any, Any, Any]] = {}
    for layer in layers:
        layer.register_forward_hook(lambda m, a, k, out: calls.update({m: (a, k, out)}), with_kwargs=True)
    run(model, inputs)
    assert len(calls) == len(layers), moved(LAYERS, f"{len(calls)} of {len(layers)} layers are called as modules")
    memo: dict[Any, Any] = {}
    for layer, (args, kwargs, output) in calls.items():
        first, *rest = names(layer.forward)
        arguments = dict(zip((first, *rest), args, strict=False)) | kwargs
        with relied_on(LAYERS, f"{type(layer).__name__} in pieces"):
            hidden = arguments.pop(first)
            groups = layout.groups(layer, hidden, arguments, grids, memo)
            again = layout.result(layer, [put_together(group) for group in groups], hidden)
        assert isinstance(output, tuple) == isinstance(again, tuple), moved(LAYERS, "a layer returns another type")
        whole, pieces = (x[0] if isinstance(x, tuple) else x for x in (output, again))
        assert torch.allclose(whole, pieces, rtol=1e-4, atol=1e-5 * float(whole.abs().max())), moved(
            LAYERS, f"{type(layer).__name__} computes something else than its norms, attention and MLP"
        )


# 8: what streams and FlashAttention rely on in the decoder and its cache


def streaming_decoder(family: tiny.Family) -> Any:
    if not family.known.streams:
        pytest.skip("no streams")
    return family.known.decoder(tiny.build(family))


@torch.no_grad()
def decoded(decoder: Any, embeds: Tensor, start: int, cache: Any, axes: int, **more: Any) -> Tensor:
    """Hidden states of text at positions from `start` on, as streams call the decoder."""
    ids = torch.arange(start, start + embeds.shape[1])[None]
    ids = ids if axes == 1 else ids.expand(3, 1, -1)
    out = decoder(inputs_embeds=embeds, position_ids=ids, past_key_values=cache, use_cache=True, **more)
    hidden: Tensor = out.last_hidden_state
    return hidden


def text(decoder: Any, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, tokens, decoder.config.hidden_size, generator=generator)


def test_a_decoder_fills_slots_as_it_fills_its_own_cache(family: tiny.Family) -> None:
    decoder, axes = streaming_decoder(family), 3 if family.known.mrope else 1
    missing = CacheLayerMixin.__abstractmethods__ - set(vars(SlotLayer))
    assert not missing, moved(SLOTS, f"a layer of a cache must now have {sorted(missing)} as well")
    embeds, slots = text(decoder, 7), Slots(int(decoder.config.num_hidden_layers))
    with relied_on(SLOTS, "a layer of a cache is asked for something new"):
        first = decoded(decoder, embeds[:, :4], 0, slots.cache(4), axes)
        slots.commit(4)
        second = decoded(decoder, embeds[:, 4:], 4, slots.cache(3), axes)
    assert all(keys is not None for keys in slots.keys), moved(SLOTS, "some layers do not write into their cache")
    want = decoded(decoder, embeds, 0, DynamicCache(config=decoder.config), axes)
    assert torch.allclose(torch.cat([first, second], dim=1), want, rtol=1e-3, atol=1e-4), moved(
        SLOTS, "what stands behind a filled cache is computed otherwise"
    )


def test_queries_and_rotary_embeddings_are_where_streams_look_for_them(family: tiny.Family) -> None:
    decoder, axes = streaming_decoder(family), 3 if family.known.mrope else 1
    with relied_on(SLOTS, "what retrieval reads queries with"):
        modules = query_modules(decoder)
    layers = int(decoder.config.num_hidden_layers)
    assert len(modules) == layers, moved(SLOTS, f"queries are found in {len(modules)} of {layers} layers")
    widths: list[int] = []
    modules[0][0].register_forward_hook(lambda module, args, output: widths.append(output.numel()))
    near, far = Slots(layers), Slots(layers)
    for slots, start in ((near, 0), (far, 5)):
        decoded(decoder, text(decoder, 2), start, slots.cache(2), axes)
        slots.commit(2)
    heads = int(decoder.config.num_attention_heads)
    assert widths[0] == 2 * heads * modules[0][1], moved(SLOTS, "what q_proj or q_norm gives is not [n, heads, D]")
    with relied_on(SLOTS, "the decoder's rotary_emb"):
        moved_keys = Rotation(decoder, axes).move(near.read(0, 0, 2)[0], (5,) * axes)
    assert torch.allclose(moved_keys, far.read(0, 0, 2)[0], rtol=1e-3, atol=1e-4), moved(
        SLOTS, "keys are not turned by rotary_emb(x, position_ids) in halves"
    )


LENGTHS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


def test_flash_attention_is_told_its_lengths(family: tiny.Family, monkeypatch: pytest.MonkeyPatch) -> None:
    function = method(modeling_flash_attention_utils, "_flash_attention_forward", FLASH)
    assert set(LENGTHS) <= set(names(function)), moved(FLASH, f"_flash_attention_forward takes no {LENGTHS}")
    decoder = family.known.decoder(tiny.build(family))
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    if family.known.mrope or kinds != {"full_attention"}:
        pytest.skip("lengths are for 1-D positions and full attention")
    told: list[tuple[list[int], list[int], int, int]] = []
    plain = flash.flash_attn_varlen_func

    @functools.wraps(plain)
    def told_lengths(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = inspect.signature(plain).bind(q, k, v, *args, **kwargs).arguments
        sequences = [given[f"cu_seqlens_{name}"].tolist() for name in "qk"]
        told.append((sequences[0], sequences[1], given["max_seqlen_q"], given["max_seqlen_k"]))
        return plain(q, k, v, *args, **kwargs)

    monkeypatch.setattr(flash, "flash_attn_varlen_func", told_lengths)
    with relied_on(FLASH, "the library's own FlashAttention functions"):
        flash.stand_in(monkeypatch)
        flash.with_flash(decoder)
    cache = DynamicCache(config=decoder.config)
    decoded(decoder, text(decoder, 3), 0, cache, 1)
    with relied_on(FLASH, "lengths given to a decoder"):
        given = one_sequence(decoder, 3, 2, torch.device("cpu"))
        assert set(given) == set(LENGTHS), moved(FLASH, "is_flash_attention_requested no longer sees that it is used")
        told.clear()
        decoded(decoder, text(decoder, 2), 9, cache, 1, **given)
    assert told, moved(FLASH, f"{type(decoder).__name__} does not hand lengths on to flash_attn_varlen_func")
    assert set(map(str, told)) == {str(([0, 2], [0, 5], 2, 5))}, moved(FLASH, f"it gets other lengths: {told[0]}")


# The messages themselves


def without_expansion(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.delattr(GenerationMixin, "_expand_inputs_for_generation")


def without_masks(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.delattr(type(model), "create_masks_for_generate")
    monkeypatch.delattr(GenerationMixin, "create_masks_for_generate", raising=False)


def keys_renamed(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    for layer in model.base_model.vision_tower.encoder.layers:
        layer.self_attn.to_k = layer.self_attn.k_proj
        del layer.self_attn.k_proj


def blocks_renamed(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    model.base_model.visual.stages = model.base_model.visual.blocks
    del model.base_model.visual.blocks


def implementation_renamed(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.setattr(
        transformers.PreTrainedConfig, "_attn_implementation", property(lambda self: "eager"), raising=True
    )


def one_more_in_a_cache(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.setattr(CacheLayerMixin, "__abstractmethods__", CacheLayerMixin.__abstractmethods__ | {"get_age"})


def lengths_renamed(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.setattr(modeling_flash_attention_utils, "_flash_attention_forward", lambda query_states, lengths: None)


@pytest.mark.parametrize(
    ("name", "change", "test", "message"),
    [
        ("llava_onevision", without_expansion, test_signatures, "of beams .* has no _expand_inputs_for_generation"),
        ("gemma4", without_masks, test_signatures, "3 .* has no create_masks_for_generate"),
        ("llava_onevision", keys_renamed, test_the_tower_has_the_layers_that_taps_read, "6 .*the projection of keys"),
        ("llava_onevision", keys_renamed, test_a_layer_is_the_sum_of_its_parts, "7 .*encoder.layers or blocks"),
        (
            "qwen2_vl",
            blocks_renamed,
            test_the_tower_has_the_layers_that_taps_read,
            r"6 .*tower\(\).*no attribute 'blocks'",
        ),
        (
            "qwen2_vl",
            implementation_renamed,
            functools.partial(
                test_attention_goes_through_the_function_that_a_module_s_configuration_names, packing="frame by frame"
            ),
            "6 .*_attn_implementation_internal",
        ),
        ("qwen2_vl", one_more_in_a_cache, test_a_decoder_fills_slots_as_it_fills_its_own_cache, "8 .*get_age"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_gone_is_named(
    name: str, change: Any, test: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = tiny.FAMILIES[name]
    model = tiny.build(family)
    monkeypatch.setattr(tiny, "build", lambda *args, **options: model)
    change(monkeypatch, model)
    with pytest.raises(AssertionError, match=f"has moved attachment point {message}"):
        test(family)


def test_renamed_lengths_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths_renamed(monkeypatch, None)
    with pytest.raises(AssertionError, match=r"attachment point 8 .*takes no"):
        test_flash_attention_is_told_its_lengths(tiny.FAMILIES["llava_onevision"], monkeypatch)
