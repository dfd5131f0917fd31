"""`python run.py`: help, and what happens when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from compressors.methods import method, method_names
from experiments import generate
from experiments.command_line import LAUNCHERS
from tests.experiments.conftest import Command

ROOT = Path(__file__).parents[2]


def test_help_lists_tasks_methods_and_models(vidpress: Command) -> None:
    code, out, _, _ = vidpress("--help")
    assert code == 0
    for name in method_names():
        assert f"  {name} " in out
        assert method(name).summary in out
    models = [path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")]
    for name in ("generate", "report", *models):
        assert f"  {name} " in out


WRONG = [
    (["retenton=0.1"], "retenton: there is no such setting. Did you mean retention?"),
    (["device=cuda"], "device: there is no such setting. Did you mean model.device?"),
    (["scorer.foo=3"], "scorer.foo: there is no such setting. `--help` lists all settings."),
    (["task=report", "runs=here"], "runs: there is no such setting. Did you mean task.runs?"),
    (["allocatr=fca"], "Did you mean allocator?"),
    (["allocator.temprature=1"], "Did you mean allocator.temperature?"),
    (["attn_implementation=eager"], "Did you mean model.attn_implementation?"),
    (["compressor=vidcm2"], "compressor=vidcm2: there is no such choice. Did you mean vidcom2?"),
    (["task=generat"], "Did you mean generate?"),
    (["retention=0.1,0.2"], "add -m to sweep"),
    (["retention"], "settings are written KEY=VALUE"),
    (["retention=0"], "outside (0, 1]"),
    (["retention=some"], "not a finite number"),
    (["retention=0.5", "tokens=3"], "two budgets"),
    (["positions=there"], "original or contiguous"),
    (["newlines=there"], "raster or last"),
    (["seed=abc"], "a whole number"),
    (["max_new_tokens=0"], "1 or more"),
    (["task.repeats=0"], "1 or more"),
    (["scorer=none"], "no scorer is set"),
    (["allocator=fca", "compressor=none"], "does not split into parts"),
    (["video=/no/such.mp4"], "no such file"),
    (["frames=4", "fps=2"], "not both"),
    (["frames=many"], "a whole number, 1 or more, or auto"),
    (["frames=0"], "a whole number, 1 or more, or auto"),
    (["frames=auto"], "add tokens=2048"),
    (["frames=auto", "retention=0.25"], "add tokens=2048"),
    (["frames=auto", "tokens=64", "fps=2"], "keep one"),
    (["frames=auto", "tokens=64", "auto_retention=2"], "outside (0, 1]"),
    (["frames=auto", "tokens=64", "compressor=none"], "does not keep an exact number"),
    (["frames=auto", "tokens=64", "video=/no/such.mp4"], "no such file"),
    (["model.device=zebra"], "not a device"),
    (["model.dtype=float8"], "known: float32, float16, bfloat16"),
    (["model.attn_implementation=fast"], "known: eager, sdpa, flash_attention_2"),
    (["model=qwen2vl", "model.path=/no/such/folder"], "no such folder"),
    (["model=qwen2vl", "model.weights=some"], "published or random"),
    (["model=qwen2vl", "model.layers=2"], "model.weights=random only"),
    (["model=qwen2vl", "model.weights=random", "model.architecture=/no/such.json"], "could not be read"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_a_mistake_is_one_line_and_exit_code_2(vidpress: Command, arguments: list[str], message: str) -> None:
    code, out, err, folder = vidpress(*arguments)
    assert code == 2
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert "Traceback" not in out + err
    assert not list(folder.rglob("result.json"))


def test_a_stack_trace_on_request(vidpress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="outside"):
        vidpress("retention=0")


def test_a_job_that_failed_leaves_its_reason(vidpress: Command) -> None:
    code, _, _, folder = vidpress("retention=2")
    assert code == 2
    (path,) = folder.rglob("error.json")
    content = json.loads(path.read_text())
    assert set(content) == {"task", "status", "error", "config", "versions", "commit"}
    assert (content["task"], content["status"]) == ("generate", "failed")
    assert content["error"] == "retention=2 is outside (0, 1]: 0.25 keeps a quarter of the tokens."
    assert content["config"]["retention"] == 2
    assert (path.parent / ".hydra").is_dir()


def test_an_error_that_is_not_ours_leaves_its_reason_too(vidpress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(cfg: DictConfig) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(generate, "run", run)
    with pytest.raises(ZeroDivisionError):
        vidpress()
    (path,) = Path.cwd().rglob("error.json")
    assert json.loads(path.read_text())["error"] == "ZeroDivisionError: by nothing"


def test_a_reason_that_cannot_be_written_does_not_hide_the_error(
    vidpress: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    code, _, err, _ = vidpress("retention=2")
    assert code == 2
    assert "retention=2 is outside" in err
    assert "no room" not in err


@pytest.mark.parametrize("choice", LAUNCHERS)
def test_a_launcher_that_is_not_installed(vidpress: Command, monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    vidpress("--cfg", "job")  # plugins register their configurations once per process
    known = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(known, f"{choice}.yaml", raising=False)
    code, _, err, _ = vidpress("-m", f"hydra/launcher={choice}", "retention=0.1,0.5")
    assert code == 2
    assert (
        err == f"error: hydra/launcher={choice} needs an extra package: pip install 'vidpress[{LAUNCHERS[choice]}]'.\n"
    )


def test_a_missing_extra_is_named(vidpress: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torchvision" else find(name, *a))
    code, _, err, _ = vidpress("model=qwen2vl")
    assert code == 2
    assert "pip install 'vidpress[hf]'" in err
