"""What the faces of things show: book spines, screens, doors, windows, drawers, cartons, rugs."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mast3r_ros.lab.synthetic import pictures, textures

Image = NDArray[np.uint8]


def spines(rng: np.random.Generator, side: int = 1024, books: int = 40) -> Image:
    """A row of book spines: bands, titles, tones."""
    image = np.zeros((side, side, 3), np.uint8)
    edges = np.concatenate([[0], np.sort(rng.choice(np.arange(12, side - 12, 6), books - 1, replace=False)), [side]])
    for left, right in pairwise(edges):
        width = int(right - left)
        colours = pictures.palette(rng)
        base = np.asarray(colours[0], np.float32) * rng.uniform(0.6, 1.1)
        round_ = 1 - 0.35 * np.abs(np.linspace(-1, 1, width)) ** 3
        book = np.repeat((base * round_[:, None])[None], side, axis=0).clip(0, 255).astype(np.uint8)
        for _ in range(int(rng.integers(1, 4))):
            y = int(rng.uniform(0.04, 0.94) * side)
            book[y : y + int(rng.uniform(0.008, 0.05) * side)] = colours[1]
        if width > 9:
            page = np.zeros((width, side * 2 // 3, 3), np.uint8)
            title, font = f"{rng.choice(pictures.WORDS)} {rng.choice(pictures.WORDS)}", int(rng.choice(pictures.FONTS))
            spot, scale, weight = (6, int(width * 0.68)), width / 38, max(1, width // 20)
            cv2.putText(page, title, spot, font, scale, (255, 255, 255), weight, cv2.LINE_AA)
            mask = np.rot90(page, 3)[: side * 2 // 3] / 255.0
            top = side // 6
            area = book[top : top + mask.shape[0]]
            area[:] = (area * (1 - mask) + np.asarray(colours[2]) * mask).astype(np.uint8)
        book[:, :1] = 10
        image[:, left:right] = book
    return image


def screen(rng: np.random.Generator, side: int = 512) -> Image:
    """A desktop with windows, code and a plot."""
    image = pictures.landscape(rng, side) // 2
    for _ in range(3):
        x, y = rng.integers(0, side // 2, 2).tolist()
        w, h = rng.integers(side // 3, side * 2 // 3, 2).tolist()
        dark = rng.uniform() < 0.6
        cv2.rectangle(image, (x, y), (x + w, y + h), (30, 33, 40) if dark else (240, 240, 242), -1)
        cv2.rectangle(image, (x, y), (x + w, y + side // 32), (70, 90, 120), -1)
        for line in range(y + side // 20, min(y + h, side) - 4, max(8, side // 40)):
            indent = x + side // 50 + int(rng.integers(0, 4)) * side // 40
            ink = [(120, 200, 140), (220, 170, 90), (130, 170, 240), (200, 200, 205)][int(rng.integers(4))]
            if not dark:
                ink = tuple(int(c * 0.5) for c in ink)
            end = indent + int(rng.uniform(0.1, 0.8) * w)
            cv2.rectangle(image, (indent, line), (min(end, x + w - 6), line + max(2, side // 100)), ink, -1)
    return image


def keyboard(side: int = 256) -> Image:
    """Keys seen from above."""
    image = np.full((side, side, 3), 36, np.uint8)
    for row in range(5):
        for column in range(15):
            x, y = int((column + 0.3 * (row % 2)) * side / 15.5), int(row * side / 5)
            cv2.rectangle(image, (x + 2, y + 6), (x + side // 15 - 3, y + side // 5 - 6), (92, 94, 98), -1)
    return image


def door(rng: np.random.Generator, colour: ArrayLike, side: int = 512) -> Image:
    """A panel door: four recessed panels on painted wood."""
    image = cv2.rotate(textures.wood(rng, colour, side), cv2.ROTATE_90_CLOCKWISE)
    plain = textures.painted(colour, 1 + 0.02 * textures.cloud(rng, side, 8, 5))
    image = (0.35 * image + 0.65 * plain).astype(np.uint8)
    for x0, x1 in ((0.12, 0.46), (0.54, 0.88)):
        for y0, y1 in ((0.08, 0.46), (0.56, 0.92)):
            a, b = (int(x0 * side), int(y0 * side)), (int(x1 * side), int(y1 * side))
            cv2.rectangle(image, a, b, (np.asarray(colour) * 0.6).tolist(), max(2, side // 70))
            cv2.rectangle(image, (a[0] + 5, a[1] + 5), b, (np.asarray(colour) * 1.12).clip(0, 255).tolist(), 2)
    return np.ascontiguousarray(image)


def window(rng: np.random.Generator, side: int = 512) -> Image:
    """A casement with the view behind it."""
    image = pictures.city(rng, side) if rng.uniform() < 0.5 else pictures.landscape(rng, side)
    bright = (np.clip(image * 1.15 + 18, 0, 255)).astype(np.uint8)
    frame = (236, 234, 230)
    cv2.rectangle(bright, (0, 0), (side - 1, side - 1), frame, side // 12)
    cv2.line(bright, (side // 2, 0), (side // 2, side), frame, side // 18)
    cv2.line(bright, (0, side // 3), (side, side // 3), frame, side // 26)
    for x in (side // 24, side - side // 24, side // 2 - side // 36, side // 2 + side // 36):
        cv2.line(bright, (x, 0), (x, side), (186, 184, 182), 1, cv2.LINE_AA)
    return bright


def fronts(rng: np.random.Generator, base: Image, columns: int, rows: int) -> Image:
    """Doors or drawers with gaps and handles, drawn on a surface."""
    image, side = base.copy(), base.shape[0]
    dark = (np.asarray(base.reshape(-1, 3).mean(axis=0)) * 0.35).tolist()
    w, h = side / columns, side / rows
    for column in range(columns):
        for row in range(rows):
            a, b = (int(column * w), int(row * h)), (int((column + 1) * w), int((row + 1) * h))
            cell = image[a[1] : b[1], a[0] : b[0]]
            cell[:] = np.clip(cell * rng.uniform(0.93, 1.06), 0, 255).astype(np.uint8)
            cv2.rectangle(image, a, b, dark, max(2, side // 110))
            inset = side // 45
            cv2.rectangle(
                image,
                (a[0] + inset, a[1] + inset),
                (b[0] - inset, b[1] - inset),
                (np.asarray(dark) * 2.2).clip(0, 255).tolist(),
                1,
            )
            x, y = int((column + 0.5) * w), int((row + 0.14) * h)
            cv2.line(
                image, (x - int(w * 0.14), y), (x + int(w * 0.14), y), (190, 190, 186), max(3, side // 90), cv2.LINE_AA
            )
            cv2.line(image, (x - int(w * 0.14), y + 4), (x + int(w * 0.14), y + 4), dark, 2, cv2.LINE_AA)
    return image


def carton(rng: np.random.Generator, side: int = 256) -> Image:
    """Cardboard with tape, a shipping label and handling marks."""
    tone = np.array([176, 134, 90]) * rng.uniform(0.8, 1.12)
    image = textures.painted(
        tone, 1 + 0.05 * textures.noise(rng, side, 3, side // 4) + 0.03 * textures.cloud(rng, side, 6, 4)
    )
    cv2.rectangle(image, (0, int(side * 0.46)), (side, int(side * 0.54)), (tone * 1.22).clip(0, 255).tolist(), -1)
    x, y = rng.uniform(0.08, 0.5, 2) * side
    w, h = rng.uniform(0.26, 0.42) * side, rng.uniform(0.18, 0.3) * side
    a, b = (int(x), int(y)), (int(x + w), int(y + h))
    cv2.rectangle(image, a, b, (242, 240, 236), -1)
    for k in range(a[0] + 5, b[0] - 5, 4):
        cv2.line(image, (k, a[1] + int(h * 0.55)), (k, b[1] - 4), (20, 20, 20), int(rng.integers(1, 4)))
    pictures.text(
        image,
        f"{rng.choice(pictures.WORDS)} {rng.integers(10, 99)}",
        a[0] + 4,
        a[1] + int(h * 0.4),
        int(w * 0.85),
        (20, 20, 24),
        pictures.FONTS[0],
    )
    spot = (int(side * rng.uniform(0.6, 0.85)), int(side * rng.uniform(0.65, 0.85)))
    cv2.arrowedLine(
        image,
        (spot[0], spot[1] + side // 10),
        (spot[0], spot[1] - side // 10),
        (60, 40, 26),
        max(2, side // 60),
        cv2.LINE_AA,
    )
    return image


def rug(rng: np.random.Generator, side: int = 512) -> Image:
    """A woven rug: borders, a medallion, strewn motifs, fringes of colour."""
    colours = pictures.palette(rng)
    image = np.full((side, side, 3), colours[0], np.uint8)
    for k, inset in enumerate((0.03, 0.06, 0.11, 0.14)):
        i = int(inset * side)
        cv2.rectangle(image, (i, i), (side - i, side - i), colours[1 + k % 4], -1 if k == 3 else max(4, side // 60))
    for _ in range(90):
        x, y = rng.integers(int(0.16 * side), int(0.84 * side), 2).tolist()
        r = int(rng.integers(side // 70, side // 28))
        corners = np.array([[x, y - r], [x + r, y], [x, y + r], [x - r, y]], np.int32)
        cv2.fillPoly(image, [corners], colours[int(rng.integers(5))])
    middle = side // 2
    for k in range(5, 0, -1):
        r = k * side // 22
        corners = np.array(
            [[middle, middle - 2 * r], [middle + r, middle], [middle, middle + 2 * r], [middle - r, middle]], np.int32
        )
        cv2.fillPoly(image, [corners], colours[k % 5])
    weave = 1 + 0.1 * textures.noise(rng, side, 8, side // 2) + 0.08 * textures.cloud(rng, side, 32, 3)
    return np.clip(image * weave[..., None], 0, 255).astype(np.uint8)
