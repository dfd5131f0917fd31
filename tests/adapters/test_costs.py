"""What a press costs, in counted things: reads on the host, launches per decoding step, work of a prefill, memory of a
long press."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adapters import clock as clock_module
from adapters import report as report_module
from adapters.clock import STAGES, Clock, Moment
from adapters.report import Report
from adapters.timed import timed
from compressors import VideoTokens, build
from compressors.budget import Budget
from tests.adapters import tiny
from tests.adapters.given import Given
from tests.adapters.harness import generated
from tests.adapters.test_press import snapshot
from tests.compressors.traffic import extent
from tests.compressors.videos import HostReads
from vidpress import AlreadyPressed, press

pytestmark = pytest.mark.core("qwen3_5")  # and recurrent layers
QUICK = ("qwen3_5", "gemma4", "internvl")  # of each kind one: recurrent layers, windows, frames that are images
every_family = pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=name, marks=() if family.core or name in QUICK else pytest.mark.slow)
        for name, family in tiny.FAMILIES.items()
        if not family.setting or name == "gemma4_blocks"  # other settings have the same decoder
    ],
)
# What the counter finds besides reads: copies to the device, which the mechanism sends along without waiting.
COPIES = {"to", "cuda", "tensor", "as_tensor", "asarray", "new_tensor", "aten.lift_fresh.default"}
CACHES: dict[str, dict[str, Any]] = {"dynamic": {}, "static": {"cache_implementation": "static"}}
PER_STEP = 3  # kernel launches that a press may add to a decoding step
# What a pressed prefill may add to the one of a prompt that is as short by nature, however many layers there are:
PASSES = 5  # bytes read and written of embeddings and features, in embeddings of the whole prompt
BOOKKEEPING = 560  # bytes read and written of ids, positions and masks, for each token of the whole prompt
LAUNCHES = 55
# A prompt without padding needs none, where the library makes no mask of ones for it.
BARE_PROMPTS = Version(transformers.__version__) >= Version("5.23")


class Reads(HostReads):
    """Counts what makes the host wait for a device: reads of values, operations whose result's size depends on them."""

    @property
    def count(self) -> int:
        return sum(name not in COPIES for name in self.found)


class Launches(TorchDispatchMode):
    """Counts operators that reach a backend."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def built(family: tiny.Family, attention: str = "eager") -> Any:
    """A model whose experts run all the same way: looked up one by one, those are read that the tokens chose."""
    model = tiny.build(family, attention)
    if getattr(model.config.get_text_config(), "num_experts_per_tok", None):
        model.set_experts_implementation("batched_mm")
    return model


def counted(mode: type[Any], model: Any, inputs: dict[str, Tensor], steps: int, **options: Any) -> int:
    with mode() as counting:
        generated(model, inputs, steps, **options)
    return int(counting.count)


def per_prompt_and_step(mode: type[Any], model: Any, inputs: dict[str, Tensor], **options: Any) -> tuple[int, int]:
    few, more = (counted(mode, model, inputs, steps, **options) for steps in (2, 3))
    return few - (more - few), more - few


def looks_at_padding(family: tiny.Family, model: Any, layout: str, cache: str, attention: str) -> int:
    """How often the library looks at a mask more because a press makes it build the masks of a prompt twice.

    It looks in order to leave masks away: in SDPA before it makes one for full attention (twice while the cache is as
    long as the prompt, once where it is longer), and with recurrent layers before it hands theirs on. When the shorter
    prompt reaches the decoder, masks of the whole one are made already in two cases: for a static cache, where
    `generate` makes them, and where the base model makes them of marks (Gemma 4; Molmo2's blocks are never left away).
    Where nothing is padded there is no mask to look at (before 5.23, one of ones).
    """
    if layout not in ("padded", "ragged") and BARE_PROMPTS:
        return 0
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if cache == "static":
        return (1 if BARE_PROMPTS else 2) * (attention == "sdpa") + ("linear_attention" in kinds)
    return 2 * (attention == "sdpa" and family.known.name == "gemma4")


@every_family
@pytest.mark.parametrize("layout", ["one", "two", "padded", "ragged"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_one_more_read_per_prompt_and_none_per_step(
    family: tiny.Family, layout: str, cache: str, attention: str
) -> None:
    model, inputs = built(family, attention), tiny.prompt(family, tiny.LAYOUTS[layout])
    generated(model, inputs, 1, **CACHES[cache])
    plain = per_prompt_and_step(Reads, model, inputs, **CACHES[cache])
    with press(model, "random", retention=0.25):
        pressed = per_prompt_and_step(Reads, model, inputs, **CACHES[cache])
    assert plain[0] > 0
    assert pressed[0] <= plain[0] + 1 + looks_at_padding(family, model, layout, cache, attention)
    assert pressed[1] == plain[1]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: torch.equal(x, x + 1),
        lambda x: torch.where(x > 0),
        lambda x: torch.argwhere(x),
        lambda x: bool(x.any()),
        lambda x: x.max().item(),
        lambda x: x.tolist(),
    ],
)
def test_a_read_is_counted_by_whatever_name(read: Any) -> None:
    with Reads() as reads:
        read(torch.arange(3))
    assert reads.count >= 1
    with Reads() as reads:
        torch.arange(3).to("cpu").sort()
    assert reads.count == 0


@every_family
@pytest.mark.parametrize("layout", ["one", "two", "padded", "ragged"])
@pytest.mark.parametrize("cache", CACHES)
def test_a_decoding_step_launches_hardly_more(family: tiny.Family, layout: str, cache: str) -> None:
    model, inputs = built(family), tiny.prompt(family, tiny.LAYOUTS[layout])
    generated(model, inputs, 1, **CACHES[cache])
    _, plain = per_prompt_and_step(Launches, model, inputs, **CACHES[cache])
    with press(model, "random", retention=0.25):
        _, pressed = per_prompt_and_step(Launches, model, inputs, **CACHES[cache])
    assert plain <= pressed <= plain + (0 if layout == "one" and BARE_PROMPTS else PER_STEP)


class Prefill(TorchDispatchMode):
    """Counts what runs behind the vision tower: launches, and bytes that they read and write, views not counted.

    Attributes:
        counts: launches, bytes of features and hidden states, and bytes of ids, positions and masks.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.counts, self._stages = Counter[str](), list[str]()
        clock.watcher = lambda stage, begins: self._stages.append(stage) if begins else self._stages.remove(stage)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        given, made = ([x for x in tree_leaves(tree) if isinstance(x, Tensor)] for tree in ((args, kwargs), out))
        known = {x.untyped_storage()._cdata for x in given}
        view = not function._schema.is_mutable and made and all(x.untyped_storage()._cdata in known for x in made)
        if not view and "encode" not in self._stages:
            self.counts["launches"] += 1
            for x in {id(x): x for x in [*given, *made]}.values():
                self.counts["values" if x.is_floating_point() else "bookkeeping"] += extent(x)
        return out


def prefilled(opened: Any, model: Any, inputs: dict[str, Tensor]) -> Counter[str]:
    """What one prompt and its first token cost, under a press or timers alone."""
    with opened as told:
        counting = Prefill(getattr(told, "clock", told))
        with counting:
            generated(model, inputs, 1)
    return counting.counts


@pytest.mark.parametrize("family", list(tiny.CORE.values()), ids=str)
def test_a_prefill_costs_little_beyond_the_prompt_that_is_as_short_by_nature(family: tiny.Family) -> None:
    """What comes on top is work on the whole prompt, once: embedding it, writing the features in, gathering what stays.
    Nothing of it is done layer by layer."""
    video, half = tiny.Video(8, 2, 3), tiny.Video(4, 2, 3)
    inputs = tiny.prompt(family, ((tiny.Text(3), video, tiny.Text(4)),))
    tokens = family.places(video) * video.frames
    length, shorter = inputs["input_ids"].shape[1], ((tiny.Text(3), half, tiny.Text(4)),)
    missing = length - tokens // 2 - tiny.prompt(family, shorter)["input_ids"].shape[1]  # the marks of frames
    native = tiny.prompt(family, ((tiny.Text(3 + missing), half, tiny.Text(4)),))
    beyond = []
    for layers in (1, 2):
        model = tiny.build(family)
        decoder = family.known.decoder(model)
        decoder.layers, decoder.config.num_hidden_layers = decoder.layers[:layers], layers
        floor = prefilled(timed(model), model, native)
        pressed = prefilled(press(model, Given((torch.arange(0, tokens, 2),))), model, inputs)
        pressed.subtract(floor)
        beyond.append(dict(pressed))
    assert beyond[0] == beyond[1], "what a press adds grows with the number of layers"
    planes = family.name.startswith("qwen3")  # DeepStack's; and the library makes positions frame by frame
    older = not BARE_PROMPTS  # which copies LLaVA's features once more to add the newline
    assert beyond[0]["values"] <= (PASSES + 2 * planes + older) * length * tiny.HIDDEN * 4
    assert beyond[0]["bookkeeping"] <= BOOKKEEPING * length
    assert beyond[0]["launches"] <= LAUNCHES + 95 * planes


def test_timers_alone_see_the_stages_and_leave_nothing_behind(family: tiny.Family) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["one"])
    want = generated(model, inputs)
    before = snapshot(model)
    with timed(model) as clock:
        out = generated(model, inputs)
    assert snapshot(model) == before
    assert torch.equal(out.logits, want.logits)
    seconds = clock.seconds()
    assert seconds["compress"] == 0
    assert all(seconds[stage] > 0 for stage in STAGES if stage != "compress")
    assert sum(seconds.values()) <= clock.whole()
    assert clock.whole(processor=True) > 0


def test_timers_alone_are_refused_under_a_press() -> None:
    model = tiny.build(tiny.FAMILIES["qwen2_vl"])
    with press(model, "random"), pytest.raises(AlreadyPressed), timed(model):
        pass


def test_a_failed_call_stops_the_timers(family: tiny.Family) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["one"])
    with timed(model) as clock:
        with pytest.raises(Exception):  # noqa: B017, PT011 – whichever layer failed
            generated(model, inputs, cache_implementation="no such cache")
        failed = clock.whole()
        generated(model, inputs)
    assert clock.whole() > failed
    assert clock.seconds()["decode"] > 0


def test_stages_can_be_watched() -> None:
    family = tiny.FAMILIES["qwen2_vl"]
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS["one"])
    seen: list[tuple[str, bool]] = []
    with press(model, "random") as report:
        report.clock.watcher = lambda stage, begins: seen.append((stage, begins))
        generated(model, inputs)
    assert seen[0] == ("generate", True)
    assert seen[-1] == ("generate", False)
    assert Counter(stage for stage, begins in seen if begins) == Counter(stage for stage, begins in seen if not begins)
    assert {stage for stage, _ in seen} == {*STAGES, "generate"}


class Event:
    """Stands for a GPU's event; `passed` is how many there are that the GPU has come by."""

    passed = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def query(self) -> bool:
        return self.number < Event.passed

    def synchronize(self) -> None:
        Event.passed = max(Event.passed, self.number + 1)

    def elapsed_time(self, end: Event) -> float:
        return 1000.0 * (end.number - self.number)


def test_a_clock_is_bounded() -> None:
    clock, device = Clock(), torch.device("cpu")
    for _ in range(1000):
        clock.stop("encode", clock.start("encode", device), device)
    assert not clock._spans
    Event.passed = 0
    for number in range(1000):
        clock._count("prefill", 1, Event(number), Event(number + 1))
        clock.subtract("prefill", Event(number), Event(number + 1))
        clock._count("decode", 1, Event(number), Event(number + 1))
        Event.passed = max(Event.passed, number - 5)  # the GPU is a few prompts behind
    assert len(clock._spans) <= clock_module._PENDING + 1
    assert (clock.seconds()["prefill"], clock.seconds()["decode"]) == (0.0, 1000.0)
    assert not clock._spans


def test_a_clock_waits_for_no_gpu_before_it_is_asked() -> None:
    clock = Clock()
    Event.passed = 0
    for number in range(3 * clock_module._PENDING):
        clock._count("decode", 1, Event(number), Event(number + 1))
    assert Event.passed == 0
    assert clock.seconds()["decode"] == 3 * clock_module._PENDING


def test_processor_time_is_counted_beside_the_wall() -> None:
    clock = Clock()
    clock._count("decode", 1, Moment(1.0, 10.0), Moment(4.0, 10.5))
    assert clock.seconds()["decode"] == 3.0
    assert clock.seconds(processor=True)["decode"] == 0.5


def test_a_report_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "_UNREAD", 20)
    monkeypatch.setattr(report_module, "REMEMBERED", 10)
    report, compressor = Report("random", {}), build("random")
    for number in range(50):
        tokens = VideoTokens(torch.full((2, 4, 3), float("nan") if number == 3 else 1.0), grid=(2, 2))
        report.add(compressor(tokens, Budget(retention=0.5)), 1)
    assert len(report._checks) <= 21
    with pytest.raises(Exception, match="video 4 of this press"):
        report.check()
    report._checks.clear()
    assert (report.visual, report.kept, report.placeholders) == (400, 200, 450)
    assert len(report.videos) == 10
    assert "50 video(s)" in str(report)
    assert "video 41:" in str(report)
