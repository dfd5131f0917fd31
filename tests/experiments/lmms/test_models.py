"""The classes lmms-eval loads, on a stand-in for it; with the real one in `test_command_line.py`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import experiments.lmms
from adapters.errors import LoadError, UnsupportedError
from adapters.micro import clip_path, weights_dir
from experiments.lmms import CLASSES, FAMILY

ROOT = Path(__file__).parents[3]


def instance(messages: Any, document: int = 0, **generation: Any) -> SimpleNamespace:
    """A request as lmms-eval makes them for chat models."""
    return SimpleNamespace(args=("", messages, generation or None, document, "clips", "test"), task_name="clips")


def test_names_and_classes_agree(models: Any) -> None:
    assert {name: getattr(models, cls).name for name, cls in CLASSES.items()} == {name: name for name in FAMILY}
    assert not models.Named.is_simple


def test_requests_are_answered_from_their_documents(models: Any) -> None:
    model = models.Micro(compressor="vidcom2", retention=0.25, batch_size="2")
    questions = ["Which shape flashed?", "Which colour moves?"]
    model.task_dict = {"clips": {"test": questions}}

    def messages(question: str) -> list[dict[str, Any]]:
        content = [{"type": "video", "url": str(clip_path())}, {"type": "text", "text": question}]
        return [{"role": "user", "content": content}]

    found = model.generate_until([instance(messages, 0), instance(messages, 1, max_new_tokens=4, until=["\n\n"])])
    assert found[0].text == "ring"
    assert all(item.token_counts.output_tokens == 2 for item in found)
    (line,) = [text for text in models.logged if isinstance(text, str) and "tokens kept" in text]
    assert "128 of 512 visual tokens kept (25.0%)" in line
    (numbers,) = [values for values in models.logged if isinstance(values, tuple)]
    assert numbers[1] == 4
    assert numbers[3]["retention"] == 0.25
    model.generate_until([instance(messages, 0)])
    assert [values[1] for values in models.logged if isinstance(values, tuple)] == [4, 2]
    assert (model.answerer.totals.requests, model.answerer.totals.visual) == (3, 768)
    assert model.device.type == "cpu"
    model.clean()
    assert model.cleaned
    assert not hasattr(model, "answerer")


def test_requests_that_cannot_be_compressed_are_counted(models: Any) -> None:
    model = models.Micro(compressor="vidcom2")
    model.task_dict = {"clips": {"test": ["Count the scenes."]}}
    model.generate_until([instance(lambda question: [{"role": "user", "content": question}], max_new_tokens=2)])
    assert any("1 of 1 requests had no video" in text for text in models.logged if isinstance(text, str))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("loglikelihood", "scores given answers"),
        ("generate_until_multi_round", "asks in several rounds"),
        ("generate_visual_cot", "has the model draw"),
    ],
)
def test_other_kinds_of_requests_are_refused_by_name(models: Any, kind: str, text: str) -> None:
    model = models.Vidpress(SimpleNamespace())
    with pytest.raises(UnsupportedError, match=rf"task clips {text}.*{kind}"):
        getattr(model, kind)([instance(None), instance(None)])


def test_a_checkpoint_of_another_family_is_refused(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters.micro import load_micro

    monkeypatch.setattr(models, "load_published", lambda path, **_: load_micro())
    assert models.Qwen2VL(pretrained="a/b").answerer.model.config.model_type == "qwen2_vl"
    with pytest.raises(UnsupportedError, match="write --model vidpress_qwen2_vl"):
        models.Qwen3VL(pretrained="a/b")


def test_the_embedded_models_weights_can_be_others(models: Any, tmp_path: Path) -> None:
    assert models.Micro(pretrained=str(weights_dir()))
    with pytest.raises(LoadError, match="there is no such folder"):
        models.Micro(pretrained=str(tmp_path / "gone"))


def test_each_process_takes_its_own_gpu(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.torch.cuda, "is_available", lambda: True)
    assert models._own_device("auto") == "auto"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert models._own_device("auto") == models._own_device("cuda") == "cuda:1"
    assert models._own_device("cuda:0") == "cuda:0"
    assert models._own_device("cpu") == "cpu"


def test_without_lmms_eval_an_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LoadError, match=r"pip install 'vidpress\[eval\]'"):
        experiments.lmms.manifests()


def test_nothing_else_imports_lmms_eval() -> None:
    program = (
        "import sys; import vidpress, run, experiments.lmms_eval, experiments.lmms.answering;"
        "assert 'lmms_eval' not in sys.modules and 'experiments.lmms.models' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
