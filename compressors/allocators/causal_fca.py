"""Causal Frame Compression Adjustment: FCA for streams, where a chunk may be one frame and the future is not known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.base import Allocator
from compressors.errors import BuildError, InputError
from compressors.functional.centres import BANDWIDTHS
from compressors.functional.statistics import blocks
from compressors.functional.water_filling import water_filling
from compressors.registry import register
from compressors.requirements import History, Requirement
from compressors.tokens import VideoTokens

_TINY = torch.finfo(torch.float32).tiny
_ROUNDING = 1e-6  # of a token: what is short of a whole one by rounding is one


@dataclass(frozen=True, eq=False)
class CausalState:
    """What causal FCA carries from chunk to chunk. Its size does not depend on the stream's length.

    Attributes:
        means: `[w, C]` float32, the mean unit token of each of the last w frames, fewer than `window`.
        scores: `[w]` float32, their uniqueness when they came.
        level: 0-d float64, what is in the bucket, in frames' worth of tokens.
        carry: 0-d float64, what rounding kept back so far, within half a token.
    """

    means: Tensor
    scores: Tensor
    level: Tensor
    carry: Tensor


@register("allocator", "causal_fca")
@dataclass(frozen=True)
class CausalFrameCompressionAdjustment(Allocator):
    """FCA (VidCom2, arXiv 2505.14454) over the last `window` frames, spending from a token bucket.

    Each frame is compared with the mean c of the window's mean unit tokens, its own included:
    `s_t = -mean_n Σ_a exp(-‖x̂ - c‖²/(2a))` on all channels. With p the softmax of the window's scores (each as it was
    when its frame came) over the temperature, it asks for `r·(1 + strength·(p_t - 1/w))` tokens, where r is retention
    times its places. Fractions carry over to the next frame.

    The bucket gains r per frame, holds `burst·r` at most (or one token, if that is more) and is full when a stream
    starts; a frame gets no more than what is in it. So any k frames in a row keep at most `(burst + k - 1)·r` tokens,
    and a frame at most its places.
    A frame gets `min_tokens` if the bucket holds them. The bound from below: whoever asked for less left the rest in
    the bucket for later frames, as far as it fits.

    The sum over a chunk is thus not the chunk's budget (`exact` is False); over a stream the mean comes to r, as
    p_t is 1/w on average.

    Cost: two passes over the features, a few operations on `[window, C]` per frame; one host read of T counts.

    Attributes:
        window: frames compared, the present one included.
        temperature: of the softmax.
        strength: how much of r the softmax moves; 0 is the same for every frame.
        burst: the bucket's size in frames' worth of tokens, 1 or more.
        min_tokens: a frame's least, bucket permitting.
    """

    window: int = 32
    temperature: float = 0.01
    strength: float = 1.0
    burst: float = 4.0
    min_tokens: int = 1

    def __post_init__(self) -> None:
        for name, value, least in (("window", self.window, 1), ("min_tokens", self.min_tokens, 0)):
            if value < least:
                raise BuildError(f"allocator causal_fca: {name}={value} must be {least} or more.")
        if not self.temperature > 0:
            raise BuildError(f"allocator causal_fca: temperature={self.temperature} must be above 0.")
        if not 0 <= self.strength < float("inf"):
            raise BuildError(f"allocator causal_fca: strength={self.strength} must be a number, 0 or more.")
        if not 1 <= self.burst < float("inf"):
            raise BuildError(f"allocator causal_fca: burst={self.burst} must be a number, 1 or more.")

    @property
    def exact(self) -> bool:
        return False

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({History("causal_fca")})

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`, in proportion to what the frames would ask for; no bucket."""
        shares, _, _ = self._asked(tokens)
        return water_filling(
            shares.double() * tokens.capacity, tokens.capacity, total, min(self.min_tokens, total // tokens.frames)
        )

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets as the bucket allows, `int64 [T]`."""
        return self._spent(tokens, retention)[0]

    def next_history(self, tokens: VideoTokens) -> CausalState:
        """The window with this chunk's frames in it, and the bucket after it."""
        # The budgets were made just before, and the state with them.
        spent: tuple[Tensor, CausalState] = tokens.memo((self, "spent"), lambda: self._spend(tokens, None))
        return spent[1]

    def _spent(self, tokens: VideoTokens, retention: float) -> tuple[Tensor, CausalState]:
        tokens._memo.pop((self, "spent"), None)
        return tokens.memo((self, "spent"), lambda: self._spend(tokens, retention))

    def _spend(self, tokens: VideoTokens, retention: float | None) -> tuple[Tensor, CausalState]:
        """Budgets `[T]` and the state after them; without a retention the bucket stays as it is."""
        shares, means, scores = self._asked(tokens)
        before = self._before(tokens)
        zero = torch.zeros((), dtype=torch.float64, device=tokens.device)
        level, carry = (zero + self.burst, zero) if before is None else (before.level, before.carry)
        rate = (retention or 0.0) * tokens.places
        most_level = max(self.burst, 1 / rate) if rate else self.burst
        budgets = []
        for t in range(tokens.frames if rate else 0):
            capacity = tokens.capacity[t].double()
            deposit = capacity / tokens.places
            level = (level + deposit).clamp_max(most_level)
            wanted = rate * deposit * shares[t] + carry
            whole = torch.round(wanted).clamp_min(0.0)
            carry = (wanted - whole).clamp(-0.5, 0.5)
            most = torch.minimum(capacity, (level * rate + _ROUNDING).floor())
            budget = torch.minimum(whole.clamp_min(float(self.min_tokens)), most)
            level = (level - budget / rate).clamp_min(0.0)
            budgets.append(budget.long())
        old = max(0, len(means) - (self.window - 1))
        state = CausalState(means[old:], scores[old:], level, carry)
        return torch.stack(budgets) if budgets else tokens.capacity * 0, state

    def _asked(self, tokens: VideoTokens) -> tuple[Tensor, Tensor, Tensor]:
        """What each frame asks for, as a multiple of r `[T]`; the window's means `[w, C]` and scores `[w]` after it."""
        counts = tokens.counts or (tokens.places,) * tokens.frames
        sums = tokens.features.new_zeros(tokens.frames, tokens.channels, dtype=torch.float32)
        for block in blocks(tokens):
            norm = torch.linalg.vector_norm(block.values, dim=-1, keepdim=True).clamp_min(_TINY)
            sums[block.frames] += (block.values / norm).sum(1)
        own = sums / tokens.capacity.clamp_min(1).unsqueeze(1)
        before = self._before(tokens)
        means = own[:0] if before is None else before.means
        scores = own[:0, 0] if before is None else before.scores
        centres, windows = [], []
        for t, count in enumerate(counts):
            if count:
                means = torch.cat([means, own[t : t + 1]])[-self.window :]
            centres.append(means.mean(0) if len(means) else own[t])
            windows.append(len(means))
        uniqueness = self._uniqueness(tokens, torch.stack(centres))
        shares = []
        for t, count in enumerate(counts):
            if not count:
                shares.append(torch.ones_like(uniqueness[t]))
                continue
            scores = torch.cat([scores, uniqueness[t : t + 1]])[-self.window :]
            p = torch.softmax((scores - scores.amax()) / self.temperature, dim=0)
            shares.append((1 + self.strength * (p[-1] - 1 / windows[t])).clamp_min(0.0))
        return torch.stack(shares), means, scores

    def _uniqueness(self, tokens: VideoTokens, centres: Tensor) -> Tensor:
        """How unlike its centre each frame's tokens are, `[T]` float32."""
        total = torch.zeros(tokens.frames, device=tokens.device)
        lengths = centres.square().sum(1)
        for block in blocks(tokens):
            norm = torch.linalg.vector_norm(block.values, dim=-1)
            product = (block.values * centres[block.frames].unsqueeze(1)).sum(-1) / norm.clamp_min(_TINY)
            distance = ((norm > 0).float() - 2 * product + lengths[block.frames].unsqueeze(1)).clamp_min(0.0)
            alike = torch.stack([torch.exp(distance / (-2 * a)) for a in BANDWIDTHS]).sum(0)
            if tokens.valid is not None:
                alike = alike * tokens.valid[block.frames, block.places]
            total[block.frames] += alike.sum(1)
        return -total / tokens.capacity.clamp_min(1)

    def _before(self, tokens: VideoTokens) -> CausalState | None:
        history = tokens.history
        if history is None:
            return None
        if not isinstance(history, CausalState):
            raise InputError(
                f"history is a {type(history).__name__}; causal_fca continues what its own Compression.history gave. "
                f"Pass None at the start of a stream."
            )
        if history.means.shape[1] != tokens.channels:
            raise InputError(
                f"history remembers {history.means.shape[1]} channels, and tokens have {tokens.channels} now: start a "
                f"new stream with history=None."
            )
        return history
