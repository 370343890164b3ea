"""Procedural surfaces: plaster, wood, tiles, bricks, fabric, concrete.

Images (S, S, 3) uint8 that repeat seamlessly.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Grey = NDArray[np.floating]
Colour = ArrayLike


def noise(rng: np.random.Generator, side: int, cells_x: int, cells_y: int) -> Grey:
    """Smooth periodic value noise (side, side), mean 0, about -1..1, with the given number of bumps across."""
    grid = rng.uniform(-1, 1, (min(cells_y, side), min(cells_x, side))).astype(np.float32)
    pad = 2
    wrapped = np.pad(grid, pad, mode="wrap")
    sx, sy = side / grid.shape[1], side / grid.shape[0]
    size = (round(wrapped.shape[1] * sx), round(wrapped.shape[0] * sy))
    big = cv2.resize(wrapped, size, interpolation=cv2.INTER_CUBIC)
    x, y = round(pad * sx), round(pad * sy)
    return np.ascontiguousarray(big[y : y + side, x : x + side])


def cloud(rng: np.random.Generator, side: int, cells: int, octaves: int, fall: float = 0.6) -> Grey:
    """Several octaves of :func:`noise`, scaled to unit deviation."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        n = cells << octave
        if n > side // 2:
            break
        total += fall**octave * noise(rng, side, n, n)
    return total / max(float(total.std()), 1e-6)


def painted(colour: Colour, value: Grey) -> Image:
    """A colour (3,) in 0..255 times a brightness (S, S)."""
    return np.clip(np.asarray(colour, np.float32) * value[..., None], 0, 255).astype(np.uint8)


def grain(side: int = 512) -> Image:
    """The fine grain that all materials share: the same in every world."""
    rng = np.random.default_rng(7)
    value = 0.85 * cloud(rng, side, 40, 4, 0.9) + 0.15 * cloud(rng, side, 6, 2)
    return painted((127, 127, 127), 1 + 0.33 * value)


def flat(colour: Colour, side: int = 16) -> Image:
    """One colour without any detail."""
    return painted(colour, np.ones((side, side), np.float32))


def plaster(rng: np.random.Generator, colour: Colour, side: int = 1024) -> Image:
    """A painted wall: clouds, trowel marks, specks, a few scuffs and cracks."""
    value = 1 + 0.018 * cloud(rng, side, 3, 5) + 0.012 * cloud(rng, side, 48, 3)
    marks = np.zeros((side, side), np.float32)
    for _ in range(70):
        centre = rng.integers(0, side, 2)
        axes = (int(rng.integers(2, side // 28)), int(rng.integers(1, side // 90)))
        cv2.ellipse(
            marks,
            centre.tolist(),
            axes,
            float(rng.uniform(0, 180)),
            0,
            360,
            float(rng.normal(0, 0.05)),
            -1,
            cv2.LINE_AA,
        )
    marks = cv2.GaussianBlur(marks, (0, 0), 1.5)
    for _ in range(1500):
        size = max(1, int(rng.exponential(side / 600)))
        shape = (size, max(1, int(size * rng.uniform(0.4, 1.0))))
        tone = float(rng.choice([-0.11, -0.07, 0.06]))
        cv2.ellipse(
            marks, rng.integers(0, side, 2).tolist(), shape, float(rng.uniform(0, 180)), 0, 360, tone, -1, cv2.LINE_AA
        )
    for _ in range(5):
        steps = np.cumsum(rng.normal(0, 1, (40, 2)) * side / 130 + rng.normal(0, side / 300, 2), axis=0)
        line = (rng.integers(0, side, 2) + steps).astype(np.int32)
        cv2.polylines(marks, [line], False, -0.16, 1, cv2.LINE_AA)
    return painted(colour, value + marks)


def wallpaper(rng: np.random.Generator, colour: Colour, side: int = 1024) -> Image:
    """A printed wall paper: faint stripes, and leaves and dots strewn without repetition."""
    value = 1 + 0.012 * cloud(rng, side, 4, 4)
    image = painted(colour, value).astype(np.float32)
    count = int(rng.choice([0, 12, 20, 28]))
    if count:
        x = np.arange(side) * count // side % 2
        image *= (1 - 0.05 * x)[None, :, None]
    base = np.asarray(colour, np.float32)
    inks = [base * rng.uniform(0.62, 0.86), base * rng.uniform(0.8, 0.95), 255 - (255 - base) * 0.4]
    canvas = image.astype(np.uint8)
    for _ in range(int(rng.integers(160, 320))):
        ink = inks[int(rng.integers(len(inks)))].tolist()
        centre, angle = rng.integers(0, side, 2), rng.uniform(0, 360)
        length = rng.uniform(0.006, 0.02) * side
        for leaf in range(int(rng.integers(1, 5))):
            turn = np.radians(angle + 55 * leaf)
            middle = centre + length * np.array([np.cos(turn), np.sin(turn)])
            axes = (int(length * 0.9), int(length * 0.35))
            cv2.ellipse(
                canvas, middle.astype(int).tolist(), axes, float(np.degrees(turn)), 0, 360, ink, -1, cv2.LINE_AA
            )
    return canvas


def wood(rng: np.random.Generator, colour: Colour, side: int = 512) -> Image:
    """Wood with its grain along the image's x axis."""
    warp = 0.6 * noise(rng, side, 2, 6) + 0.25 * noise(rng, side, 4, 12)
    y = np.linspace(0, 1, side, endpoint=False, dtype=np.float32)[:, None]
    rings = np.sin(2 * np.pi * (rng.integers(5, 10) * y + warp))
    fibres = noise(rng, side, 6, side // 3) + 0.6 * noise(rng, side, 16, side // 2)
    value = 1 + 0.09 * rings + 0.10 * fibres + 0.05 * noise(rng, side, 2, 3)
    pores = (noise(rng, side, 24, side // 2) > 0.72).astype(np.float32)
    image = painted(colour, value * (1 - 0.22 * pores))
    for _ in range(int(rng.integers(0, 4))):
        _knot(image, rng, side)
    return image


def _knot(image: Image, rng: np.random.Generator, side: int) -> None:
    centre = rng.integers(side // 8, side * 7 // 8, 2).tolist()
    size = float(rng.uniform(0.012, 0.03) * side)
    for k in range(5, 0, -1):
        axes = (max(1, int(size * k * 0.5)), max(1, int(size * k * 0.26)))
        ink = (np.asarray(image[centre[1], centre[0]], np.float32) * (0.55 + 0.08 * k)).tolist()
        cv2.ellipse(image, centre, axes, 0, 0, 360, ink, 1 if k > 1 else -1, cv2.LINE_AA)


def planks(rng: np.random.Generator, colour: Colour, side: int = 1024, rows: int = 16) -> Image:
    """A floor of boards along x, each cut from another piece of wood."""
    sheets = [wood(rng, colour, 512) for _ in range(3)]
    image = np.zeros((side, side, 3), np.uint8)
    height = side // rows
    for row in range(rows):
        x = int(rng.integers(0, side))
        for length in np.diff([0, *np.sort(rng.uniform(0.25, 0.75, 2)) * side, side]).astype(int):
            sheet = sheets[int(rng.integers(len(sheets)))]
            top = int(rng.integers(0, 512 - height))
            board = np.tile(sheet[top : top + height], (1, 3, 1))[:, :length].astype(np.float32) * rng.uniform(
                0.78, 1.12
            )
            board[:2] *= 0.55
            board[:, :2] *= 0.5
            columns = (x + np.arange(board.shape[1])) % side
            image[row * height : (row + 1) * height, columns] = np.clip(board, 0, 255).astype(np.uint8)
            x += length
    return image


def tiles(rng: np.random.Generator, colour: Colour, count: int = 8, side: int = 1024, variety: float = 0.08) -> Image:
    """Square tiles with joints; ``variety`` makes each differ in brightness and marbling."""
    step = side // count
    value = np.kron(1 + variety * rng.normal(0, 1, (count, count)), np.ones((step, step))).astype(np.float32)
    if variety:
        veins = np.abs(cloud(rng, side, 5, 5))
        value -= 0.28 * np.exp(-((veins / 0.09) ** 2)) * (variety / 0.08)
        value += 0.03 * cloud(rng, side, 12, 4)
    image = painted(colour, value).astype(np.float32)
    x = np.arange(side) % step
    joint = np.minimum(x, step - 1 - x) < max(1, step // 48)
    image[joint[:, None] | joint[None, :]] *= 0.55
    return image.astype(np.uint8)


def bricks(rng: np.random.Generator, colour: Colour, side: int = 1024, rows: int = 24) -> Image:
    """A brick wall in stretcher bond."""
    height, width = side // rows, side // (rows // 3)
    mortar = painted((176, 170, 160), 1 + 0.06 * cloud(rng, side, 40, 4))
    rough = 1 + 0.07 * cloud(rng, side, 24, 5)
    image = mortar.copy()
    for row in range(side // height):
        for column in range(side // width):
            x = column * width + (row % 2) * width // 2
            tone = np.asarray(colour) * rng.uniform(0.7, 1.2) + rng.normal(0, 4, 3)
            gap = max(1, height // 12)
            rows_ = slice(row * height + gap, (row + 1) * height - gap)
            columns = (np.arange(x + gap, x + width - gap)) % side
            image[rows_, columns] = np.clip(tone * rough[rows_, columns][..., None], 0, 255).astype(np.uint8)
    return image


def concrete(rng: np.random.Generator, colour: Colour = (150, 148, 144), side: int = 1024) -> Image:
    """Cast concrete: clouds, pores, stains, joints at the edges."""
    value = 1 + 0.06 * cloud(rng, side, 2, 7) + 0.03 * cloud(rng, side, 64, 3)
    canvas = painted(colour, value)
    for _ in range(420):
        radius = max(1, int(rng.exponential(side / 500)))
        ink = (np.asarray(colour) * rng.uniform(0.45, 0.8)).tolist()
        cv2.circle(canvas, rng.integers(0, side, 2).tolist(), radius, ink, -1, cv2.LINE_AA)
    canvas[:2], canvas[:, :2] = canvas[:2] // 2, canvas[:, :2] // 2
    return canvas


def fabric(rng: np.random.Generator, colour: Colour, side: int = 512) -> Image:
    """Woven cloth with a coarse melange."""
    yarn = noise(rng, side, 8, side // 3) + noise(rng, side, side // 3, 8)
    return painted(colour, 1 + 0.10 * yarn + 0.07 * cloud(rng, side, 24, 4))


def carpet(rng: np.random.Generator, colour: Colour, side: int = 1024) -> Image:
    """Loop pile in carpet tiles of slightly different tone, flecked with a second colour."""
    flecks = cloud(rng, side, 150, 2)[..., None] > 1.35
    tone = np.kron(rng.uniform(0.93, 1.07, (8, 8)), np.ones((side // 8, side // 8))).astype(np.float32)
    image = painted(colour, tone * (1 + 0.09 * cloud(rng, side, 128, 3) + 0.03 * cloud(rng, side, 6, 3)))
    second = np.clip(np.asarray(colour) * 1.22 + 10, 0, 255).astype(np.uint8)
    return np.where(flecks, second, image)


def metal(rng: np.random.Generator, colour: Colour, side: int = 512) -> Image:
    """Painted or brushed sheet metal with scratches."""
    image = painted(colour, 1 + 0.04 * noise(rng, side, 4, side // 2) + 0.03 * cloud(rng, side, 4, 4))
    for _ in range(40):
        start = rng.integers(0, side, 2)
        end = start + rng.normal(0, side / 16, 2)
        ink = (np.asarray(colour) * rng.choice([0.6, 1.3])).tolist()
        cv2.line(image, start.tolist(), end.astype(int).tolist(), ink, 1, cv2.LINE_AA)
    return image


def leaves(rng: np.random.Generator, side: int = 256) -> Image:
    """Foliage: overlapping leaves from dark to light."""
    image = np.full((side, side, 3), (18, 34, 16), np.uint8)
    for k in range(420):
        tone = 0.35 + 0.75 * k / 420
        ink = (np.array([70, 130, 52]) * tone * rng.uniform(0.75, 1.15) + rng.normal(0, 6, 3)).clip(0, 255).tolist()
        axes = (int(rng.uniform(0.03, 0.07) * side), int(rng.uniform(0.01, 0.022) * side))
        cv2.ellipse(
            image, rng.integers(0, side, 2).tolist(), axes, float(rng.uniform(0, 360)), 0, 360, ink, -1, cv2.LINE_AA
        )
    return image
