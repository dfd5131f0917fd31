"""`Histories`: the stream states of several parts that each carry one of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressors.errors import InputError
from compressors.tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class Histories:
    """One state by each name that `History.state` gives.

    Attributes:
        states: name -> state.
    """

    states: Mapping[str, Any]

    @classmethod
    def of(cls, state: str, tokens: VideoTokens) -> VideoTokens:
        """The tokens with one of their states as their history.

        Raises:
            InputError: the history is no composition's, or another one's.
        """
        history = tokens.history
        if history is None:
            return tokens
        if not isinstance(history, cls) or state not in history.states:
            found = sorted(history.states) if isinstance(history, cls) else type(history).__name__
            raise InputError(
                f"history is {found}, and {state} is needed among others: pass what this composition's own "
                f"Compression.history gave, or None at the start of a stream."
            )
        return tokens.with_(history=history.states[state], _checks=tokens._checks)
