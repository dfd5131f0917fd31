"""`task=stream` for real: the embedded model, the command line, and what is left in the folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import av
import pytest

from adapters.micro import clip_path
from tests.adapters.moving import write
from tests.experiments.conftest import Command

ROOT = Path(__file__).parents[3]


def results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """`result.json`, answers and curve."""
    (path,) = folder.rglob("result.json")
    lines = [
        [json.loads(line) for line in (path.parent / name).read_text().splitlines()]
        for name in ("answers.jsonl", "curve.jsonl")
    ]
    return json.loads(path.read_text()), lines[0], lines[1]


def test_the_default_stream(vidpress: Command) -> None:
    code, out, err, folder = vidpress("task=stream")
    assert code == 0, err
    result, answers, curve = results(folder)
    assert result["ended"] == {"reason": "end", "message": None}
    assert (result["config"]["cacher"]["name"], result["config"]["compressor"]["name"]) == ("stc", "stc_pruner")
    assert result["config"]["memory"]["name"] == "retrieval"
    status = result["status"]
    assert (status["frames"]["seen"], status["frames"]["handled"], status["policy"]) == (32, 32, "block")
    assert (status["tokens"]["seen"], status["tokens"]["kept"]) == (256, 64)
    assert 0.3 < status["reuse"] < 0.4, "three in four tokens of every second frame"
    assert status["bytes"]["device"] > 0
    assert result["answers"] == {
        "all": 10,
        "failed": 0,
        "expected": 10,
        "right": 10,
        "unasked": 0,
        "file": "answers.jsonl",
    }
    assert [(answer["at"], answer["frames"]) for answer in answers] == [(2.0, 17)] * 3 + [("end", 32)] * 7
    assert answers[3]["question"] == "Which shape flashed?"
    assert answers[3]["answer"] == answers[3]["expected"] == "ring"
    assert curve[-1]["state"] == "ended"
    assert {**curve[-1], "elapsed": 0} == {**status, "elapsed": 0}
    for shown in ("stream: the embedded clip", "→ ring (right: ring)", "32 seen, 32 handled", "10 of 10"):
        assert shown in out


def test_without_reuse_pruning_or_forgetting_a_stream_is_the_video(vidpress: Command) -> None:
    plain = ("cacher=none", "compressor=none", "memory=full", "question=Which shape flashed?", "max_new_tokens=4")
    code, _, err, folder = vidpress("task=stream", *plain)
    assert code == 0, err
    result, answers, _ = results(folder)
    assert [answer["answer"] for answer in answers] == ["ring"]
    assert result["status"]["tokens"] == {"seen": 256, "kept": 256, "held": result["status"]["tokens"]["held"]}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["memory=none"], "task=stream needs a memory: memory=retrieval"),
        (["video=a.mp4"], "write source=file source.path="),
        (["frames=auto", "tokens=8"], "write source.fps="),
        (["policy=drop_newest"], "policy=drop_newest: write drop_oldest | block | lower_rate"),
        (["task.chunk=3"], "chunk=3 must be a multiple of 2"),
        (["source=file", "source.path=none.mp4"], "none.mp4: no such file"),
        (["source.fps=0"], "source.fps=0 must be a number, 0.001 or more"),
        (["serve.port=99999"], "serve.port=99999 must be 65535 at most"),
        (["compressor=cdpruner"], "looks at the question"),
        (["memory=retrieval", "memory.budget=0"], "budget"),
        (["source=file", "source.paht=a.mp4"], "Did you mean source.path?"),
        (["policy=block", "task=generate"], "policy: there is no such setting"),
    ],
)
def test_settings_that_cannot_be_are_said_in_one_line(vidpress: Command, overrides: list[str], reason: str) -> None:
    code, _, err, folder = vidpress("task=stream", *overrides)
    assert (code, reason in err, err.count("\n")) == (2, True, 1), err
    assert not list(folder.rglob("result.json"))


def test_a_source_that_fails_leaves_result_and_error(vidpress: Command, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", options={"movflags": "faststart"})
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    code, _, err, folder = vidpress(
        "task=stream", "source=file", f"source.path={whole}", "source.pace=fast", "source.fps=5", "max_new_tokens=2"
    )
    assert code == 2
    assert "error: " in err
    assert "cut off: of 40 frames only" in err
    result, answers, _ = results(folder)
    assert result["ended"]["reason"] == "cut_off"
    assert result["status"]["frames"]["handled"] > 5
    assert [answer["question"] for answer in answers] == ["Describe the video."]
    (error,) = folder.rglob("error.json")
    assert "cut off" in json.loads(error.read_text())["error"]


def test_served_from_a_pipe_until_it_is_told_to_end(tmp_path: Path) -> None:
    """A process of its own: bytes through standard input, questions over HTTP, and the signal that ends services."""
    piped = tmp_path / "clip.mkv"
    with av.open(str(clip_path())) as source, av.open(str(piped), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    command = [sys.executable, str(ROOT / "run.py"), "task=stream", "source=stdin", "source.fps=null"]
    options = ["serve.port=0", "task.stay=true", "hydra.run.dir=out", "task.every=0.2"]
    with subprocess.Popen(
        [*command, *options],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stdin
        assert process.stdout
        process.stdin.write(piped.read_bytes())
        process.stdin.close()
        address = next(line.split()[-1] for line in process.stdout if b"listening on" in line).decode()

        def call(path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
            data = None if content is None else json.dumps(content).encode()
            request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                answer: dict[str, Any] = json.load(reply)
            return answer

        while call("/status")["frames"]["handled"] < 32:
            time.sleep(0.05)
        assert call("/ask", {"question": "Which shape flashed?"})["answer"] == "ring"
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.stderr
        err = process.stderr.read().decode()
        watchdog.cancel()
    assert process.returncode == 0, err
    result, answers, _ = results(tmp_path / "out")
    assert result["ended"]["reason"] == "interrupted"
    assert [(answer["origin"], answer["answer"]) for answer in answers] == [("http", "ring")]
    frames = result["status"]["frames"]
    assert (frames["seen"], frames["handled"], frames["left"]) == (32, 32, 0)


def test_a_password_stays_out_of_the_result(vidpress: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://me:secret@127.0.0.1:{port}/a.mkv"
    code, out, err, folder = vidpress("task=stream", "source=url", f"source.url={url}", "source.attempts=0")
    assert code == 2
    assert "Connection refused" in err
    (path,) = folder.rglob("result.json")
    assert "secret" not in path.read_text() + out + err
    assert f"http://127.0.0.1:{port}/a.mkv" in path.read_text()
