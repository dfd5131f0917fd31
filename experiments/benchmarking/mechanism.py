"""What pressing a model costs by itself, beside a plain prompt that natively has K visual tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.benchmarking.variants import NATIVE
from experiments.statistics import paired_ratio, spread

# At most so many times what the native prompt takes.
BARS = {"prefill": 1.02, "step": 1.01}
ATTACHMENTS = 20

Measured = Mapping[str, Mapping[str, Sequence[float]]]


def mechanism(measured: Measured, key: str) -> dict[str, Any]:
    """Ratios to the native prompt, and whether they keep within the bars.

    Args:
        measured: variant -> stage -> seconds of every round.
        key: the variant that stands for the mechanism, best one whose choice costs next to nothing (`random`).
    """
    ours, floor = measured[key], measured[NATIVE]
    whole = [sum(both) for both in zip(ours["prefill"], ours["compress"], strict=True)]
    ratios = {
        "prefill": paired_ratio(ours["prefill"], floor["prefill"]),
        "prefill_and_prune": paired_ratio(whole, floor["prefill"]),
        "step": paired_ratio(ours["step"], floor["step"]),
    }
    bars = {stage: {"at_most": bar, "verdict": verdict(ratios[stage], bar)} for stage, bar in BARS.items()}
    return {"method": key, "ratios": ratios, "bars": bars}


def verdict(ratio: Mapping[str, Any] | None, bar: float) -> str:
    """In words: the median against a bar, and on which side of it the interval lies."""
    if ratio is None or ratio["interval"] is None:
        return "not measured"
    low, high = ratio["interval"]
    if ratio["ratio"] <= bar:
        return "met" if high <= bar else "met by the median; the interval reaches over it"
    return "missed" if low > bar else "missed by the median; the interval reaches under it"


def attaching(pressing: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of attaching and detaching a press."""
    on, off = [], []
    for _ in range(ATTACHMENTS):
        press = pressing()
        start = time.perf_counter()
        press.attach()
        middle = time.perf_counter()
        press.detach()
        on.append(middle - start)
        off.append(time.perf_counter() - middle)
    return {"attach_seconds": spread(on), "detach_seconds": spread(off)}


def memory_over_native(
    pressed: Mapping[str, int], native: Mapping[str, int], model: Any, rows: int, length: int, visual: int
) -> dict[str, int] | None:
    """Peaks behind the vision tower, and what a press may hold beyond the native prompt: the prompt's embeddings at
    full length and the features. None where memory was not measured.

    Args:
        pressed, native: stage -> bytes.
        model: for the size of a token.
        rows, length, visual: of the batch, of a full prompt, of a video.
    """
    if not pressed or not native:
        return None
    stages = ("compress", "prefill", "decode")
    ours, theirs = (max(peaks.get(stage, 0) for stage in stages) for peaks in (pressed, native))
    token = model.config.text_config.hidden_size * next(model.parameters()).element_size()
    return {"pressed": ours, "native": theirs, "embeddings": rows * length * token, "features": rows * visual * token}
