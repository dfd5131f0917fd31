"""`data=ovobench` and `data=streamingbench`: the published forms, on small manifests written here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from compressors.errors import InputError
from experiments.datasets import Dataset, dataset_from
from experiments.datasets.published import seconds_of
from experiments.summary import protocol_scores

CHOICE = {"id": 1, "task": "EPM", "video": "b/two.mp4", "realtime": 4, "question": "Which?", "options": ["x", "y", "z"]}
ANNOTATIONS: list[dict[str, Any]] = [
    {**CHOICE, "answer": "not what gt says", "gt": 1},
    {**CHOICE, "id": 2, "task": "OCR", "video": "one.mp4", "realtime": 0, "gt": 0},
    {**CHOICE, "id": 3, "task": "ACR", "realtime": 2.5, "gt": 2},
    {
        "id": 4,
        "task": "REC",
        "video": "one.mp4",
        "activity": "jump",
        "test_info": [{"realtime": 9, "count": 12}, {"realtime": 3, "count": 0}],
    },
    {"id": 5, "task": "SSR", "video": "one.mp4", "test_info": [{"realtime": 7, "step": "mix {it}", "type": 1}]},
    {
        "id": 6,
        "task": "CRR",
        "video": "b/two.mp4",
        "question": "And then?",
        "answer": "?",
        "ask_time": 1,
        "clue_time": 2,
        "test_info": [{"realtime": 1, "type": 0}],
    },
]
ROWS: list[dict[str, Any]] = [
    {
        "question_id": f"Real-Time Visual Understanding_sample_{video}_{number}",
        "task_type": kind,
        "question": "What is that?",
        "time_stamp": at,
        "answer": answer,
        "options": options,
        "frames_required": "single",
        "temporal_clue_type": "Prior",
    }
    for video, number, kind, at, answer, options in (
        (2, 1, "Counting", "00:01:10", "D", "['A. 1.', 'B. 2.', \"C. it's 3.\", 'D. 4.']"),
        (1, 2, "Object Perception", "00:00:09", "A", "['one', 'two', 'three', 'four']"),
        (1, 1, "Counting", "0:04", "B", "['A. 1.', 'B. 2.', 'C. 3.', 'D. 4.']"),
    )
]


def ovobench(folder: Path, annotations: Any = ANNOTATIONS, **changes: Any) -> Dataset:
    (folder / "b").mkdir(exist_ok=True)
    for name in ("one.mp4", "b/two.mp4"):
        (folder / name).touch()
    path = folder / "ovo_bench_new.json"
    path.write_text(json.dumps(annotations))
    settings = {"name": "ovobench", "path": str(path), "videos": None, "cut": False, "tasks": None}
    return dataset_from(OmegaConf.create(settings | changes))


def streamingbench(folder: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> Dataset:
    for number in (1, 2):
        (folder / f"sample_{number}").mkdir(exist_ok=True)
        (folder / f"sample_{number}" / "video.mp4").touch()
    path = folder / "Real_Time_Visual_Understanding.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    settings = {"name": "streamingbench", "path": str(path), "videos": None, "context": None, "tasks": None}
    return dataset_from(OmegaConf.create(settings | changes))


def test_ovobench_asks_every_question_at_every_time(tmp_path: Path) -> None:
    dataset = ovobench(tmp_path)
    found = [(s.id, s.kind, s.expected, s.end) for s in dataset.samples]
    assert found == [
        ("6_0", "forward_CRR", "No", 1.0),
        ("3", "realtime_ACR", "C", 2.5),
        ("1", "backward_EPM", "B", 4.0),
        ("2", "realtime_OCR", "A", 0.001),
        ("4_1", "forward_REC", "0", 3.0),
        ("5_0", "forward_SSR", "Yes", 7.0),
        ("4_0", "forward_REC", "12", 9.0),
    ]
    assert len({dataset.stream(s) for s in dataset.samples}) == 2
    assert len({s.video for s in dataset.samples}) == 7, "each time is a clip of its own"
    by_id = {s.id: s for s in dataset.samples}
    assert dataset.path(by_id["3"]) == tmp_path / "b" / "two.mp4"
    assert "A. x; B. y; C. z;" in by_id["3"].prompt
    assert "How many times did they jump?" in by_id["4_0"].prompt
    assert "\nmix {it}\n" in by_id["5_0"].prompt


def test_ovobench_rules(tmp_path: Path) -> None:
    dataset = ovobench(tmp_path)
    by_id = {s.id: s for s in dataset.samples}
    for name, right, wrong in (
        ("3", ("C", "(C) z", "C."), ("c", "B", "", "z")),
        ("4_0", ("12", "12 times", "1 and 2"), ("1", "12 or 13", "twelve", "")),
        ("5_0", ("Yes", "Yes.", "Y"), ("No", "N", "yes", "")),
        ("6_0", ("No", "N"), ("Yes", "Y")),
    ):
        assert all(dataset.is_right(by_id[name], reply) for reply in right), name
        assert not any(dataset.is_right(by_id[name], reply) for reply in wrong), name


def test_ovobench_cut_clips_and_tasks(tmp_path: Path) -> None:
    clips = tmp_path / "chunked_videos"
    clips.mkdir()
    (clips / "4_1.mp4").touch()
    dataset = ovobench(tmp_path, videos=str(clips), cut=True, tasks="REC, EPM")
    assert [(s.id, s.end, dataset.path(s).name) for s in dataset.samples] == [
        ("1", None, "1.mp4"),
        ("4_0", None, "4_0.mp4"),
        ("4_1", None, "4_1.mp4"),
    ]
    with pytest.raises(InputError, match="no EPN; known: EPM, ASI"):
        ovobench(tmp_path, tasks=["EPN"])
    with pytest.raises(InputError, match=r"nor any other of its videos; .*data\.videos"):
        ovobench(tmp_path, videos=str(tmp_path / "b"))


def test_every_bad_annotation_is_named(tmp_path: Path) -> None:
    rec, ssr = ANNOTATIONS[3], ANNOTATIONS[4]
    bad = [
        {**ANNOTATIONS[0], "gt": 3},
        {**ANNOTATIONS[1], "options": "xyz"},
        {**ANNOTATIONS[2], "realtime": "soon"},
        {**ANNOTATIONS[2], "id": 30, "task": "XYZ"},
        {**ANNOTATIONS[2], "id": 31, "video": ""},
        {**rec, "test_info": [{"realtime": 1, "count": "two"}, {"realtime": -1, "count": 1}]},
        {**ssr, "test_info": [{"realtime": 1, "step": "mix", "type": 2}]},
        {**ssr, "id": 5, "test_info": []},
        "text",
    ]
    with pytest.raises(InputError) as caught:
        ovobench(tmp_path, bad)
    for told in (
        "1: gt: must be the number of an option, 0 to 2, got 3",
        "2: options: must be a list of 2 to 26 texts",
        "3: realtime: must be seconds, got 'soon'",
        "30: task: 'XYZ' is none of EPM",
        "31: video: missing",
        "4: test_info[0].count: must be a whole number, got 'two'",
        "4: test_info[1].realtime: must be seconds",
        "5: test_info[0].type: must be 0 or 1, got 2",
        "5: id: missing, or not the only one",
        "5: test_info: must be a list",
        "entry 8: must be an object",
    ):
        assert told in str(caught.value)
    with pytest.raises(InputError, match="a list of annotations is expected"):
        ovobench(tmp_path, {})


def test_streamingbench(tmp_path: Path) -> None:
    dataset = streamingbench(tmp_path)
    assert [(s.id[-3:], s.kind, s.expected, s.start, s.end) for s in dataset.samples] == [
        ("2_1", "Counting", "D", None, 70.0),
        ("1_1", "Counting", "B", None, 4.0),
        ("1_2", "Object Perception", "A", None, 9.0),
    ]
    assert "Options:\nA. one\nB. two\nC. three\nD. four\n\nThe best" in dataset.samples[2].prompt
    assert "\nC. it's 3.\n" in dataset.samples[0].prompt
    assert dataset.path(dataset.samples[0]) == tmp_path / "sample_2" / "video.mp4"
    sample = dataset.samples[0]
    assert [dataset.is_right(sample, reply) for reply in ("D", " D. 4.", "4", "", "The D")] == [True, True] + [
        False
    ] * 3
    recent = streamingbench(tmp_path, context=60, tasks="Counting").samples
    assert [(s.start, s.end) for s in recent] == [(10.0, 70.0), (None, 4.0)]
    assert recent[0].video != sample.video


def test_every_bad_row_is_named(tmp_path: Path) -> None:
    changes = (
        {"question_id": "1"},
        {"time_stamp": "1:2:3:4"},
        {"options": "['A. 1.'"},
        {"answer": "E"},
        {"question": ""},
    )
    with pytest.raises(InputError) as caught:
        streamingbench(tmp_path, [{**ROWS[0], **change} for change in changes])
    for told in ("2: question_id", "3: time_stamp", "4: options", "5: answer: 'E'", "6: question: missing"):
        assert told in str(caught.value)
    with pytest.raises(InputError, match="no column options"):
        streamingbench(tmp_path, [{k: v for k, v in ROWS[0].items() if k != "options"}])
    with pytest.raises(InputError, match="ids must differ"):
        streamingbench(tmp_path, [ROWS[0], ROWS[0]])
    with pytest.raises(InputError, match=r"data\.context=0"):
        streamingbench(tmp_path, context=0)


@pytest.mark.parametrize("name", ["ovobench", "streamingbench"])
def test_a_file_is_needed(name: str) -> None:
    settings = {"name": name, "path": None, "videos": None, "cut": False, "tasks": None, "context": None}
    with pytest.raises(InputError, match=rf"data={name} needs its annotation file: data\.path="):
        dataset_from(OmegaConf.create(settings))


def test_seconds() -> None:
    assert [seconds_of(value) for value in ("1:01:02", "1:02", "2.5", 3)] == [3662.0, 62.0, 2.5, 3.0]
    assert [seconds_of(value) for value in ("", "1:2:3:4", "-1", None, True, float("nan"), -1)] == [None] * 7


def test_scores_of_a_protocol() -> None:
    """Groups weigh alike whatever their number of tasks and questions; what was not answered is wrong."""

    def lines(kind: str, *right: bool | None) -> list[dict[str, Any]]:
        return [{"kind": kind, "right": r, "error": "no video" if r is None else None} for r in right]

    answered = [*lines("a_X", True, True, True, None), *lines("b_Y", True, False), *lines("b_Z", False)]
    scores = protocol_scores(answered, "groups")
    assert scores is not None
    assert scores["tasks"] == {"a_X": 0.75, "b_Y": 0.5, "b_Z": 0.0}
    assert scores["groups"] == {"a": 0.75, "b": 0.25}
    assert (scores["total"], scores["n"], scores["unanswered"]) == (0.5, 7, 1)
    assert scores["mean_of_tasks"] == pytest.approx(1.25 / 3)
    whole = protocol_scores(answered, "questions")
    assert whole is not None
    assert whole["total"] == pytest.approx(4 / 7)
    assert "groups" not in whole
    assert protocol_scores(answered, None) is None
