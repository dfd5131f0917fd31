"""`task=generate` on the embedded model and clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.micro import clip_path
from experiments import results
from tests.experiments.conftest import Command

ROOT = Path(__file__).parents[2]
QUICK = ("task.warmup=false", "task.repeats=1", "max_new_tokens=4")


def only_result(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("result.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_default_job(vidpress: Command) -> None:
    code, out, err, folder = vidpress()
    assert code == 0, err
    result = only_result(folder)
    for key in ("question", "answer", "answer_uncompressed", "tokens", "budgets", "seconds", "config", "versions"):
        assert result[key], key
    assert set(result["tokens"]) == {"visual", "kept", "placeholders", "retention"}
    assert set(result["seconds"]) == {"decode_video", "encode", "compress", "prefill", "decode"}
    assert all(spent > 0 for spent in result["seconds"].values())
    assert result["tokens"]["kept"] == sum(result["budgets"]) == round(0.25 * result["tokens"]["visual"])
    assert result["tokens"]["retention"] == 0.25
    assert result["answer_uncompressed"] == result["answer_expected"]
    assert len(set(result["budgets"])) > 1, "the clip has several scenes: FCA must not be uniform"
    assert result["config"]["compressor"]["name"] == "vidcom2"
    assert result["versions"]["torch"]
    for shown in (result["question"], result["answer"], "Tokens kept per frame", "prefill", "speed-up", "█"):
        assert shown in out


def test_without_a_baseline(vidpress: Command) -> None:
    code, out, err, folder = vidpress("compressor=average_pool", "tokens=32", "task.baseline=false", *QUICK)
    assert code == 0, err
    result = only_result(folder)
    assert result["tokens"]["kept"] == 32
    assert result["answer_uncompressed"] is None
    assert "speed-up" not in out


def test_no_compression_is_bit_identical(vidpress: Command) -> None:
    code, _, err, folder = vidpress("compressor=none", "question=How many scenes are there?", *QUICK)
    assert code == 0, err
    result = only_result(folder)
    assert result["answer"] == result["answer_uncompressed"]
    assert result["tokens"]["retention"] == 1.0


def test_a_video_of_ones_own(vidpress: Command, tmp_path: Path) -> None:
    own = tmp_path / "my video, really.mp4"
    own.write_bytes(clip_path().read_bytes())
    code, _, err, folder = vidpress(f"video='{own}'", "question='What, then?'", "frames=8", *QUICK)
    assert code == 0, err
    result = only_result(folder)
    assert (result["question"], result["video"]["frames"], result["answer_expected"]) == ("What, then?", 8, None)
    assert len(result["budgets"]) == 4


def test_sampling_by_rate(vidpress: Command) -> None:
    code, _, err, folder = vidpress("fps=2", "task.baseline=false", *QUICK)
    assert code == 0, err
    assert only_result(folder)["video"]["frames"] == 8


def test_a_sweep_goes_on_after_a_mistake(vidpress: Command) -> None:
    code, _, err, folder = vidpress("compressor=random", "-m", "retention=0.1,2,0.5", "task.baseline=false", *QUICK)
    assert code == 2
    assert "error: retention=2 is outside (0, 1]" in err
    assert len(list(folder.rglob("result.json"))) == 2


TINY = ROOT / "tests" / "experiments" / "tiny_qwen2vl.json"


def test_random_weights_of_another_architecture(vidpress: Command) -> None:
    code, out, err, folder = vidpress(
        "model=qwen2vl",
        "model.weights=random",
        f"model.architecture={TINY}",
        "model.layers=2",
        "model.dtype=float32",
        *QUICK,
    )
    assert code == 0, err
    result = only_result(folder)
    assert result["tokens"]["kept"] == round(0.25 * result["tokens"]["visual"])
    assert "random weights" in out


def narrow(name: str, folder: Path) -> Path:
    """A published architecture of two towers, each far narrower."""
    described = json.loads((ROOT / "conf" / "model" / f"{name}.json").read_text())
    for tower in (described["text_config"], described["vision_config"]):
        tower |= {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    described["text_config"]["num_key_value_heads"] = 1
    path = folder / f"{name}.json"
    path.write_text(json.dumps(described))
    return path


@pytest.mark.parametrize(
    ("name", "places", "structural"),
    [
        ("llava_video", 13 * 13, 13),
        pytest.param("llava_next_video", 12 * 12, 0, marks=pytest.mark.slow),
        pytest.param("video_llava", 16 * 16, 1, marks=pytest.mark.slow),
    ],
)
def test_published_layouts_with_random_weights(
    vidpress: Command, tmp_path: Path, name: str, places: int, structural: int
) -> None:
    """The real number of tokens of a frame, one layer deep, without any file of the model."""
    architecture = f"model.architecture={narrow(name, tmp_path)}"
    model = (f"model={name}", "model.weights=random", "model.layers=1", architecture, "frames=3")
    code, _, err, folder = vidpress(*model, "task.baseline=false", "newlines=last", "positions=contiguous", *QUICK)
    assert code == 0, err
    tokens = only_result(folder)["tokens"]
    assert tokens["visual"] == 3 * places
    assert tokens["kept"] == round(0.25 * 3 * places)
    assert tokens["placeholders"] == 3 * (places + structural)


def test_a_result_is_written_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results.write_json(tmp_path / "result.json", {"a": 1})
    with pytest.raises(TypeError):
        results.write_json(path, {"a": object()})
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        results.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
