"""STC-Cacher equals its release: update sets one by one, similarities and hidden states within their tolerance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from adapters.caching import bind_cacher
from tests.golden.cases import Case, cases, expected, pixels, weights

CASES = cases("stc_cacher")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_cacher_equals_the_release(case: Case) -> None:
    params, arrays = case["params"], expected(case)
    config = SiglipVisionConfig(
        hidden_size=params["hidden"],
        intermediate_size=params["intermediate"],
        num_hidden_layers=params["layers"],
        num_attention_heads=params["heads"],
        image_size=params["image"],
        patch_size=params["patch"],
        vision_use_head=False,
    )
    tower = SiglipVisionModel(config).eval()
    tower.load_state_dict(weights(case))
    binding = bind_cacher(tower, "stc", interval=params["interval"], update_ratio=params["update_ratio"], chunk=None)
    seen: dict[int, list[tuple[Tensor, Tensor | None]]] = {}
    outputs, state = [], binding.new_state()
    with torch.no_grad():
        for number, chunk in enumerate(pixels(case).split(params["chunks"])):
            noted = seen.setdefault(number, [])
            binding.inner.watch = lambda layer, frames, places, similarity, to=noted: to.append((places, similarity))  # type: ignore[attr-defined]
            with binding.using(state):
                outputs.append(tower(chunk).last_hidden_state)
    close(torch.cat(outputs), arrays, case, "post_layernorm")
    selective = [number for number, noted in seen.items() if noted]
    assert [f"update_{number}" for number in selective] == [name for name in arrays if name.startswith("update")]
    for number in selective:
        places, similarity = (torch.stack(column) for column in zip(*seen[number], strict=True))  # type: ignore[arg-type]
        assert torch.equal(places, arrays[f"update_{number}"])
        close(similarity, arrays, case, f"similarity_{number}")


def close(found: Tensor, arrays: dict[str, Tensor], case: Case, name: str) -> None:
    worst = (found - arrays[name]).abs().max() / arrays[name].abs().max()
    assert worst <= case["arrays"][name]["tolerance"], f"{name} is off by {worst:.2e}"
