"""What the mechanism relies on in transformers, one fact per assertion, each message naming the attachment point.

Nothing here is pressed: these tests look at the library alone, through `inspect` and by watching an unpressed model
run. A release that breaks one of them has moved an attachment point, and the message says which of
`adapters/attachment.py` to look at.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, StaticCache

from adapters.family import family_of
from tests.adapters import tiny
from tests.adapters.harness import generated, second_turn

pytestmark = pytest.mark.quick
VERSION = f"transformers {transformers.__version__}"
FEATURES = "1 (the base model's method that encodes videos)"
BASE = "2 (forward hooks on the base model)"
DECODER = "3 (forward pre-hook on the decoder)"
INPUTS = "4 (model.prepare_inputs_for_generation)"
POSITIONS = "5 (model._prepare_position_ids_for_generation)"

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
        assert hasattr(owner, name), moved(point, f"{type(owner).__name__} has no {name}")
        original: Callable[..., Any] = getattr(owner, name)

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
    features = names(getattr(family.known.base(model), family.known.encoder))
    want = list(family.encoder_parameters)
    if want == ["pixel_values_videos"] and features[0] == "pixel_values":
        want = ["pixel_values"]  # LLaVA's name before 5.18
    assert features[: len(want)] == want, moved(FEATURES, f"its parameters are now {features}")
    inputs = names(model.prepare_inputs_for_generation)
    for name in ("input_ids", "next_sequence_length", "past_key_values", "attention_mask", "is_first_iteration"):
        known = name in inputs or ("kwargs" in inputs and name in names(GenerationMixin.prepare_inputs_for_generation))
        assert known, moved(INPUTS, f"it has no parameter {name}, only {inputs}")
    positions = names(model._prepare_position_ids_for_generation)
    assert positions == ["inputs_tensor", "model_kwargs"], moved(POSITIONS, f"its parameters are now {positions}")
    expand = names(model._expand_inputs_for_generation)
    assert "expand_size" in expand, moved("of beams (model._expand_inputs_for_generation)", f"parameters {expand}")
    forward = names(model.forward)
    wanted = ["input_ids", "attention_mask", "position_ids", "past_key_values", "labels"]
    for name in (*wanted, "logits_to_keep"):
        found = name in forward or name in family.absent
        assert found, moved(BASE, f"the model's forward has no parameter {name}")
    if marks := family.known.token_marks:
        masks = names(model.create_masks_for_generate)
        want = ["config", "inputs_embeds", "attention_mask", "past_key_values", "position_ids", *marks]
        assert set(want) <= set(masks), moved(DECODER, f"create_masks_for_generate takes {masks}, not {want}")
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
    assert torch.equal(kwargs["input_ids"], rows), moved("of beams", "rows of one sample are not next to each other")
    if encoded := kwargs.get("mm_encoder_outputs"):
        _, output = watched.calls[FEATURES][0]
        assert any(value is output for value in encoded.values()), moved(
            "of beams", "the encoder's output is copied, so its capture is lost"
        )
