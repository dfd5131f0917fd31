"""Experiments: every point of every sweep composes and builds, and is the setting that its table names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from compressors import BuildError, Compressor, build
from compressors.registry import make, names
from experiments.assembly import budget_from, check_numbers, compressor_from
from experiments.presets import VARIANTS
from tests.conf.composing import composed

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
FRAME, VIDEO = {"video_weight": 0.0}, {"frame_weight": 0.0}


def points(experiment: str, *overrides: str) -> list[DictConfig]:
    """The configurations of `python run.py -m experiment=<experiment> <overrides>`, in order."""
    arguments = [f"experiment={experiment}", *overrides]
    with initialize_config_module("conf", version_base="1.3"):
        preset = compose("config", overrides=arguments[:1], return_hydra_config=True)
        params = preset.hydra.sweeper.params
        swept = [f"{key}={value}" for key, value in (params or {}).items()]
        parsed = OverridesParser.create().parse_overrides([*swept, *arguments])
        (batch,) = BasicSweeper.split_arguments(parsed, None)
        return [compose("config", overrides=point) for point in batch]


def built(experiment: str) -> list[Compressor]:
    return [compressor_from(cfg) for cfg in points(experiment)]


def vidcom2(scorer: dict[str, Any], allocator: Any = "uniform") -> Compressor:
    return build("vidcom2", scorer={"name": "vidcom2", **scorer}, allocator=allocator)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_point_composes_and_builds(experiment: str) -> None:
    compositions = points(experiment)
    for cfg in [composed(f"experiment={experiment}"), *compositions]:
        assert OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        check_numbers(cfg)
        budget_from(cfg)
        assert compressor_from(cfg).exact or cfg.compressor.name == "none"
    settings = [
        (made := compressor_from(cfg), made.cacher, budget_from(cfg), cfg.frames, cfg.auto_retention)
        for cfg in compositions
    ]
    assert all(one not in settings[:i] for i, one in enumerate(settings)), "no point is another"


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "none"])
def test_every_experiment_is_described(experiment: str) -> None:
    assert f"`{experiment}`" in (ROOT / "docs" / "experiments.md").read_text()


def test_table_5_is_the_token_score_under_uniform_budgets() -> None:
    similar = {"keep": "similar"}
    scores: list[dict[str, Any]] = [{**FRAME, **similar}, FRAME, {**VIDEO, **similar}, VIDEO, {}]
    assert built("vidcom2_table5") == [vidcom2(score) for score in scores]


def test_table_6_is_the_allocator_on_both_scores() -> None:
    most = {"name": "fca", "frame_scorer": {"name": "frame_uniqueness", "statistic": "max"}}
    assert built("vidcom2_table6") == [
        vidcom2(score, allocator) for score in (FRAME, {}) for allocator in ("uniform", most, "fca")
    ]


def test_table_7_is_the_window_of_the_video_mean_for_tokens_and_frames() -> None:
    assert built("vidcom2_table7") == [
        vidcom2({"window": window}, {"name": "fca", "frame_scorer": {"name": "frame_uniqueness", "window": window}})
        for window in (4, 8, 16, None)
    ]


def test_table_8_is_the_balance() -> None:
    balances: list[dict[str, Any]] = [FRAME, VIDEO, {}, {"video_weight": 2.0}, {"frame_weight": 2.0}]
    assert built("vidcom2_table8") == [
        vidcom2(balance, allocator) for balance in balances for allocator in ("fca", "uniform")
    ]


def test_every_selector_that_takes_budgets_is_tried() -> None:
    def takes(selector: str) -> bool:
        try:
            build("vidcom2", selector=selector, allocator="fca")
        except BuildError:
            return False
        return True

    wanted = [(s, a) for s in names("selector") if takes(s) for a in ("uniform", "fca")]
    assert [(cfg.selector.name, cfg.allocator.name) for cfg in points("fca_on_selectors")] == wanted


def test_the_command_line_beats_what_an_experiment_sweeps() -> None:
    chosen = points("vidcom2_table6", "allocator=fca", "scorer=vidcom2,vidcom2_video", "retention=0.15")
    assert [compressor_from(cfg) for cfg in chosen] == [vidcom2({}, "fca"), vidcom2(VIDEO, "fca")]
    assert {cfg.retention for cfg in chosen} == {0.15}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, group in VARIANTS.items() for name in group])
def test_a_variant_is_no_part_of_its_own(kind: str, name: str) -> None:
    assert name not in names(kind)
    part = make(kind, VARIANTS[kind][name])
    assert part != make(kind, part.name)
