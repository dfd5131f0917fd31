"""`task=stream`: a session over a live source, with questions at any time."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.padding import Padding

from adapters.micro import clip_path
from adapters.streaming import build_memory
from compressors.errors import InputError
from experiments.assembly import budget_from, check_numbers, compressor_from, layout_from
from experiments.display import facts
from experiments.results import output_folder, versions, write_json
from experiments.sessions import session_from
from experiments.streaming.endpoint import LOOPBACK, Endpoint
from experiments.streaming.keyboard import Keyboard
from experiments.streaming.questions import Question, Refused, question_from, questions_from, read_questions
from experiments.streaming.queue import POLICIES
from experiments.streaming.recorder import Recorder
from experiments.streaming.running import Pace, Stream
from experiments.streaming.settings import number, number_or_none, one_of, path
from experiments.streaming.sources import Source, source_from, without_password
from experiments.streaming.view import Watcher, rows, view_for
from experiments.subject import DEFAULT_QUESTION, model_from

# Settings of other tasks: where they are given, something else was meant.
_ELSEWHERE = {"video": "source=file source.path=", "frames": "source.fps=", "fps": "source.fps="}


def run(cfg: DictConfig) -> None:
    """Run the stream; answers, curve and `result.json` are in Hydra's output directory.

    Raises:
        VidpressError: anything in the configuration, the source or the model that cannot be, before any of it is used
            where that can be known; and what ended the stream, after its result was written.
    """
    # Whatever can be wrong in the settings shows before anything slow starts.
    check_numbers(cfg)
    for key, instead in _ELSEWHERE.items():
        if cfg[key] is not None:
            raise InputError(f"{key}={cfg[key]} is no setting of task=stream: write {instead}…")
    source = source_from(cfg)
    typing = typing_is_possible(cfg)
    pace, questions = pace_from(cfg, source), all_questions(cfg, typing=typing)
    serve, sample = endpoint_settings(cfg), number("task.sample", cfg.task.sample, 0.01)
    every = number("task.every", cfg.task.every, 0.1)
    pruner, budget = compressor_from(cfg), budget_from(cfg)
    settings = session_settings(cfg)
    source.check()
    # What a session takes for the time between two frames, where it has to guess.
    settings["fps"] = source.rate if pace.fps is None else min(pace.fps, source.rate)
    torch.manual_seed(cfg.seed)
    model, processor = model_from(cfg)
    with session_from(cfg, model, processor, pruner, budget, **settings) as session:
        stream = Stream(session, source, questions, pace)
        with Recorder(output_folder(), sample) as recorder:
            watch(stream, [recorder], source.title, every, typing=typing, serve=serve)
    result = {
        "source": source.title,
        "ended": {"reason": stream.ended, "message": None if stream.error is None else str(stream.error)},
        "status": stream.status(),
        "answers": {**recorder.answers, "unasked": stream.unasked, "file": "answers.jsonl"},
        "curve": "curve.jsonl",
        "notices": list(recorder.notices),
        "config": _without_passwords(OmegaConf.to_container(cfg, resolve=True)),
        "versions": versions(),
    }
    written = write_json(output_folder() / "result.json", result)
    show(result)
    Console(stderr=True).print(f"written: {written}", soft_wrap=True, highlight=False)
    if stream.error is not None:
        raise stream.error


def watch(
    stream: Stream,
    watchers: list[Watcher],
    title: str,
    every: float,
    *,
    typing: bool,
    serve: dict[str, Any] | None,
) -> None:
    """Run the stream with its view, its endpoint and the keyboard, beside other watchers."""
    console, keyboard = Console(), None

    def ask(text: str) -> None:
        try:
            stream.ask(question_from({"question": text}, "typed", "terminal", timed=False))
        except (InputError, Refused) as error:
            view.notice(str(error))

    if typing:
        keyboard = Keyboard(sys.stdin.fileno(), ask, quiet=console.is_terminal)
    view = view_for(console, title, every, keyboard.typed if keyboard else None)
    watchers = [*watchers, view]
    with ExitStack() as opened:
        if serve is not None:
            endpoint = opened.enter_context(Endpoint(stream.ask, stream.status, **serve))
            watchers.append(endpoint)
            warning = "" if serve["host"] in LOOPBACK else ": open to the network, without a password"
            for watcher in watchers:
                watcher.notice(f"listening on {endpoint.url}{warning}")
        if keyboard is not None:
            opened.enter_context(keyboard)
        opened.enter_context(view)
        stream.run(watchers)


def pace_from(cfg: DictConfig, source: Source) -> Pace:
    """How frames are taken and handled.

    Raises:
        InputError: a setting that cannot be.
    """
    waits = not (source.live or source.paced)
    policy = cfg.policy if cfg.policy is not None else "block" if waits else "drop_oldest"
    return Pace(
        policy=one_of("policy", policy, POLICIES),
        capacity=int(number("task.queue", cfg.task.queue, 1, whole=True)),
        slowest=int(number("task.slowest", cfg.task.slowest, 1, whole=True)),
        fps=number_or_none("source.fps", cfg.source.fps, 0.001),
        seconds=number_or_none("source.seconds", cfg.source.seconds, 0.001),
        broken_limit=int(number("source.broken_limit", cfg.source.broken_limit, 0, whole=True)),
        chunk=int(number("task.chunk", cfg.task.chunk, 1, whole=True)),
        max_new_tokens=cfg.max_new_tokens,
        stay=one_of("task.stay", cfg.task.stay, (True, False)),
    )


def session_settings(cfg: DictConfig) -> dict[str, Any]:
    """What the session is told beside model, pruner, cacher and memory.

    Raises:
        InputError: no memory.
        BuildError: a setting of the memory, or positions, that cannot be.
    """
    if cfg.memory.name == "none":
        raise InputError("task=stream needs a memory: memory=retrieval, memory=window or memory=full.")
    memory: Any = OmegaConf.to_container(cfg.memory, resolve=True)
    build_memory(memory)
    layout = layout_from(cfg)
    if layout["newlines"] != "raster":
        raise InputError(f"newlines={cfg.newlines} is for whole videos: task=stream leaves newlines where they stand.")
    return {
        "form": one_of("task.form", cfg.task.form, ("video", "turns")),
        "chunk": int(number("task.chunk", cfg.task.chunk, 1, whole=True)),
        "system": None if cfg.task.system is None else str(cfg.task.system),
        "positions": layout["positions"],
    }


def all_questions(cfg: DictConfig, *, typing: bool) -> list[Question]:
    """Questions with times: `questions`, then `question` at the end; those of the embedded clip where neither is given.

    Where nobody could ask anything else, a video is described at its end.

    Args:
        cfg: the configuration.
        typing: whether questions may be typed.

    Raises:
        InputError: a question that is none, or a file that cannot be read.
    """
    found: list[Question] = []
    if cfg.questions is not None:
        listed = OmegaConf.is_list(cfg.questions)
        found = (
            questions_from(OmegaConf.to_container(cfg.questions), "questions", "setting")  # type: ignore[arg-type]
            if listed
            else read_questions(path("questions", cfg.questions, "questions.yaml"))
        )
    if cfg.question is not None:
        found += questions_from([{"question": cfg.question}], "question", "setting")
    if found or cfg.questions is not None:
        return found
    if cfg.source.name == "clip":
        # The answers are those to the clip as it is, shown once.
        return clip_questions(known=not cfg.source.loop and cfg.source.seconds is None)
    if cfg.serve.port is None and not typing:
        return questions_from([{"question": DEFAULT_QUESTION}], "question", "setting")
    return []


def clip_questions(*, known: bool = True) -> list[Question]:
    """The embedded clip's questions, with their answers if `known`, at its end; those about what moves half-way too."""
    about = json.loads(clip_path().with_suffix(".json").read_text())["questions"]
    asked = [{"question": item["question"], "expected": item["answer"] if known else None} for item in about]
    half = [{"at": 2.0, **one} for one, item in zip(asked, about, strict=True) if item["type"].startswith("mover")]
    return questions_from([*half, *asked], "the embedded clip", "clip")


def endpoint_settings(cfg: DictConfig) -> dict[str, Any] | None:
    """What `Endpoint` takes; None where nothing is served.

    Raises:
        InputError: a setting that cannot be.
    """
    chosen = cfg.serve
    if chosen.port is None:
        return None
    port = int(number("serve.port", chosen.port, 0, whole=True))
    if port > 65535:
        raise InputError(f"serve.port={port} must be 65535 at most.")
    return {
        "host": str(chosen.host),
        "port": port,
        "body_limit": int(number("serve.body_limit", chosen.body_limit, 64, whole=True)),
        "timeout": number("serve.timeout", chosen.timeout, 0.1),
        "every": number("serve.every", chosen.every, 0.05),
    }


def typing_is_possible(cfg: DictConfig) -> bool:
    """Whether somebody may type questions: at a terminal that is no source, in a run that is no sweep."""
    single = HydraConfig.get().mode == RunMode.RUN
    return single and cfg.source.name != "stdin" and sys.stdin is not None and sys.stdin.isatty()


def show(result: dict[str, Any]) -> None:
    """Print how it ended."""
    ended, answers, status = result["ended"], result["answers"], result["status"]
    told = {"ended": ended["reason"] if ended["message"] is None else f"{ended['reason']}: {ended['message']}"}
    console = Console()
    if not console.is_terminal:  # where the view's last picture says it
        told |= rows(status)
    if answers["expected"]:
        told["right"] = f"{answers['right']} of {answers['expected']} whose answer is known"
    if answers["unasked"]:
        told["not asked"] = f"{answers['unasked']} questions, whose time had not come"
    console.print(Padding(facts(told), (1, 0, 0, 0)))


def _without_passwords(config: Any) -> Any:
    if config["source"].get("url"):
        config["source"]["url"] = without_password(config["source"]["url"])
    return config
