"""`data=manifest`: rows of JSONL and CSV, and every bad one named before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from compressors.errors import InputError
from experiments.datasets import Dataset, dataset_from

GOOD = {"video": "a.mp4", "question": "Which?", "answer": "ring"}


def load(path: Path) -> Dataset:
    return dataset_from(OmegaConf.create({"name": "manifest", "path": str(path)}))


def written(folder: Path, *rows: Any, name: str = "q.jsonl") -> Path:
    for video in ("a.mp4", "b.mp4"):
        (folder / video).touch()
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "kind": "shape", "start": 1, "end": 2.5, "id": "first"},
        {**GOOD, "video": str(tmp_path / "b.mp4"), "answer": "B", "options": ["a cross", "a ring"]},
        {**GOOD, "answer": 3},
    ]
    dataset = load(written(tmp_path, *rows))
    first, second, third = dataset.samples
    assert (first.id, first.kind, first.start, first.end) == ("first", "shape", 1.0, 2.5)
    assert second.expected == "a ring"
    assert second.prompt == "Which?\nA. a cross\nB. a ring\nAnswer with the option's letter."
    assert (third.id, third.expected, third.kind, third.prompt) == ("q.jsonl:3", "3", "all", "Which?")
    assert dataset.path(first) == dataset.path(third) == tmp_path / "a.mp4"
    assert first.video != third.video, "another span is another video"


def test_csv(tmp_path: Path) -> None:
    text = 'video,question,answer,options,end\na.mp4,"Which, then?",ring,ring|cross,\nb.mp4,How many?,2,,3.5\n'
    first, second = load(written(tmp_path, text.strip(), name="q.csv")).samples
    assert (first.question, first.options, first.end) == ("Which, then?", ("ring", "cross"), None)
    assert (second.expected, second.options, second.end, second.id) == ("2", None, 3.5, "q.csv:3")


def test_questions_about_one_video_stand_together(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "video": "b.mp4"}, {**GOOD, "question": "When?"}]
    assert [s.question for s in load(written(tmp_path, *rows)).samples] == ["Which?", "When?", "Which?"]


def test_every_bad_row_is_named(tmp_path: Path) -> None:
    rows = [
        GOOD,
        {"video": "a.mp4", "question": " ", "colour": "red"},
        {**GOOD, "video": "none.mp4", "start": "soon", "end": True},
        {**GOOD, "options": ["cross", "disc"]},
        {**GOOD, "options": ["ring", "ring"]},
        {**GOOD, "start": 3, "end": 3},
        '{"video": ',
        "[1, 2]",
        {**GOOD, "id": "x"},
        {**GOOD, "id": "x"},
    ]
    path = written(tmp_path, *rows)
    with pytest.raises(InputError) as caught:
        load(path)
    told = str(caught.value)
    for expected in (
        f"{path}:2: colour: no such field",
        f"{path}:2: question: must be a text that is not empty",
        f"{path}:2: answer: missing",
        f"{path}:3: video: none.mp4: no such file",
        f"{path}:3: start: must be seconds, 0 or more, got 'soon'",
        f"{path}:3: end: must be seconds",
        f"{path}:4: answer: 'ring' is none of the options ['cross', 'disc']",
        f"{path}:5: options: must be 2 to 26 texts that differ",
        f"{path}:6: end: 3.0 is not after the start (3.0)",
        f"{path}:7: not JSON",
        f"{path}:8: a row must be an object with fields, not list",
        "id: 'x' stands 2 times",
    ):
        assert expected in told
    assert f"{path}:1:" not in told


def test_an_answer_that_could_be_two_things(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both an option and the letter of another"):
        load(written(tmp_path, {**GOOD, "options": ["B", "A"], "answer": "A"}))
    (sample,) = load(written(tmp_path, {**GOOD, "options": ["A", "B"], "answer": "B"}, name="q.JSONL")).samples
    assert sample.expected == "B"


def test_a_changed_manifest_is_another_data_set(tmp_path: Path) -> None:
    before = load(written(tmp_path, GOOD)).fingerprint
    assert load(written(tmp_path, GOOD)).fingerprint == before
    assert load(written(tmp_path, {**GOOD, "answer": "cross"})).fingerprint != before


def test_bad_csv(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r":1: answer: no such column"):
        load(written(tmp_path, "video,question\na.mp4,x", name="q.csv"))
    with pytest.raises(InputError, match=r":2: more cells than columns"):
        load(written(tmp_path, "video,question,answer\na.mp4,Which, then?,x", name="q.csv"))


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.path=questions\.jsonl"):
        dataset_from(OmegaConf.create({"name": "manifest", "path": None}))
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"\.jsonl or a \.csv"):
        load(written(tmp_path, GOOD, name="q.txt"))
    with pytest.raises(InputError, match="no rows"):
        load(written(tmp_path, ""))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load(tmp_path / "binary.jsonl")
    with pytest.raises(InputError, match="data=micro or data=manifest"):
        dataset_from(OmegaConf.create({"name": "none"}))
