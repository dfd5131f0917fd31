"""From a command line to a task: dispatch, the `--help` page, and errors a user can act on."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from compressors.errors import VidpressError
from compressors.methods import method, method_names
from experiments.results import commit, output_folder, versions, write_json

USER_ERROR = 2
OUT_OF_MEMORY = (
    "the device is out of memory: ask for fewer frames=, leave the comparison out with task.baseline=false, "
    "or use a smaller model."
)
LAUNCHERS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}  # choice -> extra
ONE_LINE = "VIDPRESS_ONE_LINE_ERRORS"


def run_job(cfg: DictConfig) -> None:
    """Run the task that `cfg.task` names. If it fails, `error.json` in its output folder says why.

    A single run ends at the first error of ours with one message. A sweep goes on with its other jobs; its error is
    passed on as a plain `VidpressError`, which survives the way back from another process.
    """
    try:
        importlib.import_module(f"experiments.{cfg.task.name}").run(cfg)
    except (VidpressError, torch.OutOfMemoryError) as error:
        message = OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else str(error)
        record_failure(cfg, message)
        if _trace_wanted():
            raise
        if HydraConfig.get().mode == RunMode.RUN:
            fail(message)
        raise VidpressError(message) from None
    except Exception as error:
        record_failure(cfg, f"{type(error).__name__}: {error}")
        raise


def record_failure(cfg: DictConfig, message: str) -> None:
    """Write `error.json` into the job's output folder; what went wrong stays the error that is raised."""
    content = {
        "task": cfg.task.name,
        "status": "failed",
        "error": message,
        "config": OmegaConf.to_container(cfg),
        "versions": versions(),
        "commit": commit(),
    }
    with contextlib.suppress(OSError):
        write_json(output_folder() / "error.json", content)


def call(job: Callable[[], Any]) -> None:
    """Call Hydra's main function; what the user got wrong ends in one line on stderr and exit code 2."""
    OmegaConf.register_new_resolver("vidpress_help", help_page, replace=True)
    # `KEY=VALUE -m KEY=VALUE` is natural to type, but the parser wants -m at either end.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    # Loading is announced by libraries at length; what matters is in our own messages.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Hydra would print errors its own way and exit with 1; this makes it pass them on, here and in its workers.
    if not _trace_wanted():
        os.environ["HYDRA_FULL_ERROR"] = os.environ[ONE_LINE] = "1"
    try:
        job()
    except (VidpressError, HydraException, OmegaConfBaseException) as error:
        if _trace_wanted():
            raise
        fail(error if isinstance(error, VidpressError) else explain(error))


def fail(message: object) -> NoReturn:
    """Say what was wrong and exit with code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(USER_ERROR)


def explain(error: Exception) -> str:
    """One line for an error of Hydra's: what was wrong, and the closest thing that exists."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        known = [name for name in error.options or [] if name]
        if group == "hydra/launcher" and choice in LAUNCHERS:
            return f"{group}={choice} needs an extra package: pip install 'vidpress[{LAUNCHERS[choice]}]'."
        return f"{group}={choice}: there is no such choice.{_closest(choice, known)} Known: {', '.join(known)}."
    if match := re.match(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        return f"{key}: there is no such setting.{_closest_setting(key)} `--help` lists all settings."
    if "Ambiguous value" in text or "mismatched input ','" in text:
        return "several values for one setting: add -m to sweep over them, or quote the value if it is one text."
    if match := re.match(r"Error parsing override '(.*)'", text):
        return (
            f"{match[1]}: this cannot be read; settings are written KEY=VALUE, with quotes around special characters."
        )
    return " ".join(text.split())


def help_page() -> str:
    """The head of `--help`: tasks, methods and models, each from the one list that also drives everything else."""
    blocks = [
        "vidpress: visual token compression for video language models, without training.",
        "Usage: python run.py [KEY=VALUE ...] (or: vidpress [KEY=VALUE ...])",
        _table("Tasks (task=NAME)", _summaries("task")),
        _table("Methods (compressor=NAME)", ((name, _method_summary(name)) for name in method_names())),
        _table("Models (model=NAME)", _summaries("model")),
    ]
    return "\n\n".join(blocks)


def _summaries(group: str) -> Iterator[tuple[str, str]]:
    loader: Any = GlobalHydra.instance().config_loader()
    for name in loader.get_group_options(group):
        # The file as it stands: some tasks choose other groups too, which composes only as part of the whole.
        content: Any = loader.repository.load_config(f"{group}/{name}").config
        yield name, str(content.get(group, content).get("summary", ""))


def _method_summary(name: str) -> str:
    try:
        preset = method(name)
    except VidpressError as error:  # a broken plugin must not take the help page down
        return str(error)
    return f"{preset.summary} [{preset.source}]" if preset.source else preset.summary


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {text}".rstrip() for name, text in listed)])


def _closest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f" Did you mean {close[0]}?" if close else ""


def _closest_setting(key: str) -> str:
    """Settings of that name elsewhere, or the closest ones where it was looked for."""
    known = list(_known_keys())
    if elsewhere := [name for name in known if name.rpartition(".")[2] == key]:
        return f" Did you mean {' or '.join(elsewhere)}?"
    group = key.rpartition(".")[0]
    return _closest(key, [name for name in known if name.rpartition(".")[0] == group] if group in known else known)


def _known_keys() -> Iterator[str]:
    """Every setting of the configuration, dotted, with the choices that were asked for in groups with settings."""
    groups = ("task", "model", "data", "source", "memory")
    chosen = [word for word in sys.argv[1:] if word.partition("=")[0] in groups and "," not in word]
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("config", chosen))

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                yield f"{prefix}{key}"
                yield from walk(value, f"{prefix}{key}.")

    return walk(config, "")


def _trace_wanted() -> bool:
    """Whether the user asked for full stack traces with HYDRA_FULL_ERROR=1."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and ONE_LINE not in os.environ
