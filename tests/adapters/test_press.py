"""`press` itself: what it leaves behind (nothing), what it reports, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from tests.adapters import tiny
from tests.adapters.given import Broken, Given
from tests.adapters.harness import generated, manual_loop
from vidpress import AlreadyPressed, UnsupportedError, press

# What the library itself writes on a model while it runs, pressed or not.
WRITTEN_BY_THE_LIBRARY = {"rope_deltas", "_compiled_call", "_cache", "_last_compile_config"}


def snapshot(model: torch.nn.Module) -> dict[str, Any]:
    """Everything attached to a model, its modules and their classes; equal snapshots mean an unchanged model."""
    state: dict[str, Any] = {"state_dict": {k: v.data_ptr() for k, v in model.state_dict().items()}}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in WRITTEN_BY_THE_LIBRARY:
                state[f"{name}.{key}"] = list(value.items()) if isinstance(value, dict) else id(value)
        for owner in type(module).__mro__:
            state[str(owner)] = {key: id(value) for key, value in vars(owner).items() if not key.startswith("__")}
    state["config"] = model.config.to_dict()
    state["generation_config"] = model.generation_config.to_dict()
    state["attention"] = sorted(transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS)
    return state


def case(family: tiny.Family, name: str = "two") -> tuple[Any, dict[str, torch.Tensor], Given]:
    layout = tiny.LAYOUTS[name]
    return tiny.build(family), tiny.prompt(family, layout), Given(tiny.ragged_keeps(family, layout))


class Stop(transformers.StoppingCriteria):
    """Fails in the middle of decoding."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("stopped in the middle")
        return torch.zeros(len(input_ids), dtype=torch.bool)


def test_nothing_is_left_behind(family: tiny.Family) -> None:
    model, inputs, given = case(family)
    generated(model, inputs)  # whatever the library keeps from a first run is there before and after
    before, plain = snapshot(model), generated(model, inputs)
    with press(model, given):
        assert snapshot(model) != before
        out = generated(model, inputs)
        manual_loop(model, inputs, 2, masks=False)
    assert snapshot(model) == before
    again = generated(model, inputs)
    assert torch.equal(again.logits, plain.logits)
    assert not torch.equal(again.logits, out.logits)


def test_nothing_is_left_behind_by_attach_and_detach(family: tiny.Family) -> None:
    model, inputs, given = case(family)
    generated(model, inputs)
    before = snapshot(model)
    pressed = press(model, given)
    assert snapshot(model) == before
    for _ in range(2):
        report = pressed.attach()
        generated(model, inputs)
        assert [video.kept for video in report.videos] == [len(keep) for keep in given.keeps]
        pressed.detach()
        assert snapshot(model) == before


@pytest.mark.parametrize("failure", ["compressor", "generate", "forward", "body"])
def test_nothing_is_left_behind_by_an_exception(family: tiny.Family, failure: str) -> None:
    model, inputs, given = case(family)
    plain = generated(model, inputs)
    before = snapshot(model)

    def run() -> None:
        if failure == "compressor":
            with press(model, Broken()):
                generated(model, inputs)
        with press(model, given):
            if failure == "generate":
                generated(model, inputs, stopping_criteria=[Stop()])
            if failure == "forward":
                model(**{**inputs, "pixel_values_videos": inputs["pixel_values_videos"][:-1]})
            raise RuntimeError("the body failed")

    with pytest.raises(Exception):  # noqa: B017, PT011 – whichever layer failed, the error passes through
        run()
    assert snapshot(model) == before
    assert torch.equal(generated(model, inputs).logits, plain.logits)


@pytest.mark.parametrize("where", ["compressor", "generate"])
def test_a_failed_call_does_not_spoil_the_next(family: tiny.Family, where: str) -> None:
    """Under one press, a call that died half-way leaves no plan for the next one to trip over."""
    model, inputs, given = case(family)
    broken = where == "compressor"

    class Sometimes(Given):
        def chosen(self, tokens: Any) -> torch.Tensor:
            if broken:
                raise RuntimeError("the compressor failed")
            return super().chosen(tokens)

    with press(tiny.build(family), given):
        pass
    fresh = tiny.build(family)
    with press(fresh, given):
        want = generated(fresh, inputs)
    with press(model, Sometimes(given.keeps)):
        with pytest.raises(RuntimeError):
            generated(model, inputs, stopping_criteria=[Stop()])
        broken = False
        other = tiny.prompt(family, tiny.TEXT_ONLY)
        assert torch.equal(generated(model, other).logits, generated(tiny.build(family), other).logits)
        assert torch.equal(generated(model, inputs).logits, want.logits)


def test_a_second_press_is_refused(family: tiny.Family) -> None:
    model, inputs, given = case(family)
    generated(model, inputs)
    before = snapshot(model)
    with press(model, given):
        with pytest.raises(AlreadyPressed, match=type(model).__name__), press(model, "vidcom2"):
            pass
        with pytest.raises(AlreadyPressed):
            press(model, "random").attach()
        generated(model, inputs)  # and the first one still works
    assert snapshot(model) == before
    with press(model, "vidcom2"):
        pass


def test_two_models_pressed_at_once(family: tiny.Family) -> None:
    """A press belongs to its model: another one of the same class, pressed or not, does not notice."""
    layout = tiny.LAYOUTS["two"]
    inputs = tiny.prompt(family, layout)
    givens = [Given(tiny.ragged_keeps(family, layout, seed)) for seed in range(2)]
    alone = []
    for given in givens:
        model = tiny.build(family)
        with press(model, given):
            alone.append(generated(model, inputs).logits)
    models = [tiny.build(family) for _ in range(3)]
    with press(models[0], givens[0]), press(models[1], givens[1]):
        together = [generated(model, inputs).logits for model in models]
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[1], alone[1])
    assert torch.equal(together[2], generated(tiny.build(family), inputs).logits)


def test_the_report_counts_what_was_kept(family: tiny.Family) -> None:
    layout = tiny.LAYOUTS["ragged"]
    model, inputs, given = case(family, "ragged")
    with press(model, given) as report:
        generated(model, inputs)
    clips = tiny.videos(layout)
    assert len(report.videos) == len(clips)
    for video, clip, keep in zip(report.videos, clips, given.keeps, strict=True):
        total = int(family.filled(clip).sum())
        assert video.tokens == total
        assert video.kept == len(keep)
        assert video.budgets == torch.bincount(keep // family.places(clip), minlength=clip.frames).tolist()
        assert video.retention == pytest.approx(len(keep) / total)
    assert report.visual == sum(video.tokens for video in report.videos)
    assert report.kept == sum(len(keep) for keep in given.keeps)
    shapes = [shape for sample in inputs.samples for shape in family.shapes(sample)]
    structural = sum(int((~family.visual(shape)).sum()) for shape in shapes)
    assert report.placeholders == report.visual + structural
    assert report.retention == pytest.approx(report.kept / report.visual)
    kept = report.kept + structural
    assert report.retention_placeholders == pytest.approx(kept / report.placeholders)
    assert {"encode", "compress", "prefill", "decode"} <= set(report.seconds)
    assert all(seconds >= 0 for seconds in report.seconds.values())
    assert str(report.kept) in str(report)


@pytest.mark.parametrize("budget", [{"retention": 0.5}, {"tokens": 5}, {"tokens_per_frame": 2}, {}])
def test_budgets_reach_every_video(family: tiny.Family, budget: dict[str, Any]) -> None:
    layout = tiny.LAYOUTS["two"]
    model, inputs, _ = case(family)
    with press(model, "vidcom2", **budget) as report:
        generated(model, inputs, 1)
    for video, clip in zip(report.videos, tiny.videos(layout), strict=True):
        total = int(family.filled(clip).sum())
        exact = {"tokens": 5, "tokens_per_frame": 2 * clip.frames}
        (name,) = budget or {"retention"}
        assert video.kept == exact.get(name, round(budget.get("retention", 0.25) * total))


def test_a_model_of_no_known_family_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="LlamaForCausalLM"):
        press(tiny.tiny_llama(), "vidcom2").attach()


def test_prefill_chunks_are_refused(family: tiny.Family) -> None:
    model, inputs, given = case(family, "one")
    with press(model, given), pytest.raises(UnsupportedError, match="prefill_chunk_size"):
        generated(model, inputs, prefill_chunk_size=8)


def test_labels_are_refused(family: tiny.Family) -> None:
    model, inputs, given = case(family, "one")
    with press(model, given), pytest.raises(UnsupportedError, match="labels"):
        model(**inputs, labels=inputs["input_ids"])
