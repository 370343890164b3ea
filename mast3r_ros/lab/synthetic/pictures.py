"""Pictures that hang on walls: posters, paintings, landscapes, street maps, printed pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.lab.synthetic import textures

Image = NDArray[np.uint8]

PALETTES = (
    ((38, 70, 83), (42, 157, 143), (233, 196, 106), (244, 162, 97), (231, 111, 81)),
    ((29, 53, 87), (69, 123, 157), (168, 218, 220), (241, 250, 238), (230, 57, 70)),
    ((61, 64, 91), (129, 178, 154), (242, 204, 143), (224, 122, 95), (244, 241, 222)),
    ((20, 33, 61), (252, 163, 17), (229, 229, 229), (0, 0, 0), (255, 255, 255)),
    ((96, 108, 56), (40, 54, 24), (254, 250, 224), (221, 161, 94), (188, 108, 37)),
    ((53, 80, 112), (109, 89, 122), (181, 101, 118), (229, 107, 111), (234, 172, 139)),
)
WORDS = (
    *("MAP", "ATLAS", "NORTH", "SIGNAL", "METRIC", "POSE", "FRAME", "CAMERA", "ROBOT", "LIGHT"),
    *("RIVER", "GARDEN", "ORBIT", "JAZZ", "MOTION", "HARBOUR", "ALPINE", "TOKYO", "OSLO"),
)
FONTS = (cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SIMPLEX)


def palette(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Five colours that go together, in random order."""
    colours = PALETTES[int(rng.integers(len(PALETTES)))]
    return [colours[i] for i in rng.permutation(len(colours))]


def text(
    image: Image, words: str, left: int, baseline: int, width: int, ink: Sequence[float], font: int, weight: int = 1
) -> int:
    """Draw ``words`` to fill ``width`` pixels; returns the height used."""
    (natural, height), _ = cv2.getTextSize(words, font, 1.0, weight)
    scale = width / max(natural, 1)
    cv2.putText(image, words, (left, baseline), font, scale, ink, max(1, round(weight * scale)), cv2.LINE_AA)
    return int(height * scale)


def paragraph(
    image: Image, rng: np.random.Generator, box: tuple[int, int, int, int], ink: Sequence[float], line: int
) -> None:
    """Lines of small print in ``box`` (left, top, right, bottom), as strokes of words."""
    left, top, right, bottom = box
    for y in range(top, bottom - line // 2, line):
        x = left
        while x < right - line:
            length = int(rng.integers(line // 2, line * 3))
            cv2.rectangle(image, (x, y), (min(x + length, right), y + max(1, line // 2 - 1)), ink, -1)
            x += length + max(2, line // 3)
        if rng.uniform() < 0.15:
            right_end = int(rng.integers(left + line, right))
            cv2.rectangle(image, (right_end, y), (right, y + line // 2), image[top - 1, left - 1].tolist(), -1)


def poster(rng: np.random.Generator, side: int = 512) -> Image:
    """A headline, a figure of bold shapes, small print."""
    colours = palette(rng)
    image = np.full((side, side, 3), colours[0], np.uint8)
    used = text(
        image, str(rng.choice(WORDS)), side // 12, side // 5, side * 5 // 6, colours[1], int(rng.choice(FONTS)), 2
    )
    top = max(side // 5, used) + side // 16
    cv2.rectangle(image, (side // 12, top), (side * 11 // 12, side * 3 // 4), colours[2], -1)
    for _ in range(int(rng.integers(5, 12))):
        _shape(image[top : side * 3 // 4, side // 12 : side * 11 // 12], rng, colours[int(rng.integers(1, 5))])
    paragraph(image, rng, (side // 12, side * 4 // 5, side * 11 // 12, side * 19 // 20), colours[1], max(6, side // 42))
    return image


def _shape(image: Image, rng: np.random.Generator, ink: Sequence[float]) -> None:
    """One bold shape anywhere in the image."""
    height, width = image.shape[:2]
    x, y = int(rng.integers(width)), int(rng.integers(height))
    size = int(rng.uniform(0.06, 0.3) * height)
    canvas = np.ascontiguousarray(image)
    kind = rng.integers(4)
    if kind == 0:
        cv2.circle(canvas, (x, y), size, ink, -1 if rng.uniform() < 0.6 else max(2, size // 5), cv2.LINE_AA)
    elif kind == 1:
        cv2.rectangle(canvas, (x, y), (x + size, y + int(size * rng.uniform(0.4, 2))), ink, -1)
    elif kind == 2:
        corners = np.array([x, y]) + rng.normal(0, size, (3, 2))
        cv2.fillPoly(canvas, [corners.astype(np.int32)], ink, cv2.LINE_AA)
    else:
        cv2.line(
            canvas, (x, y), (int(rng.integers(width)), int(rng.integers(height))), ink, max(2, size // 8), cv2.LINE_AA
        )
    image[:] = canvas


def abstract(rng: np.random.Generator, side: int = 512) -> Image:
    """A painting of planes and lines on canvas."""
    colours = palette(rng)
    image = np.full((side, side, 3), colours[0], np.uint8)
    if rng.uniform() < 0.4:
        _divide(image, rng, colours, 5)
    else:
        for _ in range(26):
            _shape(image, rng, colours[int(rng.integers(5))])
    return _canvas(rng, image)


def _canvas(rng: np.random.Generator, image: Image) -> Image:
    value = 1 + 0.05 * textures.cloud(rng, image.shape[0], 24, 4)
    return np.clip(image * value[..., None], 0, 255).astype(np.uint8)


def _divide(image: Image, rng: np.random.Generator, colours: Sequence[Sequence[float]], depth: int) -> None:
    """Nested rectangles with dark bars between."""
    height, width = image.shape[:2]
    if depth == 0 or min(height, width) < 24:
        image[:] = colours[int(rng.integers(len(colours)))]
        return
    cut = rng.uniform(0.3, 0.7)
    if width > height:
        x = int(cut * width)
        _divide(image[:, :x], rng, colours, depth - 1)
        _divide(image[:, x:], rng, colours, depth - 1)
        image[:, max(0, x - 3) : x + 3] = 24
    else:
        y = int(cut * height)
        _divide(image[:y], rng, colours, depth - 1)
        _divide(image[y:], rng, colours, depth - 1)
        image[max(0, y - 3) : y + 3] = 24


def landscape(rng: np.random.Generator, side: int = 512, detail: bool = True) -> Image:
    """Sky, sun, layers of mountains, trees in front."""
    high, low = (
        np.array([[70, 120, 190], [225, 205, 180]])
        if rng.uniform() < 0.6
        else np.array([[60, 50, 110], [245, 160, 110]])
    )
    y = np.linspace(0, 1, side)[:, None, None]
    image = (high * (1 - y) + low * y + np.zeros((side, side, 1))).astype(np.uint8)
    clouds = np.clip(textures.cloud(rng, side, 3, 6) - 0.6, 0, 1)[..., None] * np.clip(1.1 - 1.6 * y, 0, 1)
    image = (image * (1 - clouds) + 250 * clouds).astype(np.uint8)
    cv2.circle(
        image,
        (int(rng.integers(side)), int(side * rng.uniform(0.15, 0.4))),
        side // 16,
        (255, 240, 200),
        -1,
        cv2.LINE_AA,
    )
    x = np.arange(side)
    shade = 0.25 + 0.5 * textures.cloud(rng, side, 8, 6)
    for layer in range(4):
        ridge = np.interp(x, np.linspace(0, side, 9 << layer), rng.uniform(-1, 1, 9 << layer)) * side * 0.09
        crest = side * (0.45 + 0.13 * layer) + ridge
        tone = low * (1 - (layer + 1) / 4.6) * 0.9 + np.array([34, 62, 44]) * ((layer + 1) / 4.6)
        below = np.arange(side)[:, None] > crest[None]
        lit = (tone[None, None] * (1 + 0.16 * shade[..., None])).clip(0, 255).astype(np.uint8)
        image = np.where(below[..., None], lit, image)
    if detail:
        for _ in range(60):
            _tree(image, rng, side)
    return np.ascontiguousarray(image)


def _tree(image: Image, rng: np.random.Generator, side: int) -> None:
    x, y = int(rng.integers(side)), int(rng.uniform(0.8, 1.02) * side)
    height = int(rng.uniform(0.05, 0.15) * side)
    ink = (np.array([30, 60, 34]) * rng.uniform(0.6, 1.7)).tolist()
    for k in range(3):
        top, base, half = y - height + k * height // 5, y - height // 2 + k * height // 4, height * (k + 2) // 12
        cv2.fillPoly(image, [np.array([[x, top], [x - half, base], [x + half, base]], np.int32)], ink, cv2.LINE_AA)


def city(rng: np.random.Generator, side: int = 512) -> Image:
    """A street of houses under the sky, as seen from a window."""
    image = landscape(rng, side, detail=False)
    x = 0
    while x < side:
        width, top = int(rng.integers(side // 12, side // 5)), int(rng.uniform(0.3, 0.6) * side)
        tone = np.array(palette(rng)[0]) * 0.5 + np.array([110, 100, 92]) * rng.uniform(0.4, 1.0)
        cv2.rectangle(image, (x, top), (x + width, side), tone.tolist(), -1)
        pane = max(5, side // 44)
        for wy in range(top + pane, side, pane * 2):
            for wx in range(x + pane, x + width - pane, pane * 2):
                bright = rng.choice([0.45, 0.6, 1.5])
                cv2.rectangle(image, (wx, wy), (wx + pane, wy + pane), (tone * bright).clip(0, 255).tolist(), -1)
        x += width
    return image


def town_plan(rng: np.random.Generator, side: int = 512) -> Image:
    """A street map with blocks, a river, a park and labels."""
    image = np.full((side, side, 3), (240, 234, 220), np.uint8)
    warp = 14 * textures.noise(rng, side, 3, 3)
    streets = np.sort(rng.integers(0, side, 18))
    for k, value in enumerate(streets):
        line = np.arange(0, side + 8, 8)
        bent = value + warp[np.clip(line, 0, side - 1), int(value) % side]
        points = np.stack([line, bent] if k % 2 else [bent, line], axis=1).astype(np.int32)
        cv2.polylines(
            image,
            [points],
            False,
            (205, 170, 120) if k % 5 == 0 else (170, 170, 175),
            5 if k % 5 == 0 else 3,
            cv2.LINE_AA,
        )
    for _ in range(60):
        x, y = rng.integers(0, side, 2).tolist()
        w, h = rng.integers(side // 50, side // 16, 2).tolist()
        ink = [(214, 190, 170), (188, 205, 172), (226, 208, 150)][int(rng.integers(3))]
        cv2.rectangle(image, (x, y), (x + w, y + h), ink, -1)
        cv2.rectangle(image, (x, y), (x + w, y + h), (140, 130, 120), 1)
    river = np.cumsum(rng.normal(0, side / 26, 24)) + rng.uniform(0.3, 0.7) * side
    points = np.stack([np.linspace(0, side, 24), river], axis=1).astype(np.int32)
    cv2.polylines(image, [points], False, (120, 170, 210), side // 22, cv2.LINE_AA)
    for _ in range(7):
        spot = rng.integers(0, side * 3 // 4, 2).tolist()
        cv2.putText(image, str(rng.choice(WORDS)), spot, FONTS[0], side / 900, (60, 50, 60), 1, cv2.LINE_AA)
    return image


def notice(rng: np.random.Generator, side: int = 512) -> Image:
    """A printed page: headline, paragraphs, a bar chart."""
    image = np.full((side, side, 3), (243, 241, 234), np.uint8)
    accent = palette(rng)[0]
    text(image, f"{rng.choice(WORDS)} {rng.integers(1, 99)}", side // 12, side // 7, side * 3 // 5, accent, FONTS[0], 2)
    middle = side // 2
    paragraph(
        image, rng, (side // 12, side // 5, middle - side // 30, side * 11 // 12), (60, 60, 64), max(7, side // 36)
    )
    paragraph(
        image, rng, (middle + side // 30, side // 5, side * 11 // 12, side // 2), (60, 60, 64), max(7, side // 36)
    )
    base, width = side * 11 // 12, side // 22
    for k, height in enumerate(rng.uniform(0.06, 0.36, 7)):
        x = middle + side // 30 + k * (width + side // 90)
        ink = accent if k % 2 else (150, 156, 160)
        cv2.rectangle(image, (x, base - int(height * side)), (x + width, base), ink, -1)
    return image


PICTURES: tuple[Callable[[np.random.Generator, int], Image], ...] = (
    poster,
    abstract,
    landscape,
    city,
    town_plan,
    notice,
)


def unframed(rng: np.random.Generator, side: int = 512) -> Image:
    """Any of the pictures."""
    return PICTURES[int(rng.integers(len(PICTURES)))](rng, side)


def picture(rng: np.random.Generator, side: int = 512) -> Image:
    """Any of the pictures, in a dark or light frame with a mount."""
    inner = unframed(rng, side)
    border = side // int(rng.integers(16, 28))
    frame = [(32, 28, 26), (120, 82, 50), (228, 226, 220), (168, 140, 80)][int(rng.integers(4))]
    image = cv2.copyMakeBorder(inner, border, border, border, border, cv2.BORDER_CONSTANT, value=(238, 234, 226))
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    cv2.rectangle(image, (0, 0), (side - 1, side - 1), frame, max(4, side // 40))
    return image
