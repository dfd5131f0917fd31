"""Loading checkpoints, and what is said when something is missing."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from adapters import loading
from adapters.errors import LoadError
from tests.extras import needs_processors, run


@pytest.fixture
def extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the `hf` extra were installed."""
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: object())


def test_a_name_that_is_neither_a_folder_nor_on_the_hub() -> None:
    for path in ("/no/such", "./no/such", "~/no/such", "one_word", "a/b/c"):
        with pytest.raises(LoadError, match="no such folder"):
            loading.load_published(path)


def test_the_hf_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LoadError, match=r"torchvision and PIL: pip install 'vidpress\[hf\]'"):
        loading.load_published("Qwen/Qwen2-VL-7B-Instruct")


@pytest.mark.usefixtures("extras")
def test_without_network_or_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("We couldn't connect to the Hub.\nand much more text")

    monkeypatch.setattr(loading, "hub_is_reachable", lambda: False)
    monkeypatch.setattr(loading.PreTrainedConfig, "get_config_dict", unreachable)
    with pytest.raises(
        LoadError, match=r"couldn't connect to the Hub\. Check the name and the network, or give a local"
    ):
        loading.load_published("Qwen/Qwen2-VL-7B-Instruct")


def test_whether_the_hub_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", True)
    assert not loading.hub_is_reachable()
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(loading.constants, "ENDPOINT", here)
        assert loading.hub_is_reachable()
    assert not loading.hub_is_reachable()
    monkeypatch.setattr(loading, "getproxies", lambda: {"https": "http://proxy"})
    assert loading.hub_is_reachable()


@pytest.mark.usefixtures("extras")
def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is a complete checkpoint"):
        loading.load_published(str(tmp_path))


@needs_processors
def test_a_local_folder() -> None:
    run("tests.adapters.load_a_folder")


def test_flash_attention_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(LoadError, match=r"vidpress\[flash\]"):
        loading.check_attention("flash_attention_2", torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: True)
    for device, dtype in (("cpu", torch.bfloat16), ("cuda", torch.float32)):
        with pytest.raises(LoadError, match="needs a GPU and float16 or bfloat16"):
            loading.check_attention("flash_attention_2", torch.device(device), dtype)


def test_devices_and_dtypes() -> None:
    assert loading.check_device("auto").type in ("cpu", "cuda")
    with pytest.raises(LoadError, match="no such GPU"):
        loading.check_device("cuda:99")
    with pytest.raises(LoadError, match="not a device"):
        loading.check_device("zebra")
    with pytest.raises(LoadError, match="unknown; known"):
        loading.check_dtype("float8")


def test_an_architecture_of_no_known_type() -> None:
    with pytest.raises(LoadError, match="architecture"):
        loading.load_random({"model_type": "no_such_model"}, device="cpu")
