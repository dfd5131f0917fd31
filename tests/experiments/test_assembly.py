"""Settings that mean nothing to a task are refused, not passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressors.errors import InputError
from experiments import benchmark, evaluate, generate, lmms_eval
from tests.conf.composing import composed


@pytest.mark.parametrize("setting", ["memory=window", "source=clip"])
def test_settings_of_streams_elsewhere(setting: str, tmp_path: Path) -> None:
    cfg = composed(setting)
    tasks: dict[str, Any] = {
        "generate": generate.run,
        "benchmark": benchmark.measure,
        "lmms_eval": lmms_eval.check,
        "evaluate": lambda cfg: evaluate.evaluate(cfg, tmp_path),
    }
    for task, call in tasks.items():
        if (task, setting) == ("evaluate", "memory=window"):
            continue
        cfg.task.name = task
        with pytest.raises(InputError, match=rf"{setting} is for streams, and task={task} makes none: write task="):
            call(cfg)
