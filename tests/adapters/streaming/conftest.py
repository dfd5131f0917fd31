"""Small frames have few tokens here: the published processors' least number would make every window a large one."""

from __future__ import annotations

import pytest

from adapters.qwen2_vl import Qwen2VL


@pytest.fixture(autouse=True)
def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Qwen2VL, "min_tokens", 1)
