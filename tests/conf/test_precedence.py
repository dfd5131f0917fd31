"""The command line beats the experiment, and the experiment beats the preset."""

from __future__ import annotations

import pytest

from compressors import BudgetError, BuildError, build
from experiments.assembly import budget_from, compressor_from, layout_from
from tests.conf.composing import composed


def test_the_preset_chooses_the_parts() -> None:
    cfg = composed("compressor=random")
    assert (cfg.selector.name, cfg.allocator.name, cfg.scorer.name) == ("random", "none", "none")


def test_an_experiment_beats_the_preset() -> None:
    cfg = composed("experiment=fca_on_random")
    assert (cfg.compressor.name, cfg.selector.name, cfg.allocator.name, cfg.retention) == (
        "random",
        "random",
        "fca",
        0.1,
    )
    assert compressor_from(cfg) == build("random", allocator="fca")


def test_the_command_line_beats_the_preset() -> None:
    cfg = composed("compressor=vidcom2", "allocator=uniform", "scorer.fraction=0.25")
    assert compressor_from(cfg) == build("vidcom2", allocator="uniform", fraction=0.25)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_command_line_beats_the_experiment_in_any_order(reverse: bool) -> None:
    overrides = ["experiment=fca_on_random", "compressor=vidcom2", "allocator=uniform", "retention=0.5"]
    cfg = composed(*(reversed(overrides) if reverse else overrides))
    assert (cfg.compressor.name, cfg.scorer.name, cfg.selector.name) == ("vidcom2", "vidcom2", "token_saliency")
    assert (cfg.allocator.name, cfg.retention) == ("uniform", 0.5)


def test_a_compressor_on_the_command_line_keeps_the_experiments_allocator() -> None:
    cfg = composed("experiment=fca_on_random", "compressor=stride")
    assert (cfg.compressor.name, cfg.selector.name, cfg.allocator.name) == ("stride", "stride", "fca")


def test_a_presets_parameters_give_way_to_the_command_line() -> None:
    assert composed("compressor=vidcom2_released").allocator.rounding == "nearest"
    assert composed("compressor=vidcom2_released", "allocator.rounding=exact").allocator.rounding == "exact"
    assert composed("compressor=vidcom2_released", "allocator=fca").allocator.rounding == "exact"


def test_none_takes_a_part_away() -> None:
    cfg = composed("compressor=vidcom2", "allocator=none")
    assert compressor_from(cfg) == build("vidcom2", allocator="none")


def test_a_method_that_does_not_split_takes_no_parts() -> None:
    with pytest.raises(BuildError, match="does not split"):
        compressor_from(composed("compressor=none", "allocator=fca"))


def test_budgets_and_positions_are_checked_before_anything_runs() -> None:
    assert budget_from(composed("tokens=64")) == {"tokens": 64}
    with pytest.raises(BudgetError, match="two budgets"):
        budget_from(composed("experiment=fca_on_random", "tokens=64"))
    with pytest.raises(BudgetError, match="not a finite number"):
        budget_from(composed("retention=lots"))
    with pytest.raises(BuildError, match="original or contiguous"):
        layout_from(composed("positions=somewhere"))


def test_an_allocator_inside_a_method_that_is_one_piece() -> None:
    cfg = composed("compressor=flashvid", "allocator=fca", "allocator.frame_scorer.statistic=max")
    fca = {"name": "fca", "frame_scorer": {"name": "frame_uniqueness", "statistic": "max"}}
    assert compressor_from(cfg) == build("flashvid", allocator=fca)
    with pytest.raises(BuildError, match="method 'holitom' takes no allocator: once static places"):
        compressor_from(composed("compressor=holitom", "allocator=fca"))
