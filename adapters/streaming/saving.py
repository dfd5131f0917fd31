"""A session in a file: safetensors, with everything that is no tensor as JSON in its header.

Nothing in a file is executed or imported: states of pruners are rebuilt from a closed list of classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from adapters.streaming.errors import SaveError
from compressors.allocators.causal_fca import CausalState
from compressors.functional.histories import Histories
from compressors.functional.last_frame import LastFrame
from compressors.functional.stream_memory import StreamMemory

FORMAT, VERSION = "vidpress.stream", 1
_STATES: dict[str, Any] = {cls.__name__: cls for cls in (StreamMemory, LastFrame, CausalState, Histories)}
_SAMPLE = 16  # values of each weight that tell models apart


def write(
    path: str | Path, settings: Mapping[str, Any], values: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file, whole or not at all.

    Raises:
        SaveError: it cannot be written there.
    """
    target = Path(path).expanduser()
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "settings": json.dumps(dict(settings)),
        "values": json.dumps(dict(values)),
    }
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=header)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise SaveError(f"the session could not be saved to {target}: {error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def read(path: str | Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A file's values and tensors (on the CPU).

    Args:
        path: the file.
        settings: of the session that wants them.

    Raises:
        SaveError: the file is missing, damaged or no session's, of another version, or of other settings.
    """
    source = Path(path).expanduser()
    try:
        with safe_open(source, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise SaveError(f"{source} is no saved session: give a file that save() wrote.")
            if header.get("version") != str(VERSION):
                raise SaveError(
                    f"{source} was saved in version {header.get('version')} of the format, and this vidpress reads "
                    f"version {VERSION}: load it with the vidpress that wrote it."
                )
            theirs, values = json.loads(header["settings"]), json.loads(header["values"])
            _compare(source, theirs, json.loads(json.dumps(dict(settings))))
            # Copies: what is only mapped would change, or end the process, with the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SaveError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SaveError(f"{source} is missing, damaged or no saved session: {error}") from error
    return values, tensors


def _compare(source: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    different = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if "model" in different:
        raise SaveError(f"{source} was saved on another model: load it into a session on the model that it came from.")
    if different:
        listing = "; ".join(f"{name} {theirs.get(name)!r}, here {ours.get(name)!r}" for name in sorted(different))
        raise SaveError(f"{source} was saved by a session of other settings: {listing}. Make the session alike.")


def fingerprint(model: PreTrainedModel) -> str:
    """What tells a model from others: type, dtype, rotary settings, names, shapes and a few values of all weights."""
    digest = hashlib.sha256()
    text: Any = model.config.get_text_config()
    rotary = getattr(text, "rope_parameters", None)
    digest.update(json.dumps([model.config.model_type, str(model.dtype), rotary], sort_keys=True, default=str).encode())
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name}{list(weight.shape)}".encode())
        digest.update(weight.detach().flatten()[:_SAMPLE].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def packed(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """A pruner's state as JSON; its tensors go into `tensors` under names that begin with `name`.

    Raises:
        SaveError: it is of a kind that files cannot hold.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(value, tuple | list):
        return {"tuple": [packed(item, tensors, f"{name}.{i}") for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"map": {str(key): packed(item, tensors, f"{name}.{key}") for key, item in value.items()}}
    kind = type(value).__name__
    if _STATES.get(kind) is type(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"state": kind, "fields": {key: packed(item, tensors, f"{name}.{key}") for key, item in fields.items()}}
    raise SaveError(f"the pruner's state is a {kind}, which cannot be saved: use another pruner for sessions to save.")


def unpacked(value: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """What `packed` was given."""
    if not isinstance(value, Mapping):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].to(device)
    if "tuple" in value:
        return tuple(unpacked(item, tensors, device) for item in value["tuple"])
    if "map" in value:
        return {key: unpacked(item, tensors, device) for key, item in value["map"].items()}
    fields = {key: unpacked(item, tensors, device) for key, item in value["fields"].items()}
    return _STATES[value["state"]](**fields)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
