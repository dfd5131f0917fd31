"""Loading models: published checkpoints by name or folder, and published architectures with random weights."""

from __future__ import annotations

import copy
import importlib.util
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PreTrainedConfig
from transformers.utils.import_utils import is_flash_attn_2_available

from adapters.errors import LoadError
from adapters.family import families

ATTENTION = ("eager", "sdpa", "flash_attention_2")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_published(
    path: str, *, device: str = "auto", dtype: str = "bfloat16", attn_implementation: str = "sdpa"
) -> tuple[Any, Any]:
    """A checkpoint's model and processor, from the Hugging Face Hub or a local folder; never with remote code.

    Args:
        path: a name on the Hub, or a folder with config, weights and processor files.
        device: "auto" (cuda when available, else cpu) or any torch device.
        dtype: float32, float16 or bfloat16.
        attn_implementation: eager, sdpa or flash_attention_2.

    Returns:
        (model in eval mode, processor)

    Raises:
        LoadError: anything that is missing: the files, the network, the `hf` extra, FlashAttention, the device.
    """
    target, number = check_device(device), check_dtype(dtype)
    check_attention(attn_implementation, target, number)
    folder = Path(path).expanduser()
    local = folder.is_dir()
    if not local and (path.startswith(("/", "~", ".")) or path.count("/") != 1):
        raise LoadError(f"model path {path!r}: there is no such folder, and it is not a name on the Hub (owner/name).")
    missing = [module for module in ("torchvision", "PIL") if importlib.util.find_spec(module) is None]
    if missing:
        raise LoadError(
            f"the processor of {path} needs {' and '.join(missing)}: pip install 'vidpress[hf]'; "
            f"model=micro and model.weights=random work without."
        )
    name = str(folder) if local else path
    # Without a network the Hub's client would try for minutes before it looks into its cache.
    trusted = {"trust_remote_code": False, "local_files_only": local or not hub_is_reachable()}
    try:
        described, _ = PreTrainedConfig.get_config_dict(name, **trusted)
        if "LlavaQwenForCausalLM" in (described.get("architectures") or ()):
            raise LoadError(
                f"{path} is in the layout of its release. Convert it once: python -m adapters.llava_video.convert "
                f"{path if local else 'FOLDER'} TARGET, then model=llava_video model.path=TARGET."
            )
        # The processor first: it is small, and whatever is wrong shows before gigabytes are read.
        processor = AutoProcessor.from_pretrained(name, **trusted)  # type: ignore[no-untyped-call]
        config = seeing(AutoConfig.from_pretrained(name, **trusted))
        model: Any = AutoModelForImageTextToText.from_pretrained(
            name, config=config, dtype=number, attn_implementation=attn_implementation, **trusted
        )
    except LoadError:
        raise
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        hint = (
            f"Check that {folder} is a complete checkpoint."
            if local
            else "Check the name and the network, or give a local folder: model.path=/a/folder. "
            "model=micro and model.weights=random need no download."
        )
        raise LoadError(f"{path} could not be loaded: {_first_line(error)} {hint}") from error
    return model.to(target).eval(), processor


def load_random(
    architecture: str | Path | Mapping[str, Any],
    *,
    layers: int | None = None,
    device: str = "auto",
    dtype: str = "bfloat16",
    attn_implementation: str = "sdpa",
) -> Any:
    """A published architecture with random weights: the right size for timing, without a download.

    Args:
        architecture: a config as JSON file or mapping, with `model_type`.
        layers: keep at most this many layers of the vision tower and of the language model; None keeps all.
        device, dtype, attn_implementation: as in `load_published`.

    Returns:
        the model in eval mode. It never ends an answer by itself, so every run decodes the same number of tokens.

    Raises:
        LoadError: the file is missing or describes no known model, or the device or FlashAttention is missing.
    """
    target, number = check_device(device), check_dtype(dtype)
    check_attention(attn_implementation, target, number)
    described = dict(architecture) if isinstance(architecture, Mapping) else _read(Path(architecture))
    if layers is not None:
        described = keep_layers(described, layers)
    try:
        config = AutoConfig.for_model(**described)
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"architecture {architecture}: {_first_line(error)}") from error
    options = {"dtype": number, "attn_implementation": attn_implementation}
    try:
        with target:
            model: Any = AutoModelForImageTextToText.from_config(config, **options)  # type: ignore[no-untyped-call]
    except ImportError as error:  # a tower of timm's
        raise LoadError(f"architecture {architecture}: {_first_line(error)} pip install 'vidpress[hf]'.") from error
    special = [getattr(config, f"{medium}_token_id", None) for medium in ("image", "video", "audio")]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        suppress_tokens=[token for token in special if token is not None],
    )
    return model.eval()


def seeing(config: Any) -> Any:
    """The configuration of the part of a model that sees videos: itself, or what a family names in `wholes`."""
    part = next((f.wholes[config.model_type] for f in families().values() if config.model_type in f.wholes), None)
    return config if part is None else getattr(config, f"{part}_config")


def hub_is_reachable(seconds: float = 5.0) -> bool:
    """Whether to ask the Hugging Face Hub: it is not switched off, and its host answers or a proxy stands between."""
    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    hub = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((hub.hostname or "", hub.port or 443), timeout=seconds):
            return True
    except OSError:
        return False


def keep_layers(architecture: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The architecture with at most `layers` layers in each tower; DeepStack and full-attention layers follow.

    Of a decoder with several kinds of layers every kind stays as far as there is room.

    Raises:
        LoadError: fewer than one layer.
    """
    if layers < 1:
        raise LoadError(f"layers={layers}: a model needs at least one layer.")
    reduced = copy.deepcopy(dict(architecture))
    text, vision = reduced["text_config"], reduced["vision_config"]
    text["num_hidden_layers"] = min(layers, text["num_hidden_layers"])
    if "full_attention_interval" in text:
        text["full_attention_interval"] = min(layers, text["full_attention_interval"])
    if "encoder_layers" in (audio := reduced.get("audio_config") or {}):
        audio["encoder_layers"] = min(layers, audio["encoder_layers"])
    for tower in (vision, vision.get("model_args", {})):  # timm's towers keep theirs apart
        for key in ("depth", "num_hidden_layers"):
            if key in tower:
                tower[key] = min(layers, tower[key])
    for key in ("deepstack_visual_indexes", "fullatt_block_indexes"):
        if key in vision:
            vision[key] = list(range(min(layers, len(vision[key]))))
    if text.get("num_kv_shared_layers"):
        text["num_kv_shared_layers"] = 0  # the layers whose keys they share may be gone
    adapter = reduced.get("adapter_config", {})
    if "vision_feature_layer" in adapter:
        depth = vision["num_hidden_layers"]
        adapter["vision_feature_layer"] = [min(layer, depth - 1) for layer in adapter["vision_feature_layer"]]
    return reduced


def check_device(device: str) -> torch.device:
    """The torch device meant.

    Raises:
        LoadError: it does not exist here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise LoadError(f"device={device!r} is not a device: write auto, cpu, cuda or cuda:1.") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise LoadError(f"device={device}: there is no such GPU here; write device=cpu or device=auto.")
    return target


def check_dtype(dtype: str) -> torch.dtype:
    """The torch dtype meant.

    Raises:
        LoadError: a name that is not one of float32, float16, bfloat16.
    """
    if dtype not in DTYPES:
        raise LoadError(f"dtype={dtype!r} is unknown; known: {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def check_attention(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse an attention implementation that would fail later, or that does not exist.

    Raises:
        LoadError: unknown, not installed, or impossible on this device or in this dtype.
    """
    if name not in ATTENTION:
        raise LoadError(f"attn_implementation={name!r} is unknown; known: {', '.join(ATTENTION)}.")
    if name != "flash_attention_2":
        return
    if not is_flash_attn_2_available():
        raise LoadError(
            "flash_attention_2 is not available: it needs a GPU and pip install 'vidpress[flash]'; or use sdpa."
        )
    if device.type != "cuda" or dtype == torch.float32:
        raise LoadError(f"flash_attention_2 needs a GPU and float16 or bfloat16, not {dtype} on {device}; use sdpa.")


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise LoadError(f"architecture {path} could not be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What the library says, without the paragraphs after it."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.splitlines()[0].split()).rstrip(".") + "."
