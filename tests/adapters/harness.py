"""Running a model the ways users run it, and comparing what comes out with truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.adapters import tiny

STEPS = 5


def seeds(n: int) -> list[Any]:
    """`n` seeds as pytest parameters, all but the first slow."""
    return [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, n))]


@dataclass(frozen=True)
class Precision:
    """An attention implementation, a dtype, and how close to truth it must come (relative to the largest logit)."""

    attention: str
    dtype: torch.dtype
    tolerance: float

    @property
    def model(self) -> tuple[str, torch.dtype]:
        return self.attention, self.dtype

    def __str__(self) -> str:
        return f"{self.attention}-{str(self.dtype).removeprefix('torch.')}"


# Rotary embeddings and norms are computed in float32 inside the library, whatever the dtype of the model.
EAGER = Precision("eager", torch.float32, 1e-4)
SDPA = Precision("sdpa", torch.float64, 4e-6)
PRECISIONS = (EAGER, SDPA)


def close(got: Tensor, want: Tensor, precision: Precision) -> None:
    """Assert equal shapes, and the largest difference within the tolerance, relative to the largest logit."""
    assert got.shape == want.shape
    assert torch.isfinite(got).all()
    error = float((got - want).abs().max() / want.abs().max()) if want.numel() else 0.0
    assert error <= precision.tolerance, f"relative error {error:.2e} above {precision.tolerance:.0e}"


@dataclass(frozen=True)
class Generated:
    """What came out of `generate`: new tokens `[B, n]`, whole sequences, logits `[B, n, V]` per step, the cache."""

    tokens: Tensor
    sequences: Tensor
    logits: Tensor
    scores: Tensor | None
    cache: Any


def generated(model: Any, inputs: dict[str, Tensor], steps: int = STEPS, **options: Any) -> Generated:
    """`model.generate` with everything recorded that truth can be compared with."""
    out = model.generate(
        **tiny.understood(model, inputs),
        max_new_tokens=steps,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
        **options,
    )
    new = out.sequences.shape[1] - inputs["input_ids"].shape[1]
    return Generated(
        out.sequences[:, -new:],
        out.sequences,
        torch.stack(tuple(out.logits), dim=1),
        out.get("sequences_scores"),
        out.get("past_key_values"),
    )


@torch.no_grad()
def manual_loop(model: Any, inputs: dict[str, Tensor], steps: int, masks: bool) -> tuple[Tensor, Tensor]:
    """Greedy decoding by calling the model itself, without position ids; with or without the full-length mask."""
    out = model(**tiny.understood(model, inputs), use_cache=True)
    mask = inputs["attention_mask"]
    tokens, logits = [], []
    for step in range(steps):
        logits.append(out.logits[:, -1])
        scores = logits[-1].clone()
        scores[:, list(tiny.SPECIAL)] = -torch.inf
        tokens.append(scores.argmax(-1))
        if step + 1 < steps:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            given = {"attention_mask": mask} if masks else {}
            out = model(input_ids=tokens[-1][:, None], past_key_values=out.past_key_values, use_cache=True, **given)
    return torch.stack(tokens, dim=1), torch.stack(logits, dim=1)


AGAIN = ("nothing", "types", "grids")


def second_turn(inputs: dict[str, Tensor], first: Generated, more: Tensor, again: str = "grids") -> dict[str, Tensor]:
    """The inputs of a second turn on the same cache: everything so far, then `more [B, m]` text tokens.

    Args:
        inputs: of the first turn.
        first: what the first turn returned.
        more: the ids appended.
        again: what of the media is passed again: nothing, token types alone, or grids as well (pixels never: they are
            in the cache).
    """
    ids = torch.cat([first.sequences, more], dim=1)
    new = ids.shape[1] - inputs["input_ids"].shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, new), value=1)
    turn = {"input_ids": ids, "attention_mask": mask}
    if again != "nothing" and "mm_token_type_ids" in inputs:
        turn["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, new))
    if again == "grids":
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        turn |= {name: inputs[name] for name in names if name in inputs}
    return turn


def beams_work(family: tiny.Family, rows: tiny.Rows) -> None:
    """Skip what the library itself expands wrongly for beams."""
    if reason := family.beams_fail(rows):
        pytest.skip(reason)
