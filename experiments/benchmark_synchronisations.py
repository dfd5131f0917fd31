"""How often the host waits for the GPU: in a plain prompt and in the same one under a press, per prompt and per step.

    python -m experiments.benchmark_synchronisations [--architectures sizes/qwen2vl_7b_mechanism.json …] [--json FILE]

Random weights, a random video. PyTorch is told to warn at every operation that waits for the device
(`torch.cuda.set_sync_debug_mode("warn")`), and the warnings are counted, with the line of Python that they come from.
It sees what goes through PyTorch (`item`, `tolist`, `nonzero`, copies to the host, waiting for a stream); it does not
see `torch.cuda.synchronize`, waiting for events (a report reads those of a press when it is asked for times), or what
other libraries' kernels do by themselves. A step's count is that of a longer answer less that of a shorter one, per
token; a prompt's is the rest. The bar: a press adds at most one per prompt, and none per step.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adapters.loading import load_random
from adapters.prompting import LayoutProcessor, prompts
from adapters.video import Video
from compressors.errors import VidpressError
from experiments.results import versions, write_json
from vidpress import press

SAID = "called a synchronizing CUDA operation"  # by PyTorch, at each
ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
CACHES: Mapping[str, dict[str, Any]] = {"dynamic": {}, "static": {"cache_implementation": "static"}}
SHORT, LONG = 2, 10  # answer tokens
MORE_PER_PROMPT = 1


@dataclass(frozen=True)
class Waits:
    """Synchronisations of one prompt and of one decoding step.

    Attributes:
        prompt: until the second answer token, without that token's step.
        step: of a decoding step, on average.
        places: `file:line` -> synchronisations of a prompt and `SHORT` tokens.
    """

    prompt: float
    step: float
    places: dict[str, int] = field(default_factory=dict)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count synchronisations inside the block, by the line of Python that made them; complete when it ends.

    One thread: Python's record of warnings is the whole process's. Other warnings are shown when the block ends.
    """
    places: Counter[str] = Counter()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")  # else a line's second warning is dropped
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in seen:
        if SAID in str(warning.message):
            places[f"{warning.filename}:{warning.lineno}"] += 1
        elif "Synchronization debug mode is a prototype" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def waits(model: Any, inputs: Mapping[str, Tensor], cache: Mapping[str, Any], compressor: str | None) -> Waits:
    """What a prompt and a step wait, plain (None) or under a press; everything ran once before.

    Args:
        model: the model.
        inputs: of the prompt, on its device.
        cache: options of `generate`.
        compressor: a method's name.
    """
    # Compiled steps of a static cache are another matter: they are graphs, and compiling waits.
    options = {**cache, "do_sample": False, "disable_compile": True}
    pressed = nullcontext() if compressor is None else press(model, compressor, retention=0.25)
    counted = {}
    with pressed:
        for tokens in (SHORT, LONG):
            answer = {"max_new_tokens": tokens, "min_new_tokens": tokens}
            model.generate(**inputs, **answer, **options)
            with counting() as places:
                model.generate(**inputs, **answer, **options)
            counted[tokens] = places
    short, long = (counted[tokens].total() for tokens in (SHORT, LONG))
    step = (long - short) / (LONG - SHORT)
    return Waits(short - (SHORT - 1) * step, step, dict(counted[SHORT].most_common()))


def compared(
    model: Any, inputs: Mapping[str, Tensor], cache: Mapping[str, Any], compressor: str
) -> tuple[Waits, Waits]:
    """Plain and pressed; plain once more before, so that what the first prompt of a model sets up counts for none."""
    model.generate(**inputs, **cache, max_new_tokens=1, do_sample=False, disable_compile=True)
    told = {name: value for name, value in inputs.items() if name != "video_of_token"}  # for a press alone
    return waits(model, told, cache, None), waits(model, inputs, cache, compressor)


def verdict(plain: Waits, pressed: Waits) -> str:
    """Against the bar."""
    met = pressed.prompt <= plain.prompt + MORE_PER_PROMPT and pressed.step <= plain.step
    return "met" if met else "missed"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = ["sizes/qwen2vl_7b_mechanism.json", "sizes/llava_onevision_0_5b_cpu.json"]
    parser.add_argument("--architectures", nargs="+", default=sizes, help="of conf/model, or other JSON files")
    parser.add_argument("--layers", type=int, default=2, help="of the tower and of the language model, at most")
    parser.add_argument("--attention", nargs="+", default=list(ATTENTIONS), choices=ATTENTIONS)
    parser.add_argument("--caches", nargs="+", default=list(CACHES), choices=list(CACHES))
    parser.add_argument("--compressor", default="vidcom2")
    parser.add_argument("--batch", type=int, default=1, help="rows, of questions of different lengths")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=224, help="of a frame, in pixels")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument(
        "--json", type=Path, help="write all counts, with the lines that they come from, into this file"
    )
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        Console(stderr=True).print(
            "This needs a CUDA GPU, and there is none here. Reads on the host are counted without one in "
            "tests/adapters/test_costs.py.",
            soft_wrap=True,
        )
        raise SystemExit(1)
    rows = []
    for architecture in given.architectures:
        for attention in given.attention:
            rows += measured(architecture, attention, given)
    console = Console()
    console.print(table(rows, given.compressor))
    if given.json:
        write_json(given.json, {"compressor": given.compressor, "rows": rows, "versions": versions()})


def measured(architecture: str, attention: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per cache; one that says why, where this model or this attention cannot be had."""
    named = {"model": Path(architecture).stem, "attention": attention}
    try:
        shipped = Path(str(resources.files("conf") / "model" / architecture))
        path = shipped if shipped.is_file() else Path(architecture).expanduser()
        model = load_random(path, layers=given.layers, device="cuda", dtype=given.dtype, attn_implementation=attention)
    except VidpressError as error:
        return [{**named, "cache": "any", "not_run": str(error)}]
    pixels = torch.randint(0, 256, (given.frames, given.side, given.side, 3), dtype=torch.uint8)
    video = Video(pixels, tuple(map(float, range(given.frames))), 1.0, float(given.frames), Path("noise"))
    questions = ["What happens here?" + " And then?" * row for row in range(given.batch)]
    inputs = prompts(LayoutProcessor(model), questions, [video] * given.batch)
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    rows = []
    for cache in given.caches:
        row: dict[str, Any] = {**named, "cache": cache}
        try:
            plain, pressed = compared(model, inputs, CACHES[cache], given.compressor)
        except (VidpressError, ValueError, NotImplementedError) as error:  # the library's words for what it cannot do
            rows.append({**row, "not_run": str(error).partition("\n")[0]})
            continue
        rows.append({**row, "plain": asdict(plain), "pressed": asdict(pressed), "verdict": verdict(plain, pressed)})
    return rows


def table(rows: Sequence[Mapping[str, Any]], compressor: str) -> Table:
    """The counts, and where a press waits more than the plain prompt does."""
    title = f"Synchronisations with {compressor}; the bar: at most {MORE_PER_PROMPT} more per prompt, none per step"
    shown = Table(title=title, title_justify="left", caption_justify="left")
    headings = ("model", "attention", "cache", "prompt", "pressed", "step", "pressed", "bar")
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if 3 <= number < 7 else "left", overflow="fold")
    notes = []
    for row in rows:
        name = [row["model"], row["attention"], row["cache"]]
        if "not_run" in row:
            shown.add_row(*name, "–", "–", "–", "–", "not run")
            notes.append(f"{', '.join(name)}: {row['not_run']}")
            continue
        plain, pressed = row["plain"], row["pressed"]
        counts = (plain["prompt"], pressed["prompt"], plain["step"], pressed["step"])
        shown.add_row(*name, *(f"{count:g}" for count in counts), row["verdict"])
        more = Counter(pressed["places"])
        more.subtract(plain["places"])
        notes += [f"{', '.join(name)}: {count:+d} at {place}" for place, count in more.items() if count > 0]
    shown.caption = "\n".join(notes) or None
    return shown


if __name__ == "__main__":
    main()
