"""What query-aware methods get as the question of a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from adapters.family import families
from adapters.image_frames import VIDEO_OF_TOKEN
from adapters.question import end_ids, question_mask, special_ids
from compressors.base import Compression, Compressor
from compressors.errors import InputError
from compressors.requirements import Query, Requirement
from compressors.tokens import VideoTokens
from tests.adapters import tiny
from tests.adapters.harness import generated, second_turn
from vidpress import press

SPECIAL, ENDS, MEDIA = range(6), (tiny.EOS,), (tiny.IMAGE, tiny.VIDEO)
P, E, M, V, S, Z = tiny.PAD, tiny.EOS, tiny.IMAGE, tiny.VIDEO, tiny.VISION_START, tiny.VISION_END


@dataclass(frozen=True, eq=False)
class Spy(Compressor):
    """Keeps every other token and remembers the questions it was given."""

    seen: list[VideoTokens] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return False

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Query()})

    def _compress(self, tokens: VideoTokens, total: int, retention: float) -> Compression:
        self.seen.append(tokens)
        keep = torch.arange(0, tokens.total, 2)
        return Compression(tokens, keep, torch.bincount(keep // tokens.places, minlength=tokens.frames))


def asked(*rows: list[int], padding: str = "left") -> list[list[int]]:
    """The ids of each row's question."""
    length = max(map(len, rows))
    filled = [[P] * (length - len(r)) + r if padding == "left" else r + [P] * (length - len(r)) for r in rows]
    ids = torch.tensor(filled)
    mask = question_mask(ids, ids != P, torch.isin(ids, torch.tensor(MEDIA)), SPECIAL, ENDS)
    return [ids[b, mask[b]].tolist() for b in range(len(rows))]


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ([10, S, V, V, Z, 20, 21], [20, 21]),
        ([10, S, V, V, Z, 20, 21, E, 30, 31], [20, 21]),
        ([10, 11, S, V, V, Z, E, 30, 31], [10, 11]),
        ([9, E, 10, S, V, Z, 20, E, 30, 40, 41, E, 10, 50, 51, E, 30], [10, 50, 51]),
        ([9, E, 10, S, V, Z, 20, E, 30, 40, E, 10, S, V, Z, 50, E, 30], [50]),
        ([10, 7, S, V, Z, 8, S, V, Z, 20, E, 30], [20]),
        ([10, S, V, Z, 8, S, V, Z, E, 30], [10]),
        ([10, S, V, Z, 8, S, M, Z, 20, E, 30], [20]),
        ([S, V, Z, 20, 21, E], [20, 21]),
        ([E, 30, S, V, Z, 20], [20]),
        ([S, V, Z], []),
    ],
    ids=[
        "no turns",
        "header after the question",
        "question before the video",
        "latest of two questions",
        "two videos, two turns",
        "text between videos is none",
        "text between frames is none",
        "an image after the video",
        "no header",
        "an open turn alone has text",
        "no text",
    ],
)
def test_the_question_by_structure(row: list[int], question: list[int]) -> None:
    assert asked(row) == [question]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_every_row_has_its_own(padding: str) -> None:
    rows = ([10, S, V, Z, 20, 21, E, 30], [10, 11], [40, S, V, V, V, Z, 41, E, 30, 50, E, 60, 61, E, 30])
    assert asked(*rows, padding=padding) == [[20, 21], [10, 11], [60, 61]]


def test_ids_named_by_configurations(family: tiny.Family) -> None:
    model = tiny.untouched(family)
    media = {tiny.IMAGE} if VIDEO_OF_TOKEN in family.known.told else {tiny.IMAGE, tiny.VIDEO}
    assert set(special_ids(model)) >= {tiny.PAD, tiny.EOS, *media}
    assert end_ids(model) == (tiny.EOS,)
    if family.mrope:
        assert set(special_ids(model)) >= {tiny.VISION_START, tiny.VISION_END}


@pytest.mark.parametrize(("name", "opening"), [("internvl3", 1), ("smolvlm2", 2)])
def test_marks_around_a_frame_are_no_question(name: str, opening: int) -> None:
    """They have no name in the configuration; what is written before the first of them does."""
    known = families()[name]
    model = SimpleNamespace(config=SimpleNamespace(image_token_id=tiny.IMAGE))
    ids = torch.tensor([[10, 11, *[60] * opening, M, M, 61, 12, *[60] * opening, M, M, 61, 13]])
    media = known.media_mask(cast(Any, model), ids)
    assert ids[~media].tolist() == [10, 11, 12, 13]


def embedded(model: Any, ids: Tensor) -> Tensor:
    return model.get_input_embeddings()(ids)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 2}], ids=["cache", "no_cache", "beams"])
def test_each_sample_of_a_batch_is_asked_its_own_question(family: tiny.Family, options: dict[str, Any]) -> None:
    """The text after the last video, in the language model's embeddings; neither timestamps nor other rows' text."""
    inputs = tiny.prompt(family, tiny.LAYOUTS["padded"])
    model, spy = tiny.build(family), Spy()
    with press(model, spy):
        model.generate(**inputs, max_new_tokens=3, **options)
    wanted = [embedded(model, inputs["input_ids"][row, -count:]) for row, count in ((0, 1), (1, 5))]
    assert spy.seen
    for tokens in spy.seen:
        assert torch.equal(tokens.query, wanted[tokens.index])


def test_a_later_turn_is_asked_the_later_question(family: tiny.Family) -> None:
    """One prompt of two turns about one video."""
    inputs = tiny.prompt(family, ((tiny.Text(3), tiny.Video(3), tiny.Text(9)),))
    inputs["input_ids"][0, -6] = tiny.EOS
    inputs["input_ids"][0, -2] = tiny.EOS
    model, spy = tiny.build(family), Spy()
    with torch.no_grad(), press(model, spy):
        model(**inputs)
    assert torch.equal(spy.seen[0].query, embedded(model, inputs["input_ids"][0, -5:-2]))


def test_a_new_turn_on_the_same_cache_needs_no_question(family: tiny.Family) -> None:
    """Text alone compresses nothing: no question is looked for."""
    inputs = tiny.prompt(family, tiny.LAYOUTS["one"])
    model, spy = tiny.build(family), Spy()
    with press(model, spy):
        first = generated(model, inputs)
        turn = second_turn(inputs, first, torch.tensor([[tiny.EOS, 12, 13, 14]]), again="nothing")
        model.generate(**turn, past_key_values=first.cache, max_new_tokens=2)
    assert len(spy.seen) == 1


def test_a_prompt_without_text_is_refused(family: tiny.Family) -> None:
    if family.timestamps:
        pytest.skip("timestamps are text")
    model = tiny.build(family)
    inputs = tiny.prompt(family, ((tiny.Video(3),),))
    with torch.no_grad(), press(model, Spy()), pytest.raises(InputError, match="row 0 of the prompt has no text"):
        model(**inputs)
