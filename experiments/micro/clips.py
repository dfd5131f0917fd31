"""Generated clips: their content (`ClipSpec`), their looks (`render`), what each token sees (`token_targets`).

A clip has one to four scenes with backgrounds of their own, one moving object, small static distractors, and one
*flash*: a shape that is visible in a single frame pair (the two frames that one temporal patch covers). Everything
follows from a numpy generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

TOKEN_PIXELS = 28  # patch 14, merged 2 x 2
PAIR = 2  # frames per temporal patch

MOVER_SHAPES = ("disc", "square", "triangle", "diamond")
FLASH_SHAPES = ("ring", "cross", "hourglass", "bars")
DIRECTIONS = ("left", "right", "up", "down")
PARTS = ("beginning", "middle", "end")
COLOURS = {
    "red": (225, 40, 40),
    "green": (45, 200, 60),
    "blue": (60, 105, 250),
    "yellow": (240, 225, 50),
    "magenta": (235, 60, 225),
    "white": (245, 245, 245),
}
COLOUR_NAMES = tuple(COLOURS)
MAX_SCENES = 4
IGNORE = -100  # the target of tokens that see too little of an object to name it

# Base colour and pattern of each background; dim, so that every object colour stands out on every one of them.
_BACKGROUNDS = (
    ((75, 75, 75), "plain"),
    ((25, 35, 90), "rows"),
    ((25, 75, 30), "checks"),
    ((95, 55, 20), "columns"),
    ((80, 22, 70), "dots"),
    ((12, 85, 85), "diagonal"),
)
BACKGROUND_COUNT = len(_BACKGROUNDS)
_VELOCITY = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


@dataclass(frozen=True)
class ClipSpec:
    """All that determines a clip. Lengths in pixels, times in frame pairs, positions (y, x) of a top left corner."""

    pairs: int
    height: int
    width: int
    backgrounds: tuple[int, ...]
    cuts: tuple[int, ...]  # first pair of each scene; the first entry is 0
    background_shift: tuple[int, ...]  # phase of each scene's pattern
    mover_shape: str
    mover_colour: str
    direction: str
    mover_size: int
    mover_start: tuple[int, int]
    mover_speed: int  # pixels per frame
    flash_shape: str
    flash_colour: str
    flash_pair: int
    flash_size: int
    flash_corner: tuple[int, int]
    distractors: tuple[tuple[int, int, int, str], ...]  # y, x, side, colour

    @property
    def frames(self) -> int:
        return self.pairs * PAIR

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of visual tokens in a frame pair."""
        return self.height // TOKEN_PIXELS, self.width // TOKEN_PIXELS

    @property
    def part(self) -> str:
        """The third of the clip in which the flash lies."""
        return PARTS[min(2, int(3 * (self.flash_pair + 0.5) / self.pairs))]

    def scene_of_pair(self) -> np.ndarray:
        """Running scene number of every pair, int64 `[T]`, from 0."""
        running: np.ndarray = np.searchsorted(np.asarray(self.cuts), np.arange(self.pairs), side="right") - 1
        return running

    def mover_corner(self, frame: int) -> tuple[int, int]:
        """Top left corner of the moving object; it leaves on one side and comes back on the other."""
        dy, dx = _VELOCITY[self.direction]
        size = self.mover_size
        moved = self.mover_speed * frame
        y, x = self.mover_start
        if dy:
            y = (y + size + dy * moved) % (self.height + size) - size
        if dx:
            x = (x + size + dx * moved) % (self.width + size) - size
        return y, x


def sample_clip(rng: np.random.Generator, frames: int = 16, height: int = 112, width: int = 112) -> ClipSpec:
    """Draw a clip. Every answer is uniform over its choices and independent of the others.

    Args:
        rng: the only source of chance.
        frames: even number of frames, at least 16.
        height, width: pixels, multiples of 28, at least 112.

    Raises:
        ValueError: for sizes outside these ranges.
    """
    if frames < 16 or frames % PAIR:
        raise ValueError(f"frames must be even and at least 16, got {frames}")
    if min(height, width) < 112 or height % TOKEN_PIXELS or width % TOKEN_PIXELS:
        raise ValueError(f"height and width must be multiples of 28 and at least 112, got {height} x {width}")
    pairs = frames // PAIR
    scenes = int(rng.integers(1, MAX_SCENES + 1))
    backgrounds = tuple(int(b) for b in rng.permutation(BACKGROUND_COUNT)[:scenes])
    mover_size, flash_size = int(rng.integers(32, 41)), int(rng.integers(36, 45))
    spec = ClipSpec(
        pairs=pairs,
        height=height,
        width=width,
        backgrounds=backgrounds,
        cuts=_sample_cuts(rng, pairs, scenes),
        background_shift=tuple(int(s) for s in rng.integers(0, 32, scenes)),
        mover_shape=str(rng.choice(MOVER_SHAPES)),
        mover_colour=str(rng.choice(COLOUR_NAMES)),
        direction=str(rng.choice(DIRECTIONS)),
        mover_size=mover_size,
        mover_start=(int(rng.integers(0, height - mover_size + 1)), int(rng.integers(0, width - mover_size + 1))),
        mover_speed=int(rng.integers(2, 5)),
        flash_shape=str(rng.choice(FLASH_SHAPES)),
        flash_colour=str(rng.choice(COLOUR_NAMES)),
        flash_pair=_sample_flash_pair(rng, pairs),
        flash_size=flash_size,
        flash_corner=(0, 0),
        distractors=(),
    )
    corner = _free_corner(rng, spec, flash_size)
    distractors = tuple(
        (
            int(rng.integers(0, height - 10)),
            int(rng.integers(0, width - 10)),
            int(rng.integers(6, 10)),
            str(rng.choice(COLOUR_NAMES)),
        )
        for _ in range(int(rng.integers(1, 4)))
    )
    return ClipSpec(**{**spec.__dict__, "flash_corner": corner, "distractors": distractors})


def render(spec: ClipSpec) -> np.ndarray:
    """Draw a clip: uint8 `[F, H, W, 3]`, RGB."""
    scene = np.repeat(spec.scene_of_pair(), PAIR)
    sheets = np.stack(
        [
            _background(b, spec.height, spec.width, s)
            for b, s in zip(spec.backgrounds, spec.background_shift, strict=True)
        ]
    )
    for y, x, side, colour in spec.distractors:
        sheets[:, y : y + side, x : x + side] = COLOURS[colour]
    frames: np.ndarray = sheets[scene]
    mover = _mask(spec.mover_shape, spec.mover_size)
    for index in range(spec.frames):
        _paint(frames[index], mover, spec.mover_corner(index), COLOURS[spec.mover_colour])
    flash = _mask(spec.flash_shape, spec.flash_size)
    for index in range(spec.flash_pair * PAIR, (spec.flash_pair + 1) * PAIR):
        _paint(frames[index], flash, spec.flash_corner, COLOURS[spec.flash_colour])
    return frames


def token_targets(spec: ClipSpec, *, visible: float = 0.08, hidden: float = 0.02) -> dict[str, np.ndarray]:
    """What every visual token sees, for dense supervision; int64 `[T, N]` each, `IGNORE` where it cannot be told.

    `object`: 0 nothing, 1-4 the moving shapes, 5-8 the flashing ones; `colour` and `direction` of that object;
    `background`; `scene`: running number of the scene; `flashed`: whether the flash has been seen by this pair's end.
    A token shows an object that covers at least `visible` of it, and none if less than `hidden` is covered.
    """
    rows, columns = spec.grid
    mover = np.zeros((spec.pairs, spec.height, spec.width), np.float32)
    flash = np.zeros((spec.pairs, spec.height, spec.width), np.float32)
    mask = _mask(spec.mover_shape, spec.mover_size)[..., 0] > 0.5
    for index in range(spec.frames):
        _cover(mover[index // PAIR], mask, spec.mover_corner(index))
    _cover(flash[spec.flash_pair], _mask(spec.flash_shape, spec.flash_size)[..., 0] > 0.5, spec.flash_corner)
    cells = (spec.pairs, rows, TOKEN_PIXELS, columns, TOKEN_PIXELS)
    seen_mover = mover.reshape(cells).mean((2, 4)).reshape(spec.pairs, -1)
    seen_flash = flash.reshape(cells).mean((2, 4)).reshape(spec.pairs, -1)

    kind = np.zeros(seen_mover.shape, np.int64)
    kind[np.maximum(seen_mover, seen_flash) >= hidden] = IGNORE
    colour, direction = np.full_like(kind, IGNORE), np.full_like(kind, IGNORE)
    is_mover, is_flash = seen_mover >= visible, seen_flash >= visible
    kind[is_mover] = 1 + MOVER_SHAPES.index(spec.mover_shape)
    colour[is_mover] = COLOUR_NAMES.index(spec.mover_colour)
    direction[is_mover] = DIRECTIONS.index(spec.direction)
    kind[is_flash] = 1 + len(MOVER_SHAPES) + FLASH_SHAPES.index(spec.flash_shape)
    colour[is_flash] = COLOUR_NAMES.index(spec.flash_colour)
    direction[is_flash] = IGNORE

    scene = spec.scene_of_pair()
    flashed = (np.arange(spec.pairs) >= spec.flash_pair).astype(np.int64)
    every = np.ones((1, rows * columns), np.int64)
    return {
        "object": kind,
        "colour": colour,
        "direction": direction,
        "background": np.asarray(spec.backgrounds)[scene][:, None] * every,
        "scene": scene[:, None] * every,
        "flashed": flashed[:, None] * every,
    }


def _sample_cuts(rng: np.random.Generator, pairs: int, scenes: int) -> tuple[int, ...]:
    """First pairs of the scenes, each of which lasts at least a sixth of the clip."""
    shortest = max(1, round(pairs / 6))
    spare = pairs - shortest * scenes
    extra = (
        np.diff(np.concatenate([[0], np.sort(rng.integers(0, spare + 1, scenes - 1))])).tolist() if scenes > 1 else []
    )
    cuts, at = [0], 0
    for length in extra:
        at += shortest + int(length)
        cuts.append(at)
    return tuple(cuts)


def _sample_flash_pair(rng: np.random.Generator, pairs: int) -> int:
    """A pair well inside a uniformly drawn third of the clip, so that the answer is never a matter of taste."""
    part = int(rng.integers(len(PARTS)))
    middle = (np.arange(pairs) + 0.5) / pairs
    low, high = ((0.0, 0.27), (0.38, 0.62), (0.73, 1.0))[part]
    return int(rng.choice(np.flatnonzero((middle > low) & (middle < high))))


def _free_corner(rng: np.random.Generator, spec: ClipSpec, size: int) -> tuple[int, int]:
    """A place for the flash that hides the moving object as little as possible."""
    movers = [spec.mover_corner(spec.flash_pair * PAIR + i) for i in range(PAIR)]
    best, least = (0, 0), np.inf
    for _ in range(40):
        y, x = int(rng.integers(0, spec.height - size + 1)), int(rng.integers(0, spec.width - size + 1))
        overlap = max(
            max(0, min(y + size, my + spec.mover_size) - max(y, my))
            * max(0, min(x + size, mx + spec.mover_size) - max(x, mx))
            for my, mx in movers
        )
        if overlap < least:
            best, least = (y, x), overlap
        if overlap == 0:
            break
    return best


@lru_cache(maxsize=512)
def _background_sheet(kind: int, height: int, width: int) -> np.ndarray:
    base, pattern = _BACKGROUNDS[kind]
    y, x = np.mgrid[0 : height + 32, 0 : width + 32]
    light = {
        "plain": np.zeros_like(y),
        "rows": (y // 4) % 2,
        "columns": (x // 4) % 2,
        "checks": (y // 8 + x // 8) % 2,
        "dots": ((y % 8 < 4) & (x % 8 < 4)).astype(int) * 2,
        "diagonal": ((y + x) // 6) % 2,
    }[pattern]
    sheet: np.ndarray = np.clip(np.asarray(base) + 14 * light[..., None], 0, 255).astype(np.uint8)
    return sheet


def _background(kind: int, height: int, width: int, shift: int) -> np.ndarray:
    return _background_sheet(kind, height, width)[shift : shift + height, shift : shift + width]


@lru_cache(maxsize=512)
def _mask(shape: str, size: int) -> np.ndarray:
    """Coverage of a shape, float32 `[size, size, 1]` in [0, 1], from 3 x 3 samples per pixel."""
    fine = 3
    axis = (np.arange(size * fine) + 0.5) / (size * fine) * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    radius = np.hypot(y, x)
    inside = {
        "disc": radius < 1,
        "square": np.maximum(abs(y), abs(x)) < 0.88,
        "triangle": (abs(x) < (y + 1) / 2) & (y < 0.95),
        "diamond": abs(y) + abs(x) < 1,
        "ring": (radius < 1) & (radius > 0.55),
        "cross": ((abs(y) < 0.3) | (abs(x) < 0.3)),
        "hourglass": (abs(x) < abs(y)),
        "bars": ((x + 1) * 2.5 % 2) < 1,
    }[shape]
    share: np.ndarray = inside.reshape(size, fine, size, fine).mean((1, 3), dtype=np.float32)
    return share[..., None]


def _paint(frame: np.ndarray, mask: np.ndarray, corner: tuple[int, int], colour: tuple[int, int, int]) -> None:
    window, part = _window(frame.shape[:2], mask.shape[:2], corner)
    if part is not None:
        cut = mask[part]
        frame[window] = (frame[window] * (1 - cut) + np.asarray(colour, np.float32) * cut + 0.5).astype(np.uint8)


def _cover(plane: np.ndarray, mask: np.ndarray, corner: tuple[int, int]) -> None:
    window, part = _window(plane.shape, mask.shape, corner)
    if part is not None:
        np.maximum(plane[window], mask[part], out=plane[window])


def _window(
    outer: tuple[int, ...], inner: tuple[int, ...], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice] | None]:
    """The visible window of a picture of size `inner` placed at `corner`, in the outer and in its own coordinates."""
    (y, x), (height, width) = corner, inner[:2]
    top, bottom, left, right = max(0, y), min(outer[0], y + height), max(0, x), min(outer[1], x + width)
    if top >= bottom or left >= right:
        return (slice(0, 0), slice(0, 0)), None
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))
