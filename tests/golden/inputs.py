"""Reproducible inputs for the golden-vector cases.  Needs numpy only.

Bit-identical on every machine, because only these operations are used:

* raw 64-bit words of ``numpy.random.PCG64(seed)`` (``random_raw``).  numpy promises
  that the stream of a *bit generator* never changes; the distributions of
  ``Generator`` (``normal``, ``integers``, ...) carry no such promise and partly call
  the platform's libm, so they are not used;
* integer shifts, masks and sums (exact);
* float32 ``+ - *`` and conversion from integers below 2**24, element by element, one
  numpy call per operation (correctly rounded by IEEE 754, no fused multiply-add);
* no reductions, no BLAS, no transcendental functions: their rounding depends on the CPU.

All arrays are C-contiguous float32.  ``digest(array)`` gives the SHA-256 that the case
manifests record as ``input_sha256``; compare it first when a case fails.

Public functions
    iid_features          pure noise, F x N x C
    structured_features   video-like features, F x N x C
    attention_scores      positive, heavy-tailed scores, F x N
    frame_descriptors     one pooled vector per frame, F x C
    video_pixels          pixel values for a vision tower, F x 3 x H x W
    siglip_weights        state dict of a tiny SigLIP vision tower
    digest                SHA-256 of an array's bytes
"""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np

__all__ = [
    "attention_scores",
    "digest",
    "frame_descriptors",
    "iid_features",
    "siglip_weights",
    "structured_features",
    "video_pixels",
]

_F = np.float32


class _Draws:
    """Exact draws from the raw PCG64 stream."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def _raw(self, shape: tuple[int, ...]) -> np.ndarray:
        count = 1
        for extent in shape:
            count *= extent
        return self._bits.random_raw(count).reshape(shape)

    def uniform(self, *shape: int) -> np.ndarray:
        """Uniform on [0, 1) in steps of 2**-24; one word per value."""
        top = (self._raw(shape) >> np.uint64(40)).astype(np.float32)
        return top * _F(2.0**-24)

    def normal(self, *shape: int) -> np.ndarray:
        """Nearly normal, mean 0, variance 1: the sum of a word's four 16-bit parts."""
        raw = self._raw(shape)
        low = np.uint64(0xFFFF)
        total = raw & low
        for shift in (16, 32, 48):
            total = total + ((raw >> np.uint64(shift)) & low)
        # mean of the sum is 4 * 65535 / 2, its deviation 65536 / sqrt(3)
        centred = total.astype(np.float32) - _F(131070.0)
        return centred * _F(1.0 / 37837.227)

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        word = int(self._bits.random_raw())
        return ((word >> 32) * bound) >> 32


def digest(array: np.ndarray) -> str:
    """SHA-256 of the array's little-endian bytes in C order."""
    data = np.ascontiguousarray(array)
    return hashlib.sha256(data.astype(data.dtype.newbyteorder("<")).tobytes()).hexdigest()


def iid_features(seed: int, frames: int, tokens: int, channels: int) -> np.ndarray:
    """Independent, nearly normal values; F x N x C."""
    draws = _Draws(seed)
    out = np.empty((frames, tokens, channels), dtype=np.float32)
    for index in range(frames):
        out[index] = draws.normal(tokens, channels)
    return out


def _scene_spans(frames: int, scene_cuts: tuple[int, ...] | list[int]) -> list[tuple[int, int]]:
    """Half-open frame ranges of the scenes; a cut at ``k`` starts a new scene at frame ``k``."""
    cuts = [int(cut) for cut in scene_cuts]
    if cuts != sorted(set(cuts)) or any(not 0 < cut < frames for cut in cuts):
        raise ValueError(f"scene cuts must rise strictly inside 1..{frames - 1}: {cuts}")
    edges = [0, *cuts, frames]
    return list(itertools.pairwise(edges))


def structured_features(
    seed: int,
    frames: int,
    tokens: int,
    channels: int,
    *,
    scene_cuts: tuple[int, ...] | list[int] = (),
    outliers: int = 4,
    noise: float = 0.08,
    flicker: float = 1.1,
    drift: float = 0.6,
    scene: float = 0.5,
    jitter: float = 0.06,
    scale: float = 1.0,
) -> np.ndarray:
    """Video-like token features, F x N x C.

    A token's vector is the sum of

    * an offset shared by the whole video (variance 1 before the channel gain);
    * an offset per scene (deviation ``scene``); scenes start at ``scene_cuts``;
    * a background per scene: one part shared by four neighbouring tokens, one part per
      token (deviation 0.5 each);
    * a slow drift per token, moving from one random vector to another over the scene
      (deviation ``drift`` times the token's motion);
    * a small random step per frame, shared by its tokens (deviation ``jitter``);
    * noise per frame, token and channel with deviation ``noise + flicker * motion**3``;
    * ``outliers`` objects, each with its own vector, which move over the tokens by a fixed
      step per frame and are added to the token they stand on.

    ``motion`` is uniform on [0, 1) per token and scene, so most tokens stay nearly still
    and a few change much.  Every channel has its own gain (0.2 to 2.2; one channel in 64
    has four times its gain), applied last with ``scale``.
    """
    draws = _Draws(seed)
    gain = draws.uniform(channels)
    gain = gain * gain * _F(2.0) + _F(0.2)
    gain[draws.below(64) % channels :: 64] *= _F(4.0)
    gain = gain * _F(scale)
    shared = draws.normal(channels)

    objects = []
    for _ in range(outliers):
        vector = draws.normal(channels) * _F(1.5)
        start, step = draws.below(tokens), 1 + draws.below(max(1, tokens // 8))
        objects.append((vector, start, step))

    out = np.empty((frames, tokens, channels), dtype=np.float32)
    for first, last in _scene_spans(frames, scene_cuts):
        offset = draws.normal(channels) * _F(scene) + shared
        block = draws.normal((tokens + 3) // 4, channels) * _F(0.5)
        still = np.repeat(block, 4, axis=0)[:tokens] + draws.normal(tokens, channels) * _F(0.5)
        still = still + offset
        motion = draws.uniform(tokens, 1)
        deviation = motion * motion * motion * _F(flicker) + _F(noise)
        begin = draws.normal(tokens, channels) * _F(drift) * motion
        change = draws.normal(tokens, channels) * _F(drift) * motion - begin
        step_size = _F(1.0 / max(1, last - first - 1))
        for index in range(first, last):
            position = _F(index - first) * step_size
            token = still + (begin + change * position)
            token = token + draws.normal(channels) * _F(jitter)
            token = token + draws.normal(tokens, channels) * deviation
            for vector, start, step in objects:
                place = (start + step * index) % tokens
                token[place] = token[place] + vector
            out[index] = token * gain
    return out


def attention_scores(seed: int, frames: int, tokens: int, *, peaks: int = 6) -> np.ndarray:
    """Positive scores as an encoder's pooled or [CLS] attention would give them, F x N.

    A heavy-tailed base per token that is shared by all frames, modulated per frame, with
    ``peaks`` tokens per frame raised; of the order of ``1 / tokens``.  Rows do not sum to
    one exactly (that would need a reduction).
    """
    draws = _Draws(seed)
    base = draws.uniform(tokens)
    base = base * base * base + _F(0.02)
    out = np.empty((frames, tokens), dtype=np.float32)
    for index in range(frames):
        row = base * (draws.uniform(tokens) + _F(0.5))
        row = row + draws.uniform(tokens) * _F(0.01)
        for _ in range(peaks):
            place = draws.below(tokens)
            row[place] = row[place] * _F(4.0) + _F(0.3) * draws.uniform(1)[0]
        out[index] = row * _F(3.0 / tokens)
    return out


def frame_descriptors(
    seed: int,
    frames: int,
    channels: int,
    *,
    scene_cuts: tuple[int, ...] | list[int] = (),
    change: float = 0.9,
    noise: float = 0.12,
) -> np.ndarray:
    """One pooled vector per frame, F x C: nearly constant inside a scene."""
    draws = _Draws(seed)
    shared = draws.normal(channels)
    out = np.empty((frames, channels), dtype=np.float32)
    for first, last in _scene_spans(frames, scene_cuts):
        centre = shared + draws.normal(channels) * _F(change)
        for index in range(first, last):
            amount = draws.uniform(1)[0] * _F(2.0 * noise)
            out[index] = centre + draws.normal(channels) * amount
    return out


def video_pixels(
    seed: int,
    frames: int,
    height: int,
    width: int,
    *,
    scene_cuts: tuple[int, ...] | list[int] = (),
    squares: int = 2,
    noise: float = 0.02,
) -> np.ndarray:
    """Pixel values in about [-1, 1], F x 3 x H x W.

    Per scene a background of 8 x 8 pixel blocks with some texture; over it squares that
    move from frame to frame, and a little noise per frame.
    """
    draws = _Draws(seed)
    out = np.empty((frames, 3, height, width), dtype=np.float32)
    side = max(4, min(height, width) // 5)
    for first, last in _scene_spans(frames, scene_cuts):
        coarse = draws.uniform(3, (height + 7) // 8, (width + 7) // 8) * _F(1.6) - _F(0.8)
        ground = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)[:, :height, :width]
        ground = ground + draws.normal(3, height, width) * _F(0.1)
        movers = []
        for _ in range(squares):
            patch = draws.normal(3, side, side) * _F(0.2) + (draws.uniform(3, 1, 1) * _F(2.0) - _F(1.0))
            top, left = draws.below(height - side), draws.below(width - side)
            down, right = 1 + draws.below(5), 1 + draws.below(7)
            movers.append((patch, top, left, down, right))
        for index in range(first, last):
            frame = ground + draws.normal(3, height, width) * _F(noise)
            for patch, top, left, down, right in movers:
                y = (top + down * (index - first)) % (height - side)
                x = (left + right * (index - first)) % (width - side)
                frame[:, y : y + side, x : x + side] = patch
            out[index] = frame
    return out


def siglip_weights(
    seed: int,
    *,
    hidden: int,
    intermediate: int,
    layers: int,
    image: int,
    patch: int,
    gain: float = 1.0,
) -> dict[str, np.ndarray]:
    """Weights of a SigLIP vision tower without pooling head.

    Names follow ``transformers.SiglipVisionModel`` as of version 5 (no ``vision_model.``
    prefix).  Matrices have deviation ``gain`` over the square root of the fan-in, rounded
    to a float32 constant; biases and position embeddings are small; norms are near one.
    """
    draws = _Draws(seed)

    def matrix(rows: int, *fan: int) -> np.ndarray:
        fan_in = 1
        for extent in fan:
            fan_in *= extent
        return draws.normal(rows, *fan) * _F(gain / math.sqrt(fan_in))

    def vector(size: int) -> np.ndarray:
        return draws.normal(size) * _F(0.02)

    def norm(prefix: str) -> dict[str, np.ndarray]:
        return {
            f"{prefix}.weight": draws.normal(hidden) * _F(0.1) + _F(1.0),
            f"{prefix}.bias": vector(hidden),
        }

    weights: dict[str, np.ndarray] = {
        "embeddings.patch_embedding.weight": matrix(hidden, 3, patch, patch),
        "embeddings.patch_embedding.bias": vector(hidden),
        "embeddings.position_embedding.weight": draws.normal((image // patch) ** 2, hidden) * _F(0.3),
    }
    for layer in range(layers):
        prefix = f"encoder.layers.{layer}"
        weights |= norm(f"{prefix}.layer_norm1")
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights[f"{prefix}.self_attn.{name}.weight"] = matrix(hidden, hidden)
            weights[f"{prefix}.self_attn.{name}.bias"] = vector(hidden)
        weights |= norm(f"{prefix}.layer_norm2")
        weights[f"{prefix}.mlp.fc1.weight"] = matrix(intermediate, hidden)
        weights[f"{prefix}.mlp.fc1.bias"] = vector(intermediate)
        weights[f"{prefix}.mlp.fc2.weight"] = matrix(hidden, intermediate)
        weights[f"{prefix}.mlp.fc2.bias"] = vector(hidden)
    weights |= norm("post_layernorm")
    return weights
