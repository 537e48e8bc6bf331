"""Procedural images: textured shapes whose class is the pair of texture and outline.

Stripes, checks and rings with a period of 5 to 8 pixels (at side 32) turn with the object: detail
that an autoencoder may store in a way that does not follow a turn of the image.
"""

import colorsys
import functools
import math
from collections.abc import Iterator

import numpy as np

TEXTURES = ("striped", "checked", "ringed")
OUTLINES = ("disc", "square", "triangle", "cross")
# 3 and 4 have no common divisor, so the first 12 labels run through every pair once.
CLASS_NAMES = [f"{TEXTURES[label % 3]} {OUTLINES[label % 4]}" for label in range(12)]

# A multiple of every number of classes (label 0 comes first), and beyond any training index.
VALIDATION_START = 27_720 * 10**6

_SAMPLES = 3  # per pixel and axis


def draw(index: int, label: int, size: int, seed: int) -> np.ndarray:
    """Draw one image, uint8 of shape (size, size, 3); depends on nothing but the arguments."""
    rng = np.random.default_rng([seed, index])
    u, v, radius = _object_frame(rng, size)
    inside = _outline(OUTLINES[label % 4], u / radius, v / radius)
    bright = inside & _texture(TEXTURES[label % 3], u, v, rng.uniform(0.16, 0.25))
    cover, share = _box_average(inside, size), _box_average(bright, size)
    light, dark, background = _colours(rng, size)
    pixels = background * (1 - cover) + light * share + dark * (cover - share)
    return np.rint(255 * pixels).astype(np.uint8)


def dataset(
    count: int, num_classes: int, size: int, seed: int, start: int = 0
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield image and label of `count` indices from `start`; labels run in turn."""
    for index in range(start, start + count):
        label = index % num_classes
        yield draw(index, label, size, seed), label


@functools.lru_cache(maxsize=4)
def _grid(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of `count` cells along x and y, in units of the image side."""
    line = (np.arange(count, dtype=np.float32) + 0.5) / count
    return line[None, :], line[:, None]


def _object_frame(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Sample positions seen from the object (moved and turned), and the object's radius."""
    radius = float(rng.uniform(0.3, 0.45))
    # Two thirds of the room to the edge: corners may touch it, the outline stays recognisable.
    shift = (0.5 - radius) * 0.67
    cx, cy = (0.5 + rng.uniform(-shift, shift, 2)).tolist()
    angle = float(rng.uniform(0, 2 * math.pi))
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = _grid(_SAMPLES * size)
    x, y = x - cx, y - cy
    return cos * x + sin * y, cos * y - sin * x, radius


def _outline(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which positions lie inside a shape of unit radius; the areas are of similar size."""
    if kind == "disc":
        return u * u + v * v < 0.85**2
    if kind == "square":
        return np.maximum(np.abs(u), np.abs(v)) < 0.76
    if kind == "triangle":
        return np.maximum(v, 0.866 * np.abs(u) - 0.5 * v) < 0.5
    a, b = np.abs(u), np.abs(v)
    return (np.minimum(a, b) < 0.34) & (np.maximum(a, b) < 0.95)


def _texture(kind: str, u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    """Which positions take the bright colour, in a pattern of the period."""
    if kind == "striped":
        return _odd(u, period / 2)
    if kind == "checked":
        # Cells of this side have their strongest wave, the diagonal one, at `period`.
        return _odd(u, period / math.sqrt(2)) ^ _odd(v, period / math.sqrt(2))
    return _odd(np.sqrt(u * u + v * v), period / 2)


def _odd(x: np.ndarray, width: float) -> np.ndarray:
    return (np.floor(x / width).astype(np.int32) & 1).astype(bool)


def _box_average(mask: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel's samples in the mask, shape (size, size, 1)."""
    cells = mask.reshape(size, _SAMPLES, size, _SAMPLES)
    return cells.mean(axis=(1, 3), dtype=np.float32)[..., None]


def _colours(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A saturated colour of the object, a darker shade of it, and a graded background."""
    hue, saturation = rng.uniform(), rng.uniform(0.75, 1)
    light = _rgb(hue, saturation, rng.uniform(0.9, 1))
    dark = light * rng.uniform(0.6, 0.8)
    ground = rng.uniform()
    first, second = (
        _rgb(ground + rng.uniform(-0.08, 0.08), rng.uniform(0.1, 0.35), rng.uniform(0.45, 0.7))
        for _ in range(2)
    )
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * math.pi)
    # Within [0, 1]: the projection of the unit square on a direction is at most sqrt(2) long.
    ramp = 0.5 + (math.cos(angle) * (x - 0.5) + math.sin(angle) * (y - 0.5)) / math.sqrt(2)
    return light, dark, first + (second - first) * ramp[..., None]


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)
