"""Every configuration composes and builds, and says the same as the Python list."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from compressors import build
from compressors.methods import PARTS, method_names
from compressors.registry import make, names, plugins
from experiments import presets
from experiments.assembly import budget_from, compressor_from, layout_from
from tests.conf.composing import composed

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("task", "model", "data", "experiment", "compressor", *PARTS, "cacher")
FILES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def test_the_default_is_vidcom2_with_fca_on_the_embedded_model() -> None:
    cfg = composed()
    assert (cfg.task.name, cfg.model.name, cfg.compressor.name) == ("generate", "micro", "vidcom2")
    assert compressor_from(cfg) == build("vidcom2", allocator="fca")
    assert budget_from(cfg) == {}
    assert layout_from(cfg) == {"positions": "original", "newlines": "raster"}


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_can_be_left_out(group: str) -> None:
    choices = {path.stem for path in (CONF / group).glob("*.yaml")}
    assert "none" in choices or group in ("task", "model")


@pytest.mark.parametrize(("group", "choice"), FILES, ids=lambda value: value)
def test_every_file_composes(group: str, choice: str) -> None:
    cfg = composed(f"{group}={choice}")
    assert OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if group in ("compressor", "experiment"):
        assert compressor_from(cfg).title == cfg.compressor.name
    elif group in presets.GROUPS and choice != "none":
        make(group, OmegaConf.to_container(cfg[group]))


@pytest.mark.parametrize("name", method_names())
def test_every_method_builds_the_same_from_yaml_and_python(name: str) -> None:
    assert compressor_from(composed(f"compressor={name}")) == build(name)


PARTS_BY_KIND = [(kind, name) for kind in presets.GROUPS for name in names(kind)]


@pytest.mark.parametrize(("kind", "name"), PARTS_BY_KIND, ids=lambda value: value)
def test_every_part_states_its_defaults(kind: str, name: str) -> None:
    stated = OmegaConf.to_container(composed(f"{kind}={name}")[kind])
    assert stated == presets.plain(make(kind, name))


@pytest.mark.parametrize("kind", presets.GROUPS)
def test_a_part_by_name_means_the_same_as_in_python(kind: str) -> None:
    if kind == "cacher":
        pytest.skip("presets choose no cacher")
    for name in method_names():
        cfg = composed(f"compressor={name}")
        if cfg[kind].name not in (name, "none") and "name" in cfg[kind]:
            again = composed(f"compressor={name}", f"{kind}={cfg[kind].name}")
            assert compressor_from(again) == build(name, **{kind: cfg[kind].name})


def test_files_are_up_to_date() -> None:
    """`python -m experiments.presets` writes them; a part or preset that is gone leaves no file behind."""
    written = dict(presets.files())
    stale = [path for path, text in written.items() if not (CONF / path).is_file() or (CONF / path).read_text() != text]
    assert not stale, f"run: python -m experiments.presets   (out of date: {', '.join(stale)})"
    known = set(written) | {f"{group}/none.yaml" for group in presets.GROUPS}
    present = {
        f"{group}/{path.name}" for group in (*presets.GROUPS, "compressor") for path in (CONF / group).glob("*.yaml")
    }
    assert present == known


def test_plugins_bring_their_own_files() -> None:
    ours = {path.split("/")[1].removesuffix(".yaml") for path, _ in presets.files() if path.startswith("compressor/")}
    assert ours == set(method_names()) - set(plugins("methods"))
