"""What the task's YAML calls: where a question's video is, what is asked, and whether the answer is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


def video(doc: dict[str, Any]) -> list[str]:
    """Videos and images shown with the question: paths of files, or PIL images."""
    return [str(DATA / doc["video"])]


def question(doc: dict[str, Any]) -> str:
    """The prompt."""
    return str(doc["question"])


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """One number per metric of the YAML, for one document."""
    return {"accuracy": float(results[0].strip().lower() == doc["answer"])}
