"""`task=lmms_eval`: published benchmarks under compression, scored by lmms-eval."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from adapters.errors import LoadError, UnsupportedError
from compressors.errors import InputError
from experiments.assembly import budget_from, check_numbers, compressor_from, layout_from, refuse_streams
from experiments.display import facts, stage_table
from experiments.frames import AUTO, fixed_frames, frames_setting
from experiments.lmms import require
from experiments.lmms.answering import Answerer, Totals
from experiments.lmms.generation import generation_options
from experiments.results import output_folder, versions, write_json
from experiments.subject import model_from

SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")


def run(cfg: DictConfig) -> None:
    """Evaluate, show, and write `result.json` and `answers.json` into Hydra's output directory."""
    result, answers = evaluate(cfg)
    show(cfg, result)
    written = [
        write_json(output_folder() / "answers.json", answers),
        write_json(output_folder() / "result.json", result),
    ]
    Console(stderr=True).print(f"written: {', '.join(map(str, written))}", soft_wrap=True, highlight=False)


def evaluate(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of `result.json` and `answers.json`.

    Raises:
        VidpressError: anything in the configuration, the tasks or the model that cannot be; before anything slow
            where that can be known.
    """
    check(cfg)
    compressor, budget, layout = compressor_from(cfg), budget_from(cfg), layout_from(cfg)
    harness = _harness()
    manager = harness.TaskManager("WARNING", cfg.task.include_path, model_name=cfg.task.prompts)
    tasks = [_known(str(name), manager) for name in cfg.task.tasks]
    generation = _as_text(cfg.task.generation, harness.parse)
    answerer = Answerer(
        *model_from(cfg),
        compressor,
        budget,
        **layout,
        frames=fixed_frames(cfg),
        fps=cfg.fps,
        batch=cfg.task.batch,
        length=cfg.max_new_tokens,
        stop_at_blank_line=cfg.task.stop_at_blank_line,
    )
    try:
        found = harness.simple_evaluate(
            model=harness.Vidpress(answerer),
            tasks=tasks,
            task_manager=manager,
            limit=cfg.task.limit,
            batch_size=cfg.task.batch,
            gen_kwargs=generation or None,
            # Some tasks write a file to submit to their server, into this folder.
            cli_args=SimpleNamespace(output_path=str(output_folder()), process_with_media=True),
            **dict.fromkeys(SEEDS, cfg.seed),
        )
    except harness.RetryError as error:  # after several tries, each of which failed with the same
        cause = error.last_attempt.exception()
        raise LoadError(f"the data of {', '.join(tasks)} could not be loaded: {cause}") from error
    answers = {name: [_answer(sample) for sample in samples] for name, samples in found["samples"].items()}
    return _plain(_result(cfg, answerer.totals, found)), _plain(answers)


def check(cfg: DictConfig) -> None:
    """Refuse settings that cannot be followed.

    Raises:
        InputError, UnsupportedError: a video or question beside the benchmark's, no task, random weights, or a
            number out of range.
    """
    check_numbers(cfg)
    refuse_streams(cfg, "memory", "source")
    for key in ("video", "question"):
        if cfg[key] is not None:
            raise InputError(f"{key}={cfg[key]}: a benchmark brings its own; leave {key}= out or use task=generate.")
    if cfg.data.name != "none":
        raise InputError(f"data={cfg.data.name}: a benchmark brings its own data; leave data= out.")
    if frames_setting(cfg) == AUTO:
        raise InputError("frames=auto is not supported here: write frames=32, or use task=evaluate.")
    if cfg.frames is not None and cfg.fps is not None:
        raise InputError(f"frames={cfg.frames} and fps={cfg.fps}: give one of them.")
    if isinstance(cfg.task.tasks, str) or not cfg.task.tasks:
        raise InputError(f"task.tasks={cfg.task.tasks}: write a list of lmms-eval's tasks, such as [videomme,mvbench].")
    if isinstance(cfg.task.batch, bool) or not isinstance(cfg.task.batch, int) or cfg.task.batch < 1:
        raise InputError(f"task.batch={cfg.task.batch} must be a whole number, 1 or more.")
    limit = cfg.task.limit
    if limit is not None and (isinstance(limit, (bool, str)) or limit <= 0):
        raise InputError(f"task.limit={limit} must be a number above 0, or null for all documents.")
    generation_options(cfg.task.generation)
    if cfg.model.get("weights") == "random":
        raise UnsupportedError("model.weights=random answers no benchmark: take published weights or model=micro.")


def show(cfg: DictConfig, result: Mapping[str, Any]) -> None:
    """Print a result."""
    table = Table(title="Scores", title_justify="left", title_style="bold")
    for name in ("task", "metric"):
        table.add_column(name)
    for name in ("value", "± stderr", "documents"):
        table.add_column(name, justify="right")
    for task, scores in result["tasks"].items():
        for metric, score in scores["metrics"].items():
            spread = "–" if score["stderr"] is None else f"{score['stderr']:.4f}"
            table.add_row(task, metric, f"{score['value']:.4f}", spread, str(scores["documents"] or "–"))
    tokens = result["tokens"]
    rows = {
        "visual tokens": f"{tokens['visual']} → {tokens['kept']} ({tokens['retention']:.1%} kept)",
        "videos": f"{result['videos']}, in {result['requests']} requests ({result['requests_without_video']} without)",
    }
    console = Console()
    console.print(Padding(table, (1, 0)))
    console.print(facts(rows))
    console.print(Padding(stage_table(cfg.compressor.name, result["seconds"], None), (1, 0, 0, 0)))


def _harness() -> SimpleNamespace:
    """What is used of lmms-eval.

    Raises:
        LoadError: it is missing or broken.
    """
    require()
    try:
        from lmms_eval.evaluator import simple_evaluate
        from lmms_eval.tasks import TaskManager
        from lmms_eval.utils import simple_parse_args_string as parse
        from loguru import logger
        from tenacity import RetryError

        from experiments.lmms.models import Vidpress
    except (ImportError, RuntimeError) as error:  # a torchvision made for another torch raises RuntimeError
        raise LoadError(f"lmms-eval is installed but cannot be imported: {error} See docs/lmms_eval.md.") from error
    logger.configure(handlers=[{"sink": sys.stderr, "level": "WARNING"}])  # its log; what is ours is in the result
    return SimpleNamespace(
        simple_evaluate=simple_evaluate, TaskManager=TaskManager, parse=parse, RetryError=RetryError, Vidpress=Vidpress
    )


def _known(name: str, manager: Any) -> str:
    if manager.match_tasks([name]):
        return name
    close = difflib.get_close_matches(name, manager.all_tasks, n=3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise InputError(
        f"lmms-eval has no task {name!r}.{hint} `lmms-eval tasks` lists all; task.include_path adds yours."
    )


def _as_text(generation: Mapping[str, Any], parse: Callable[[str], dict[str, Any]]) -> str:
    """Settings as lmms-eval reads them from a command line, or an error where that would change them."""
    text = ",".join(f"{key}={value}" for key, value in generation.items())
    if parse(text) != dict(generation):
        raise InputError(f"task.generation={dict(generation)}: lmms-eval takes numbers, true, false and plain words.")
    return text


def _result(cfg: DictConfig, totals: Totals, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tasks": {name: _scores(found, name) for name in found["results"]},
        "tokens": {"visual": totals.visual, "kept": totals.kept, "retention": totals.retention},
        "videos": totals.videos,
        "requests": totals.requests,
        "requests_without_video": totals.without_video,
        "generated": totals.generated,
        "seconds": totals.seconds,
        "task_versions": found["versions"],
        "config": OmegaConf.to_container(cfg, resolve=True),
        "versions": versions() | {"lmms-eval": version("lmms-eval")},
    }


def _scores(found: Mapping[str, Any], task: str) -> dict[str, Any]:
    """lmms-eval's `{"metric,filter": value, "metric_stderr,filter": …}` as one entry per metric."""
    values = {key: value for key, value in found["results"][task].items() if isinstance(value, (int, float))}
    metrics = {}
    for key, value in values.items():
        metric, _, filtered = key.partition(",")
        if filtered and not metric.endswith(("_stderr", "_stderr_clt", "_stderr_clustered")):
            title = metric if filtered == "none" else key
            metrics[title] = {"value": value, "stderr": values.get(f"{metric}_stderr,{filtered}")}
    return {"metrics": metrics, "documents": found["n-samples"].get(task, {}).get("effective")}


def _answer(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "document": sample["doc_id"],
        "answer": sample["filtered_resps"][0],
        "target": sample["target"],
        "tokens": sample["token_counts"][0],
    }


def _plain(content: Any) -> Any:
    """As JSON has it: numbers of other libraries and the like become text."""
    return json.loads(json.dumps(content, default=str))
