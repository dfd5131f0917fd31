"""Families from other packages: the entry point `vidpress.families`."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch

from adapters import UnsupportedError, families, family, family_of
from adapters.llava_onevision import LlavaOnevision
from compressors.errors import BuildError
from experiments.tables import models_table
from tests.adapters import tiny
from vidpress import press

KIND = "llava_onevision_of_a_plugin"


class Foreign(LlavaOnevision):
    name = "foreign"
    model_types = (KIND,)
    checkpoint = "somebody/foreign-7b"


class Stranger(LlavaOnevision):
    name = "stranger"  # its model type is taken


def installed(monkeypatch: pytest.MonkeyPatch, **classes: str) -> None:
    """As if a package with these entry points were installed."""
    points = [EntryPoint(name, f"{__name__}:{cls}", "vidpress.families") for name, cls in classes.items()]
    found = {"vidpress.families": points}
    monkeypatch.setattr(family, "_FAMILIES", dict(families()))
    monkeypatch.setattr(family, "entry_points", lambda group: found.get(group, []))


def foreign() -> Any:
    """A tiny LLaVA-OneVision under another model type."""
    model = tiny.build(tiny.FAMILIES["llava_onevision"])
    vars(model.config)["model_type"] = KIND
    return model


def test_a_family_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed and found by its model type, and its models are pressed as ours are."""
    inputs = tiny.prompt(tiny.FAMILIES["llava_onevision"], tiny.LAYOUTS["one"])
    model, ours = foreign(), tiny.build(tiny.FAMILIES["llava_onevision"])
    with pytest.raises(UnsupportedError, match=rf"'{KIND}'\) is not supported"):
        press(model, "vidcom2")
    installed(monkeypatch, foreign="Foreign")
    assert isinstance(family_of(model), Foreign)
    assert family_of(model) is family_of(model) is families()["foreign"]
    assert family_of(ours).name == "llava_onevision"
    assert "`somebody/foreign-7b`" in models_table()
    with torch.no_grad(), press(model, "vidcom2", retention=0.5) as report, press(ours, "vidcom2", retention=0.5):
        assert torch.equal(model(**inputs).logits, ours(**inputs).logits)
    assert report.kept < report.visual


@pytest.mark.parametrize(
    ("name", "cls", "match"),
    [("absent", "Absent", "'absent'.*could not be imported"), ("other", "Foreign", "'other'.*with that name")],
)
def test_a_plugin_that_is_none(monkeypatch: pytest.MonkeyPatch, name: str, cls: str, match: str) -> None:
    installed(monkeypatch, **{name: cls})
    with pytest.raises(BuildError, match=match):
        families()


def test_a_model_type_that_is_covered_already(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, stranger="Stranger")
    with pytest.raises(UnsupportedError, match="'llava_onevision' is already covered by family 'llava_onevision'"):
        families()
