"""Frames between the source and the session, and what happens when they come faster than they are handled."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

POLICIES = ("drop_oldest", "block", "lower_rate")


@dataclass(frozen=True)
class Frame:
    """A frame on its way to the session.

    Attributes:
        image: RGB uint8 `[H, W, 3]`.
        time: seconds since the stream's start.
        due: when it was shown or came, on the machine's monotonic clock; None where it came as fast as it was taken.
    """

    image: np.ndarray
    time: float
    due: float | None = None


class FrameQueue:
    """At most `capacity` frames, in order. When it is full, the policy decides:

    - `drop_oldest`: the oldest frame goes;
    - `block`: the source waits;
    - `lower_rate`: the frame is passed over, and from then on only every second, fourth, … is let in; after twice
      `capacity` frames that came in while the queue was at most half full, the rate doubles again.

    Every frame offered is counted once: taken, dropped, thinned (passed over by `lower_rate`), or left when the queue
    had ended.

    Args:
        policy: one of `POLICIES`.
        capacity: frames.
        slowest: `lower_rate` lets in at least every so-manieth frame that is offered.

    Attributes:
        stride: `lower_rate` now lets in every so-manieth frame.
        dropped, thinned, left: frames counted so.
    """

    def __init__(self, policy: str, capacity: int, slowest: int = 64) -> None:
        self.policy, self._capacity, self._slowest = policy, capacity, slowest
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._offered = self._let_in = 0
        self._calm = 2 * capacity
        self.stride, self.dropped, self.thinned, self.left = 1, 0, 0, 0

    def put(self, frame: Frame) -> None:
        """Offer the next frame; waits only under `block`."""
        with self._changed:
            if self.policy == "block":
                self._changed.wait_for(lambda: self._ended or len(self._frames) < self._capacity)
            if self._ended:
                self.left += 1
            elif self.policy == "lower_rate" and not self._let_through():
                self.thinned += 1
            else:
                if len(self._frames) == self._capacity:
                    self._frames.popleft()
                    self.dropped += 1
                self._frames.append(frame)
                self._changed.notify_all()

    def _let_through(self) -> bool:
        self._offered += 1
        if self._offered % self.stride:
            return False
        if len(self._frames) == self._capacity:
            self.stride, self._let_in = min(self._slowest, 2 * self.stride), 0
            return False
        self._let_in = self._let_in + 1 if len(self._frames) <= self._capacity // 2 else 0
        if self._let_in >= self._calm and self.stride > 1:
            self.stride, self._let_in = self.stride // 2, 0
        return True

    def take(self, most: int, until: float, patience: float) -> list[Frame]:
        """The next frames shown at `until` or before, at most `most`; none where the next one is later, at the end, and
        where none came for `patience` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended, patience)
            frames: list[Frame] = []
            while self._frames and len(frames) < most and self._frames[0].time <= until:
                frames.append(self._frames.popleft())
            self._changed.notify_all()
            return frames

    def end(self) -> None:
        """No more frames are let in; those that wait can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def cut(self) -> None:
        """Nothing more is wanted: what waits is left."""
        with self._changed:
            self._ended = True
            self.left += len(self._frames)
            self._frames.clear()
            self._changed.notify_all()

    @property
    def next_time(self) -> float | None:
        """When the next frame is shown; None where none waits."""
        with self._changed:
            return self._frames[0].time if self._frames else None

    @property
    def exhausted(self) -> bool:
        """Whether no frame waits and none will come."""
        with self._changed:
            return self._ended and not self._frames

    def __len__(self) -> int:
        with self._changed:
            return len(self._frames)
