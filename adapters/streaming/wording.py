"""`Wording`: the text around a stream's frames, as token ids, from whatever processor there is.

Where frames go is found in the model's own chat template, by writing turns with it and looking at where the video's
placeholder stands; so no template is repeated here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters.errors import UnsupportedError
from adapters.prompting import LayoutProcessor

_MARK = "\N{LATIN SMALL LETTER T WITH STROKE}mark"  # no template writes it by itself


@dataclass(frozen=True, eq=False)
class Question:
    """Text after the stream.

    Attributes:
        ids: `[n]`.
        asked: `[n]` bool: the user's own words among them.
    """

    ids: Tensor
    asked: Tensor


class Wording(ABC):
    """Ids `[n]` of everything but frames. A video stands between marks where the model has them."""

    @abstractmethod
    def opening(self, *, turns: bool) -> Tensor:
        """What stands before everything: with `turns`, before the first turn (often nothing), else up to the video."""

    @abstractmethod
    def question(self, text: str, *, turns: bool) -> Question:
        """From the end of the one video's tokens, or of the last turn, to where the answer begins."""

    @abstractmethod
    def turn(self, label: str) -> tuple[Tensor, Tensor]:
        """What stands before and after the video tokens of a user turn that shows frames."""

    @abstractmethod
    def closing(self) -> Tensor:
        """What stands after an answer when the dialogue goes on."""

    @abstractmethod
    def frame(self, first: float, last: float, following: float) -> tuple[Tensor, Tensor]:
        """What stands before and after a group's tokens where text stands between frames: its time, the marks.

        Args:
            first, last: seconds of the group's first and last frame.
            following: seconds at which the next group begins.
        """

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Generated ids as text."""


def wording_of(model: Any, processor: Any, system: str | None, *, framed: bool) -> Wording:
    """The wording for a processor.

    Args:
        model: for the ids of its marks.
        processor: a Hugging Face processor, the embedded model's, or a `LayoutProcessor`.
        system: text of a system turn before everything; None leaves that to the template.
        framed: text stands between frames, and each frame has its own marks.
    """
    if isinstance(processor, LayoutProcessor):
        return BytesWording(processor, system, framed)
    return ChatWording(model, processor, system)


class ChatWording(Wording):
    """By the processor's chat template."""

    def __init__(self, model: Any, processor: Any, system: str | None) -> None:
        self._processor, self._tokenizer = processor, processor.tokenizer
        self._system: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        if system is not None and not hasattr(processor, "pixels"):  # Hugging Face templates want a list
            self._system = [{"role": "system", "content": [{"type": "text", "text": system}]}]
        marks = [getattr(model.config, f"vision_{end}_token_id", None) for end in ("start", "end")]
        names = ["" if mark is None else str(self._tokenizer.convert_ids_to_tokens(mark)) for mark in marks]
        self._marks = (names[0], names[1])
        # Where frames have marks of their own, the library's processors still leave the template's around all of them.
        self._place = str(processor.video_token)

    def opening(self, *, turns: bool) -> Tensor:
        if not turns:
            return self._ids(self._around([{"type": "text", "text": ""}])[0], first=True)
        one, two = self._written([self._shown("")]), self._written([self._shown("")] * 2)
        return self._ids(one[: 2 * len(one) - len(two)], first=True)

    def question(self, text: str, *, turns: bool) -> Question:
        asked = [{"type": "text", "text": text}]
        if turns:
            before = self._written([self._shown("")])
            user = {"role": "user", "content": asked}
            suffix = self._written([self._shown(""), user], add_generation_prompt=True)[len(before) :]
        else:
            suffix = self._around(asked)[1]
        encoded = self._tokenizer(suffix, add_special_tokens=False, return_offsets_mapping=True)
        start = suffix.rfind(text)
        words = [a < start + len(text) and b > start for a, b in encoded["offset_mapping"]]
        ids = torch.tensor(encoded["input_ids"])
        return Question(ids, torch.tensor(words) if any(words) else torch.ones_like(ids, dtype=torch.bool))

    def turn(self, label: str) -> tuple[Tensor, Tensor]:
        one, two = self._written([self._shown(label)]), self._written([self._shown(label)] * 2)
        before, after = self._split(two[len(one) :])
        return self._ids(before), self._ids(after)

    def closing(self) -> Tensor:
        asked = [self._shown(""), {"role": "user", "content": [{"type": "text", "text": _MARK}]}]
        answered = {"role": "assistant", "content": [{"type": "text", "text": _MARK}]}
        return self._ids(self._written([*asked, answered]).rpartition(_MARK)[2])

    def frame(self, first: float, last: float, following: float) -> tuple[Tensor, Tensor]:
        start, end = self._marks
        return self._ids(f"<{(first + last) / 2:.1f} seconds>{start}"), self._ids(end)

    def decode(self, ids: list[int]) -> str:
        return str(self._processor.batch_decode([ids], skip_special_tokens=True)[0]).strip()

    def _shown(self, label: str) -> dict[str, Any]:
        text = [{"type": "text", "text": label}] if label else []
        return {"role": "user", "content": [*text, {"type": "video"}]}

    def _around(self, text: list[dict[str, Any]]) -> tuple[str, str]:
        turn = {"role": "user", "content": [{"type": "video"}, *text]}
        return self._split(self._written([turn], add_generation_prompt=True))

    def _written(self, turns: list[dict[str, Any]], add_generation_prompt: bool = False) -> str:
        text: str = self._processor.apply_chat_template(
            [*self._system, *turns], add_generation_prompt=add_generation_prompt, tokenize=False
        )
        return text

    def _split(self, text: str) -> tuple[str, str]:
        before, found, after = text.partition(self._place)
        if not found:
            raise UnsupportedError(f"the chat template wrote no {self._place!r}, so where frames go is not known.")
        return before, after

    def _ids(self, text: str, first: bool = False) -> Tensor:
        ids: list[int] = self._tokenizer(text, add_special_tokens=first)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64)


class BytesWording(Wording):
    """As a `LayoutProcessor` writes prompts for models without processor files: byte by byte."""

    def __init__(self, processor: LayoutProcessor, system: str | None, framed: bool) -> None:
        config = processor.config
        marks = [getattr(config, f"vision_{end}_token_id", None) for end in ("start", "end")]
        self._before, self._after = ([] if mark is None else [mark] for mark in marks)
        self._processor, self._framed = processor, framed
        self._system = [] if system is None else list(f"system\n{system}\n".encode())

    def opening(self, *, turns: bool) -> Tensor:
        user = [] if turns else [*b"user\n", *([] if self._framed else self._before)]
        return torch.tensor([*self._system, *user], dtype=torch.int64)

    def question(self, text: str, *, turns: bool) -> Question:
        before = [*b"user\n"] if turns else [] if self._framed else self._after
        words, after = list(text.encode()), list(b"\nassistant\n")
        asked = [*[False] * len(before), *[True] * len(words), *[False] * len(after)]
        return Question(torch.tensor([*before, *words, *after]), torch.tensor(asked))

    def turn(self, label: str) -> tuple[Tensor, Tensor]:
        marks = ([], []) if self._framed else (self._before, self._after)
        before = [*b"user\n", *label.encode(), *marks[0]]
        return torch.tensor(before), torch.tensor([*marks[1], *b"\n"])

    def closing(self) -> Tensor:
        return torch.tensor([*b"\n"])

    def frame(self, first: float, last: float, following: float) -> tuple[Tensor, Tensor]:
        stamp = f"<{(first + following) / 2:.1f} seconds>".encode()
        return torch.tensor([*stamp, *self._before]), torch.tensor(self._after, dtype=torch.int64)

    def decode(self, ids: list[int]) -> str:
        return self._processor.batch_decode(torch.tensor([ids]))[0].strip()
