"""The commands of the page on streams mean what they say: they compose, and their sources and questions build."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from experiments.assembly import budget_from, compressor_from
from experiments.stream import all_questions, endpoint_settings, pace_from, session_settings
from experiments.streaming.sources import source_from
from tests.conf.composing import composed

PAGE = (Path(__file__).parents[3] / "docs" / "streaming_live.md").read_text()
COMMANDS = re.findall(r"python run\.py (task=stream[^#\n]*)", PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str) -> None:
    cfg = composed(*shlex.split(command))
    pace_from(cfg, source_from(cfg))
    all_questions(cfg, typing=False)
    endpoint_settings(cfg)
    session_settings(cfg)
    compressor_from(cfg)
    budget_from(cfg)


def test_there_are_commands_for_every_source() -> None:
    assert len(COMMANDS) > 10
    assert {f"source={name}" for name in ("clip", "file", "folder", "camera", "url", "stdin")} <= set(
        " ".join(COMMANDS).split()
    )
