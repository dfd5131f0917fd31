"""What a press costs, in counted things: reads on the host, launches per decoding step, memory of a long press."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from adapters import clock as clock_module
from adapters import report as report_module
from adapters.clock import STAGES, Clock, Moment
from adapters.report import Report
from adapters.timed import timed
from compressors import VideoTokens, build
from compressors.budget import Budget
from tests.adapters import tiny
from tests.adapters.harness import generated
from tests.adapters.test_press import snapshot
from vidpress import AlreadyPressed, press

pytestmark = pytest.mark.core("qwen3_5", "minicpmv4_6")  # and recurrent layers
READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__iter__", "nonzero"}
CACHES: dict[str, dict[str, Any]] = {"dynamic": {}, "static": {"cache_implementation": "static"}}
PER_STEP = 3  # kernel launches that a press may add to a decoding step
# A prompt without padding needs none, where the library makes no mask of ones for it.
BARE_PROMPTS = Version(transformers.__version__) >= Version("5.23")


class HostReads(TorchFunctionMode):
    """Counts what makes the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(function, "__name__", "") in READS
        return function(*args, **(kwargs or {}))


class Launches(TorchDispatchMode):
    """Counts operators that reach a backend."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def counted(mode: type[Any], model: Any, inputs: dict[str, Tensor], steps: int, **options: Any) -> int:
    with mode() as counting:
        generated(model, inputs, steps, **options)
    return int(counting.count)


def per_prompt_and_step(mode: type[Any], model: Any, inputs: dict[str, Tensor], **options: Any) -> tuple[int, int]:
    few, more = (counted(mode, model, inputs, steps, **options) for steps in (2, 3))
    return few - (more - few), more - few


@pytest.mark.parametrize("layout", ["one", "two", "padded", "ragged"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_one_more_read_per_prompt_and_none_per_step(
    family: tiny.Family, layout: str, cache: str, attention: str
) -> None:
    model, inputs = tiny.build(family, attention), tiny.prompt(family, tiny.LAYOUTS[layout])
    generated(model, inputs, 1, **CACHES[cache])
    if family.name.endswith("moe"):
        pytest.skip("how many experts are read depends on the tokens")
    plain = per_prompt_and_step(HostReads, model, inputs, **CACHES[cache])
    with press(model, "random", retention=0.25):
        pressed = per_prompt_and_step(HostReads, model, inputs, **CACHES[cache])
    assert plain[0] > 0
    # For a static cache the library has made the masks of the whole prompt by then; where there is a mask (of padding,
    # or of ones in older releases), it is looked at again to make those of the shorter one.
    masked = cache == "static" and (layout in ("padded", "ragged") or not BARE_PROMPTS)
    looks = 1 if BARE_PROMPTS else 2  # for padding in front; of ones also behind
    masks = looks * (attention == "sdpa") + (not family.known.masking)  # recurrent layers have one of their own
    assert pressed[0] <= plain[0] + 1 + masked * masks
    assert pressed[1] == plain[1]


@pytest.mark.parametrize("layout", ["one", "two", "padded", "ragged"])
@pytest.mark.parametrize("cache", CACHES)
def test_a_decoding_step_launches_hardly_more(family: tiny.Family, layout: str, cache: str) -> None:
    if family.name.endswith("moe"):
        pytest.skip("how many experts run depends on the tokens")
    model, inputs = tiny.build(family), tiny.prompt(family, tiny.LAYOUTS[layout])
    generated(model, inputs, 1, **CACHES[cache])
    _, plain = per_prompt_and_step(Launches, model, inputs, **CACHES[cache])
    with press(model, "random", retention=0.25):
        _, pressed = per_prompt_and_step(Launches, model, inputs, **CACHES[cache])
    assert plain <= pressed <= plain + (0 if layout == "one" and BARE_PROMPTS else PER_STEP)


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
