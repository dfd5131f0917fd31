"""A task's `generation_kwargs`: what of it goes to `model.generate`, and the strings at which an answer ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from compressors.errors import InputError, UnknownNameError

DEFAULT_LENGTH = 128  # new tokens, where a task states none
_SAMPLING = ("temperature", "top_p", "top_k")
_PASSED_ON = ("max_new_tokens", "min_new_tokens", "num_beams", "repetition_penalty", "no_repeat_ngram_size")
_KNOWN = (*_PASSED_ON, *_SAMPLING, "length_penalty", "do_sample", "until", "stop_sequences", "image_aspect_ratio")


def generation_options(asked: Mapping[str, Any], length: int = DEFAULT_LENGTH) -> dict[str, Any]:
    """Keyword arguments for `model.generate`: greedy, unless the task asks for sampling.

    Args:
        asked: the task's settings; None is "not set". `temperature=0` is greedy whatever `do_sample` says, and a
            temperature above 0 samples unless `do_sample` is false.
        length: new tokens where the task does not say.

    Raises:
        UnknownNameError: a setting that is not known here; names the closest.
        InputError: a value that is impossible, or a way of showing images other than as they are.
    """
    stated = {key: value for key, value in asked.items() if value is not None}
    for key in stated:
        if key not in _KNOWN:
            raise UnknownNameError("generation setting", key, _KNOWN)
    if stated.get("image_aspect_ratio", "original") != "original":
        raise InputError(f"image_aspect_ratio={stated['image_aspect_ratio']}: images are shown as they are (original).")
    options: dict[str, Any] = {"max_new_tokens": length, "num_beams": 1}
    options |= {key: stated[key] for key in (*_PASSED_ON, "length_penalty") if key in stated}
    for key in ("max_new_tokens", "num_beams"):
        options[key] = _whole(key, options[key])
    temperature = stated.get("temperature")
    if temperature is not None and (not isinstance(temperature, (int, float)) or temperature < 0):
        raise InputError(f"temperature={temperature!r} must be a number, 0 or more.")
    wanted = stated.get("do_sample", bool(temperature))
    if wanted and temperature != 0:
        return options | {"do_sample": True} | {key: stated[key] for key in _SAMPLING if key in stated}
    # None takes a checkpoint's own sampling settings out, which greedy decoding would warn about.
    return options | {"do_sample": False} | dict.fromkeys(_SAMPLING)


def stop_strings(asked: Mapping[str, Any], *, blank_line: bool = True) -> tuple[str, ...]:
    """Where an answer ends, from `until` (or `stop_sequences`).

    Args:
        asked: the task's settings.
        blank_line: False leaves out the empty line, which lmms-eval adds to tasks that list no stop strings.

    Raises:
        InputError: something that is neither a text nor a list of texts.
    """
    found: list[str] = []
    for key in ("until", "stop_sequences"):
        value = asked.get(key)
        texts = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(texts, Iterable) or not all(isinstance(text, str) and text for text in texts):
            raise InputError(f"{key}={value!r} must be a text or a list of texts.")
        found += texts
    return tuple(text for text in found if blank_line or text != "\n\n")


def cut(text: str, stops: Iterable[str]) -> str:
    """The answer before the first stop string, without the space around it."""
    ends = [text.find(stop) for stop in stops]
    return text[: min((end for end in ends if end >= 0), default=len(text))].strip()


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 1:
        raise InputError(f"{key}={value!r} must be a whole number, 1 or more.")
    return int(value)
