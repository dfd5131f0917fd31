"""The questions about a clip: several phrasings each, answers of one word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.micro.clips import COLOUR_NAMES, DIRECTIONS, FLASH_SHAPES, MAX_SCENES, MOVER_SHAPES, PARTS, ClipSpec


@dataclass(frozen=True)
class QuestionType:
    """A kind of question: its phrasings and the answers it can have (all equally likely)."""

    name: str
    phrasings: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def chance(self) -> float:
        return 1 / len(self.answers)


QUESTIONS = (
    QuestionType(
        "flash_shape",
        (
            "Which shape flashed?",
            "What flashed in the video?",
            "What shape appeared for a moment?",
            "Which shape was visible only briefly?",
        ),
        FLASH_SHAPES,
    ),
    QuestionType(
        "flash_colour",
        (
            "What colour was the flash?",
            "Which colour flashed?",
            "What color was the shape that flashed?",
            "What was the colour of the shape that appeared for a moment?",
        ),
        COLOUR_NAMES,
    ),
    QuestionType(
        "flash_part",
        (
            "In which part of the video was the flash?",
            "When did the shape flash: beginning, middle or end?",
            "When was the flash?",
            "In which part of the clip did the shape appear?",
        ),
        PARTS,
    ),
    QuestionType(
        "mover_shape",
        (
            "Which shape is moving?",
            "What moves in the video?",
            "What is the shape of the moving object?",
            "Which object moves?",
        ),
        MOVER_SHAPES,
    ),
    QuestionType(
        "mover_colour",
        (
            "What colour is the moving object?",
            "Which colour moves?",
            "What color is the object that moves?",
            "What is the colour of the moving shape?",
        ),
        COLOUR_NAMES,
    ),
    QuestionType(
        "mover_direction",
        (
            "In which direction does the object move?",
            "Which way is the shape moving?",
            "Where does the object move to?",
            "What is the direction of the moving object?",
        ),
        DIRECTIONS,
    ),
    QuestionType(
        "scenes",
        (
            "How many scenes are there?",
            "How many scenes does the video have?",
            "How many different backgrounds are there?",
            "Count the scenes.",
        ),
        tuple(str(n) for n in range(1, MAX_SCENES + 1)),
    ),
)
QUESTION_NAMES = tuple(q.name for q in QUESTIONS)


def answers(spec: ClipSpec) -> dict[str, str]:
    """The right answer to every question type about a clip."""
    return {
        "flash_shape": spec.flash_shape,
        "flash_colour": spec.flash_colour,
        "flash_part": spec.part,
        "mover_shape": spec.mover_shape,
        "mover_colour": spec.mover_colour,
        "mover_direction": spec.direction,
        "scenes": str(len(spec.cuts)),
    }


def ask(rng: np.random.Generator) -> dict[str, str]:
    """One phrasing per question type."""
    return {q.name: str(rng.choice(q.phrasings)) for q in QUESTIONS}
