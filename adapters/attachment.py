"""`Attachment`: the places where vidpress touches a model, all on the instance, all removable.

1. `base.get_video_features`, or whichever method encodes videos (instance attribute): tags its output with a `Capture`.
2. forward pre- and post-hook on the base model: knows `input_ids`; opens and closes an `Entry`; serves plain forward
   loops (positions and masks that Hugging Face's `generate` would otherwise supply).
3. forward pre-hook on the decoder: makes the plan and prunes (`adapters.entry`).
4. `model.prepare_inputs_for_generation` (instance attribute): logical masks and lengths become physical ones.
5. `model._prepare_position_ids_for_generation` (instance attribute): sees the logical length of a continued cache.

`model.generate`, `model._expand_inputs_for_generation` and a pre-hook on the model only note the call's frame (rows per
sample, stage times) and refuse what is not supported. What a call needs lives in thread-local storage while it runs or
on the objects it passes on (encoder output, cache), so several threads may generate under one press.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, StaticCache

from adapters.capture import CAPTURE, Capture, release
from adapters.clock import WHOLE
from adapters.entry import Entry, Newlines, Positions, is_padding_mask, measure, new_valid, prune, video_planes
from adapters.errors import UnsupportedError
from adapters.family import Family, call_arguments
from adapters.places import Places
from adapters.plan import Plan, assign, make_plan
from adapters.question import embedded_question, end_ids, question_mask, special_ids
from adapters.record import LogicalLength, attach_record, checked_record, continued, marked, newest, record_of
from adapters.report import Report
from adapters.taps import Taps
from compressors import Budget, CacheBinding, Compressor, InputError
from compressors.requirements import Query


class _Call(threading.local):
    """One thread's call in progress.

    Attributes:
        entry: the prompt inside the base model's forward.
        generating: inside `generate`.
        expand: rows per sample of the `generate` in progress.
        mask: the 2-D mask behind the next forward of `generate`.
        same: rows that ask about one video, whose pixels are passed once; 0 when every row brings its own.
        first: the next forward is a prompt's first.
        asked: tokens of the prompt that holds the question; what generation appends later is not part of it.
        prefilled: when the last prompt was through the model.
        told: what `generate` was given for the press alone (`Family.told`).
        total: tokens up to the end of `generate`'s next forward, cached, proposed and generated ones included.
        alone: what the vision tower gives in this `generate` is nobody else's.
    """

    entry: Entry | None = None
    generating: bool = False
    expand: int = 1
    mask: Tensor | None = None
    same: int = 0
    first: bool = True
    asked: int = 0
    prefilled: Any = None
    told: Mapping[str, Any] = {}
    total: int = 0
    alone: bool = False


class Attachment(Places):
    """A compressor in a model; made by `press`. `remove()` leaves the model as it was found."""

    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        compressor: Compressor,
        budget: Budget,
        positions: Positions,
        newlines: Newlines,
        report: Report,
        reuse: CacheBinding | None = None,
    ) -> None:
        super().__init__()
        self._model, self._family = model, family
        self._base, self._decoder = family.base(model), family.decoder(model)
        self._compressor, self._budget = compressor, budget
        self._positions, self._newlines = positions, newlines
        self._report, self._reuse = report, reuse
        self._asks = any(isinstance(need, Query) for need in compressor.requirements)
        self._special, self._ends = special_ids(model), end_ids(model)
        self._call = _Call()
        try:
            self._attach()
        except BaseException:
            self.remove()
            raise
        if reuse is not None:
            self._undo.append(reuse.remove)  # only now: until here it is the caller's

    def _attach(self) -> None:
        base, model = self._base, self._model
        self._taps = Taps(self._family.tower(model), self._compressor.requirements)
        self._undo.append(self._taps.remove)
        self._replace(base, self._family.encoder, self._get_video_features)
        self._hook(base.register_forward_pre_hook(self._open_entry, with_kwargs=True))
        self._hook(base.register_forward_hook(self._close_entry, always_call=True))
        self._hook(self._decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True))
        self._replace(model, "prepare_inputs_for_generation", self._prepare_inputs)
        self._replace(model, "_prepare_position_ids_for_generation", self._prepare_position_ids)
        self._replace(model, "_expand_inputs_for_generation", self._expand_inputs)
        self._replace(model, "generate", self._generate)
        self._hook(model.register_forward_pre_hook(_refuse_unsupported, with_kwargs=True))

    # 1. Vision features

    def _get_video_features(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        arguments, same = call_arguments(original, args, kwargs), self._call.same
        entry = self._call.entry
        if not self._family.encodes_videos(arguments, None if entry is None else entry.arguments):
            return original(*args, **kwargs)
        if same:
            arguments = self._family.of_first_video(arguments)
            args, kwargs = (), arguments
        with self._stage("encode"), self._taps.recording() as recording, self._reusing(arguments):
            output = original(*args, **kwargs)
        if getattr(output, "pooler_output", None) is None:
            return output  # a plain tuple, asked for by the user's own call; the model asks for return_dict
        capture = self._family.capture(self._model, output, arguments)
        if capture is None:
            return output
        capture.tapped = functools.partial(recording.on_grid, self._family, self._model)
        if same:
            self._family.repeat(output, same)
            # A method that looks at the question compresses for every row; others once for all.
            capture = capture.repeated(same) if self._asks else replace(capture, sharers=same)
        capture.passing = self._call.alone
        if capture.passing:
            release(output, inside_alone=True)
        setattr(output, CAPTURE, capture)
        if self._call.entry is not None:
            self._call.entry.encoded.append(output)
        return output

    @contextmanager
    def _reusing(self, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Every video of a call is a stream of its own, from its first frame to its last."""
        if self._reuse is None:
            yield
            return
        states = [self._reuse.new_state(keep=False) for _ in range(self._family.videos_in(arguments))]
        with self._reuse.using(states, self._family.frames_in(arguments)):
            yield
        self._report.add_reuse(sum(state.reused for state in states), sum(state.total for state in states))

    # 2. Base model

    def _open_entry(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = call_arguments(module.forward, args, kwargs) if args else kwargs
        input_ids = values.get("input_ids")
        tokens = input_ids if input_ids is not None else values.get("inputs_embeds")
        if tokens is None or (torch.compiler.is_compiling() and tokens.shape[1] == 1):
            return None  # compiled decoding steps pass straight through: generation prepared everything
        call, cache = self._call, values.get("past_key_values")
        record = record_of(cache) if call.generating else checked_record(cache)
        if record is not None:
            record = record.for_rows(tokens.shape[0])
        if record is not None and not call.generating:
            self._family.refuse("chat turns", tokens.shape[1] > 1)
            values = values | continued(values, tokens, record, cache)
        given = values.get("attention_mask")
        if record is not None and is_padding_mask(given):
            values = values | marked(values, self._family.token_marks, tokens.shape[1], call.total, given, cache)
        values, told = self._told(values, tokens)
        family, encoded = self._family, self._encoded(values)
        if input_ids is None and (encoded is not None or values.get(family.pixels) is not None):
            raise UnsupportedError("a video with inputs_embeds and no input_ids is not supported: pass input_ids.")
        if tokens.shape[1] > 1 and input_ids is not None:
            arguments = {**values, **told}
            video = family.video_mask(self._model, input_ids, arguments)
            mask = given if is_padding_mask(given) else call.mask
            call.entry = Entry(
                input_ids, video, arguments, record, mask, call.expand, call.first, call.generating, call.total, cache
            )
            if call.first:
                call.entry.started = self._report.clock.start("prefill", self._base.device)
            if encoded is not None:
                call.entry.encoded.append(encoded)
        return (), values

    def _encoded(self, values: Mapping[str, Any]) -> Any:
        """What the encoder gave for this prompt's videos before the forward."""
        modality, encoder = self._family.modality, self._family.encoder
        given = values.get("mm_encoder_outputs")
        if isinstance(given, Tensor):
            raise UnsupportedError(
                f"mm_encoder_outputs as a plain tensor says nothing about where its features come from: pass "
                f"{self._family.pixels} under a press."
            )
        encoded = (given or {}).get(modality)
        if encoded is not None and getattr(encoded, CAPTURE, None) is None:
            raise UnsupportedError(
                f"mm_encoder_outputs[{modality!r}] was computed outside this press, so its layout is unknown: "
                f"call {encoder} under the press, or pass {self._family.pixels}."
            )
        return encoded

    def _told(self, values: dict[str, Any], tokens: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The forward's arguments without what is for the press alone, and that, for these tokens `[B, q]`.

        Raises:
            InputError: it is not of the prompt's shape.
        """
        call, names = self._call, self._family.told
        if not names:
            return values, {}
        given = call.told if call.generating else {name: values[name] for name in names if name in values}
        values = {name: value for name, value in values.items() if name not in names}
        rows, new = tokens.shape[:2]
        if new == 1:
            return values, {}  # a decoding step: nobody asks
        told = {}
        for name, value in given.items():
            value = torch.as_tensor(value)
            if value.ndim != 2 or rows % value.shape[0] or (not call.generating and value.shape[1] != new):
                raise InputError(f"{name} has shape {list(value.shape)}, but the prompt [{rows}, {new}].")
            value = newest(value, new, call.total)
            told[name] = value.to(tokens.device).repeat_interleave(rows // value.shape[0], 0)
        return values, told

    def _close_entry(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or self._call.entry is None:
            return
        entry, self._call.entry = self._call.entry, None
        if output is None:
            return  # the forward failed: a half-filled cache is the caller's as it is
        cache = entry.cache if entry.cache is not None else getattr(output, "past_key_values", None)
        if entry.result is not None:
            _keep_asked(output, entry.arguments.get("logits_to_keep"))
        if entry.result is not None and cache is not None:
            attach_record(cache, entry.result)
        if entry.first:
            clock, device = self._report.clock, self._base.device
            clock.stop("prefill", entry.started, device)
            self._call.prefilled = clock.start("decode", device) if entry.generating else None

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Time a stage; inside a prompt's forward it is not prefill."""
        clock, device = self._report.clock, self._base.device
        start = clock.start(name, device)
        yield
        end = clock.stop(name, start, device)
        if self._call.entry is not None and self._call.entry.first:
            clock.subtract("prefill", start, end)

    # 3. Decoder

    def _enter_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entry = self._call.entry
        if entry is None or not entry.encoded:
            return None
        if len(entry.encoded) > 1:
            raise UnsupportedError("the vision tower ran twice on videos in one forward; vidpress expects one call.")
        self._refuse(entry)
        capture: Capture = getattr(entry.encoded[0], CAPTURE)
        with self._stage("compress"):
            plan, measures = self._plan(entry, capture, kwargs)
            if plan.identity:
                self._report_spare(entry, 0)
                return None
            kwargs, entry.result = prune(
                self._model, kwargs, entry, plan, measures, self._family, self._positions, self._newlines
            )
        self._report_spare(entry, entry.result.missing - (entry.record.missing if entry.record is not None else 0))
        if capture.passing and entry.cache is not None:
            # The base model holds what the tower gave until the decoder is through, and needs none of it any more.
            release(entry.encoded.pop())
        return args, kwargs

    def _report_spare(self, entry: Entry, slots: int) -> None:
        if isinstance(entry.cache, StaticCache):
            self._report.spare_slots = slots

    def _refuse(self, entry: Entry) -> None:
        """What the family says it cannot do, before anything is compressed."""
        self._family.refuse("batch", entry.ids.shape[0] > entry.expand)
        self._family.refuse("static cache", isinstance(entry.cache, StaticCache))
        self._family.check_call(self._model, entry.arguments, positions=self._positions, expand=entry.expand)

    def _plan(self, entry: Entry, capture: Capture, kwargs: dict[str, Any]) -> tuple[Plan, Any]:
        embeds: Tensor = kwargs["inputs_embeds"]
        valid = new_valid(entry.two_dimensional_mask(kwargs.get("attention_mask")), embeds)
        video = entry.video.to(embeds.device)
        question = self._question(entry, valid) if self._asks else None
        family, copies = self._family, entry.expand * capture.sharers
        further = family.further(self._model, capture, entry.ids, entry.arguments, copies)
        measures = measure(valid, video, entry.cache, capture.geometry, question, further)
        captured = family.videos(self._model, capture, measures.geometry, measures.further)
        assigned = assign(measures.videos, [v.places for v in captured], copies)
        videos, rows = family.joined(captured, assigned, measures.further)
        family.check_rows(rows, entry.expand)
        sizes = {i: (v.features.shape[0], v.features.shape[1]) for i, v in enumerate(videos)}
        if entry.first and (self._asks or capture.planner is not self):
            capture.plan = None  # features used again: made by another press, or for another question
        if entry.first and capture.numbers != measures.further:
            capture.plan = None  # or as other videos
        capture.planner, capture.numbers = self, measures.further
        again = capture.plan is not None or not entry.first
        plan = make_plan(
            self._compressor,
            self._budget,
            capture,
            videos,
            rows,
            query=lambda row: embedded_question(embeds, question, measures.questions, row),
            planes=functools.cache(lambda: video_planes(kwargs, video, rows, sizes)),
        )
        if not again:
            for planned in plan.fresh:
                self._report.add(planned.compression, planned.video.structural)
        return plan, measures

    def _question(self, entry: Entry, valid: Tensor) -> Tensor:
        ids = entry.ids
        if entry.first:
            self._call.asked = ids.shape[1]
        prompt = torch.arange(ids.shape[1], device=ids.device) < self._call.asked
        media = self._family.media_mask(self._model, ids)
        return question_mask(ids, valid.to(ids.device) & prompt, media, self._special, self._ends)

    # 4. Generation's inputs

    def _prepare_inputs(
        self,
        original: Callable[..., Any],
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> Any:
        record = checked_record(past_key_values) if is_first_iteration else record_of(past_key_values)
        if record is not None:
            self._family.refuse("chat turns", bool(is_first_iteration))
            record = record.for_rows(input_ids.shape[0])
            if is_first_iteration and next_sequence_length is not None:
                # Generation subtracted the physical length from the logical one: the dropped tokens are not new.
                next_sequence_length -= record.missing
            new = next_sequence_length if next_sequence_length is not None else input_ids.shape[1]
            if attention_mask is None or attention_mask.ndim == 2:
                attention_mask = record.physical_mask(attention_mask, past_key_values, new)
        self._call.mask, self._call.first = attention_mask, bool(is_first_iteration)
        self._call.total = input_ids.shape[1]
        inputs = original(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if record is not None and inputs.get("position_ids") is not None:
            inputs["position_ids"] = record.moved.apply(inputs["position_ids"])
        return inputs

    # 5. Generation's positions

    def _prepare_position_ids(self, original: Callable[..., Any], inputs: Any, model_kwargs: dict[str, Any]) -> Any:
        cache = model_kwargs.get("past_key_values")
        record = checked_record(cache)
        if record is not None:
            model_kwargs = model_kwargs | {"past_key_values": LogicalLength(cache, record)}
        return original(inputs, model_kwargs)

    # The call's frame

    def _expand_inputs(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        values = call_arguments(original, args, kwargs)
        values |= values.pop("model_kwargs", {})
        self._call.expand = values.get("expand_size", 1)
        shown = values.get(self._family.pixels) is not None or self._encoded(values) is not None
        self._family.refuse("beams", shown and self._call.expand > 1)  # before the library repeats the videos
        if self._call.same and self._call.expand > 1:
            raise UnsupportedError(
                "beams and several return sequences do not go with same_video(): pass each row its own video."
            )
        return original(*args, **kwargs)

    def _generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        values = call_arguments(original, args, kwargs)
        config = values.get("generation_config") or self._model.generation_config
        if (values.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None)) is not None:
            raise UnsupportedError("prefill_chunk_size is not supported under a press: prompts are pruned as a whole.")
        lookup = values.get("prompt_lookup_num_tokens") or getattr(config, "prompt_lookup_num_tokens", None)
        self._family.refuse("assisted decoding", values.get("assistant_model") is not None or lookup is not None)
        told = {name: torch.as_tensor(kwargs.pop(name)) for name in self._family.told if name in kwargs}
        ids = values.get("input_ids", values.get("inputs"))
        for name, value in told.items():
            if ids is None or value.shape != ids.shape:
                raise InputError(
                    f"{name} has shape {list(value.shape)}, but input_ids "
                    f"{'is missing' if ids is None else list(ids.shape)}: it says something about every token."
                )
        # The user's own dictionary is filled; an assistant and a loop of one's own may use the features again.
        shared = ("mm_encoder_outputs", "assistant_model", "custom_generate")
        with self._generating(told, alone=all(values.get(name) is None for name in shared)):
            return original(*args, **kwargs)

    @contextmanager
    def same_video(self, rows: int) -> Iterator[None]:
        """As `Press.same_video`."""
        self._call.same = rows
        try:
            yield
        finally:
            self._call.same = 0

    @contextmanager
    def _generating(self, told: Mapping[str, Any], alone: bool) -> Iterator[None]:
        call = self._call
        call.told, call.alone = told, alone
        call.generating, call.expand, call.mask, call.first, call.prefilled = True, 1, None, True, None
        clock, device = self._report.clock, self._base.device
        start = clock.start(WHOLE, device)
        try:
            yield
        finally:
            if call.prefilled is not None:
                clock.stop("decode", call.prefilled, device)
            clock.stop(WHOLE, start, device)
            call.generating, call.expand, call.mask, call.first, call.entry = False, 1, None, True, None
            call.told, call.alone, call.total = {}, False, 0


def _keep_asked(output: Any, asked: Any) -> None:
    """The hidden states of the last tokens, where a base model was told how many are wanted.

    Such a model's head takes what the base gives it when that is shorter than the prompt; a pruned prompt is.
    """
    if isinstance(asked, int) and 0 < asked < output.last_hidden_state.shape[1]:
        output.last_hidden_state = output.last_hidden_state[:, -asked:]


def _refuse_unsupported(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    values = call_arguments(module.forward, args, kwargs) if args else kwargs
    if values.get("labels") is not None:
        raise UnsupportedError("labels= is not supported under a press: logits have one row per kept token.")
    if isinstance(values.get("logits_to_keep"), Tensor):
        raise UnsupportedError("logits_to_keep as a tensor is not supported under a press: pass a number instead.")
