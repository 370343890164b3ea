"""Furniture. Each piece stands in the builder's current frame: back at y = 0, front towards +y, floor at z = 0."""

from __future__ import annotations

import numpy as np

from mast3r_ros.lab.synthetic import fronts, pictures, textures
from mast3r_ros.lab.synthetic.layout import Layout
from mast3r_ros.lab.synthetic.world import Material


def _window_of(material: Material, left: float, width: float) -> Material:
    """A vertical strip of a picture."""
    return Material(
        material.texture, None, material.tint, material.emission, material.grain, False, (left, 0, width, 1)
    )


def books(room: Layout, x: float, y: float, z: float, width: float, height: float, depth: float) -> None:
    """A row of books from x to x + width, spines towards +y, in blocks of different height."""
    kind = int(room.rng.integers(2))
    spines = room.picture(f"spines {kind}", fronts.spines)
    paper = room.colour((226, 218, 198))
    end = x + width * room.uniform(0.6, 1.0)
    while x < end - 0.05:
        w = min(room.uniform(0.07, 0.24), end - x)
        h, d = height * room.uniform(0.68, 0.95), depth * room.uniform(0.7, 0.92)
        # One spine is about 3.2 cm; the texture holds forty of them.
        share = min(1.0, w / 0.032 / 40)
        strip = _window_of(spines, room.uniform(0, 1 - share), share)
        room.builder.box(
            (x + w / 2, y + d / 2, z + h / 2), (w, d, h), paper, faces={"+y": strip, "+x": strip, "-x": strip}
        )
        x += w + (room.uniform(0.0, 0.1) if room.chance(0.25) else 0.001)


def clutter(room: Layout, x: float, y: float, z: float) -> None:
    """One small thing that stands on something: a box, a tin, a vase, a plant, a ball."""
    build, kind = room.builder, int(room.rng.integers(5))
    red, green, blue = pictures.PALETTES[int(room.rng.integers(6))][int(room.rng.integers(5))]
    paint = room.colour((max(red, 40), max(green, 40), max(blue, 40)))
    label = room.picture(f"label {int(room.rng.integers(3))}", lambda rng: pictures.poster(rng, 256))
    if kind == 0:
        w, d, h = (room.uniform(0.08, 0.2) for _ in range(3))
        build.box((x, y, z + h / 2), (w, d, h), paint, yaw=room.uniform(-0.5, 0.5), faces={"+y": label})
    elif kind == 1:
        h = room.uniform(0.1, 0.17)
        build.cylinder((x, y, z + h / 2), h * 0.36, h, label, room.colour((190, 190, 190)))
    elif kind == 2:
        build.cylinder((x, y, z + 0.11), room.uniform(0.04, 0.07), 0.22, paint)
    elif kind == 3:
        plant(room, x, y, z, 0.32)
    else:
        d = room.uniform(0.09, 0.16)
        build.sphere((x, y, z + d / 2), (d, d, d), paint)


def plant(room: Layout, x: float, y: float, z: float, height: float) -> None:
    """A pot with a bush of leaves."""
    foliage = room.surface("leaves", textures.leaves, 0.35)
    pot = 0.34 * height
    room.builder.cylinder(
        (x, y, z + pot / 2), 0.17 * height, pot, room.colour((168, 96, 66)), room.colour((50, 36, 28))
    )
    for _ in range(5):
        size = height * room.uniform(0.3, 0.46)
        dx, dy, dz = room.uniform(-0.16, 0.16), room.uniform(-0.16, 0.16), room.uniform(0.5, 0.85)
        room.builder.sphere((x + dx * height, y + dy * height, z + dz * height), (size, size, size * 1.1), foliage)


def shelf(room: Layout, width: float, depth: float, height: float) -> None:
    """A bookcase: sides, back, boards, books and other things."""
    build, wood = room.builder, room.wood()
    upright = room.wood(vertical=True)
    thick = 0.022
    build.box((0, 0.01, height / 2), (width, 0.012, height), upright)
    for side in (-1, 1):
        build.box((side * (width - thick) / 2, depth / 2, height / 2), (thick, depth, height), upright)
    count = max(2, round(height / 0.36))
    for level in range(count + 1):
        z = 0.06 + level * (height - 0.06 - thick) / count
        build.box((0, depth / 2, z), (width - 2 * thick, depth, thick), wood)
        if level < count:
            inside, room_above = width - 2 * thick - 0.04, (height - 0.06) / count - thick
            if room.chance(0.78):
                books(room, -inside / 2, 0.03, z + thick / 2, inside, room_above, depth - 0.05)
            else:
                for x in np.arange(-inside / 2 + 0.12, inside / 2 - 0.1, 0.3):
                    clutter(room, float(x), depth / 2, z + thick / 2)


def table(room: Layout, width: float, depth: float, height: float = 0.75, things: int = 3, metal: bool = False) -> None:
    """A table top on four legs with a few things on it."""
    build = room.builder
    leg = room.colour((58, 60, 64)) if metal else room.wood(vertical=True)
    build.box((0, depth / 2, height - 0.018), (width, depth, 0.036), room.wood())
    for x in (-1, 1):
        for y in (0.05, depth - 0.05):
            build.box((x * (width / 2 - 0.05), y, (height - 0.036) / 2), (0.05, 0.05, height - 0.036), leg)
    for k in range(things):
        x = (k + 0.5) / things - 0.5
        clutter(room, x * width * 0.9, room.uniform(0.25, 0.75) * depth, height)


def chair(room: Layout, x: float, y: float, yaw: float) -> None:
    """A chair at x, y that looks along ``yaw`` (towards its table), relative to the current frame."""
    build = room.builder
    cloth = room.surface("cloth", lambda rng: textures.fabric(rng, room.style.accent), 0.4)
    wood = room.wood(vertical=True)
    c, s = np.cos(yaw), np.sin(yaw)

    def at(u: float, v: float, z: float) -> tuple[float, float, float]:
        return float(x + c * u - s * v), float(y + s * u + c * v), z

    build.box(at(0, 0, 0.45), (0.42, 0.42, 0.06), cloth, yaw=yaw)
    build.box(at(0, -0.2, 0.74), (0.4, 0.03, 0.34), cloth, yaw=yaw)
    for u in (-0.18, 0.18):
        build.box(at(u, 0.18, 0.21), (0.035, 0.035, 0.42), wood, yaw=yaw)
        build.box(at(u, -0.2, 0.44), (0.035, 0.035, 0.88), wood, yaw=yaw)


def cabinet(room: Layout, width: float, depth: float, height: float, columns: int, rows: int, things: int = 3) -> None:
    """A sideboard, dresser or wardrobe with painted or wooden fronts."""
    wooden = room.chance(0.5)
    key = f"fronts {columns}x{rows} {wooden}"

    def make(rng: np.random.Generator) -> np.ndarray:
        base = textures.wood(rng, room.style.wood) if wooden else textures.metal(rng, room.style.front)
        return fronts.fronts(rng, base, columns, rows)

    body = room.wood() if wooden else room.colour(room.style.front)
    room.builder.box(
        (0, depth / 2, height / 2 + 0.03), (width, depth, height - 0.06), body, faces={"+y": room.picture(key, make)}
    )
    room.builder.box((0, depth / 2 - 0.03, 0.03), (width - 0.06, depth - 0.08, 0.06), room.colour((50, 46, 42)))
    room.builder.box((0, depth / 2, height + 0.01), (width + 0.02, depth + 0.02, 0.025), room.wood())
    for k in range(things):
        clutter(room, ((k + 0.5) / things - 0.5) * width * 0.9, depth * room.uniform(0.3, 0.7), height + 0.0225)


def sofa(room: Layout, width: float) -> None:
    """A sofa 0.9 m deep with cushions."""
    build = room.builder
    cloth = room.surface("sofa", lambda rng: textures.fabric(rng, room.style.accent), 0.6)
    other = room.surface("cushion", lambda rng: fronts.rug(rng, 256), 0.45)
    build.box((0, 0.45, 0.21), (width, 0.86, 0.3), cloth)
    build.box((0, 0.13, 0.5), (width, 0.22, 0.6), cloth, tilt=0.08)
    for side in (-1, 1):
        build.box((side * (width / 2 - 0.09), 0.47, 0.32), (0.18, 0.86, 0.52), cloth)
    seats = 3 if width > 1.9 else 2
    seat = (width - 0.4) / seats
    for k in range(seats):
        x = (k + 0.5) * seat - (width - 0.4) / 2
        build.box((x, 0.56, 0.42), (seat - 0.02, 0.62, 0.14), cloth)
        if room.chance(0.7):
            build.box((x, 0.33, 0.66), (0.42, 0.12, 0.4), other, tilt=0.3, yaw=room.uniform(-0.2, 0.2))


def desk(room: Layout, width: float, screens: int) -> None:
    """An office desk 0.75 m deep with monitors, keyboard, papers and a chair in front."""
    build = room.builder
    table(room, width, 0.75, 0.73, things=0, metal=True)
    black = room.colour((34, 35, 38))
    for k in range(screens):
        x = (k - (screens - 1) / 2) * 0.62
        shown = room.picture(f"screen {int(room.rng.integers(3))}", fronts.screen, emission=0.8)
        turn = -0.16 * (k - (screens - 1) / 2)
        build.box((x, 0.22, 0.73 + 0.33), (0.58, 0.03, 0.35), black, yaw=turn)
        front = (x + 0.017 * np.sin(-turn), 0.22 + 0.017 * np.cos(turn), 1.06)
        build.box(front, (0.55, 0.004, 0.32), black, yaw=turn, faces={"+y": shown})
        build.cylinder((x, 0.19, 0.73 + 0.08), 0.025, 0.16, black)
        build.cylinder((x, 0.2, 0.738), 0.11, 0.014, black)
    keys = room.picture("keyboard", lambda rng: fronts.keyboard())
    build.box((0, 0.52, 0.745), (0.44, 0.15, 0.025), black, faces={"+z": keys})
    page = room.picture("page", pictures.notice)
    for x in (-0.32, 0.36):
        build.box((x * width, room.uniform(0.35, 0.5), 0.732), (0.21, 0.297, 0.004), page, yaw=room.uniform(-0.5, 0.5))
    clutter(room, -0.42 * width, 0.2, 0.73)
    drawers = room.picture("drawers", lambda rng: fronts.fronts(rng, textures.metal(rng, room.style.front), 1, 3))
    build.box((0.36 * width, 0.4, 0.3), (0.4, 0.6, 0.56), room.colour(room.style.front), faces={"+y": drawers})
    chair(room, room.uniform(-0.2, 0.1), 0.95, np.pi + room.uniform(-0.5, 0.5))


def counter(room: Layout, width: float, sink: bool = True) -> None:
    """A kitchen counter 0.9 m high, 0.6 m deep, with wall units, a splashback, hob and sink."""
    build = room.builder
    columns = max(2, round(width / 0.6))
    front = room.picture(
        f"kitchen {columns}", lambda rng: fronts.fronts(rng, textures.wood(rng, room.style.front), columns, 1)
    )
    stone = room.surface("stone", lambda rng: textures.concrete(rng, (96, 94, 96), 512), 1.1)
    splash = room.surface("splash", lambda rng: textures.tiles(rng, room.style.accent, 8, 512, 0.1), 0.9)
    paint = room.colour(room.style.front)
    build.box((0, 0.29, 0.49), (width, 0.58, 0.78), paint, faces={"+y": front})
    build.box((0, 0.26, 0.05), (width, 0.5, 0.1), room.colour((44, 42, 40)))
    build.box((0, 0.31, 0.89), (width, 0.62, 0.04), stone)
    build.box((0, 0.006, 1.18), (width, 0.012, 0.54), splash)
    build.box((0, 0.17, 1.8), (width, 0.34, 0.7), paint, faces={"+y": front})
    black = room.colour((28, 28, 30))
    build.box((-width * 0.28, 0.32, 0.914), (0.56, 0.5, 0.008), black)
    for dx, dy in ((-0.14, -0.11), (0.14, -0.11), (-0.14, 0.11), (0.14, 0.11)):
        build.cylinder((-width * 0.28 + dx, 0.32 + dy, 0.92), 0.085, 0.006, room.colour((64, 60, 60)))
    if room.chance(0.7):
        build.cylinder((-width * 0.28 - 0.14, 0.21, 0.99), 0.1, 0.14, room.colour((150, 60, 50)))
    if sink:
        build.box((width * 0.22, 0.33, 0.912), (0.5, 0.4, 0.006), room.colour((176, 178, 180)))
        build.cylinder((width * 0.22, 0.1, 1.04), 0.018, 0.26, room.colour((200, 200, 204)))
    for x in np.arange(-width / 2 + 0.15, width / 2 - 0.1, 0.42):
        if room.chance(0.6):
            clutter(room, float(x), room.uniform(0.12, 0.2), 0.91)


def fridge(room: Layout) -> None:
    """A fridge 0.6 x 0.62 x 1.8 m with notes on its door."""
    white = room.colour((214, 216, 218))
    front = room.picture("fridge", lambda rng: fronts.fronts(rng, textures.metal(rng, (216, 218, 220)), 1, 2))
    room.builder.box((0, 0.31, 0.91), (0.6, 0.62, 1.78), white, faces={"+y": front})
    for _ in range(4):
        x, z = room.uniform(-0.2, 0.2), room.uniform(0.9, 1.6)
        page = room.picture(f"note {int(room.rng.integers(3))}", lambda rng: pictures.notice(rng, 256))
        room.builder.box((x, 0.623, z), (0.14, 0.004, 0.19), page)


def rack(room: Layout, width: float, depth: float, height: float, levels: int, same: bool = False) -> None:
    """A pallet rack: posts, beams, cartons. ``same`` loads every bay alike (repeated structure)."""
    build = room.builder
    post, beam = room.colour((44, 78, 128)), room.colour((214, 106, 38))
    grey = room.surface("board", lambda rng: textures.wood(rng, (150, 132, 108)), 0.9)
    for x in np.linspace(-width / 2, width / 2, max(2, round(width / 2.4) + 1)):
        for y in (0.04, depth - 0.04):
            build.box((x, y, height / 2), (0.08, 0.08, height), post)
    for level in range(levels):
        z = 0.12 + level * (height - 0.2) / levels
        for y in (0.04, depth - 0.04):
            build.box((0, y, z), (width, 0.05, 0.11), beam)
        build.box((0, depth / 2, z + 0.065), (width, depth - 0.05, 0.02), grey)
        x = -width / 2 + 0.1
        while x < width / 2 - 0.4:
            w = 0.6 if same else room.uniform(0.3, 0.75)
            if same or room.chance(0.85):
                tall = (height - 0.2) / levels - 0.22
                load(
                    room,
                    x + w / 2,
                    depth / 2,
                    z + 0.075,
                    w - 0.04,
                    depth * 0.8,
                    tall * (0.8 if same else room.uniform(0.4, 0.95)),
                    same,
                )
            x += w


def load(
    room: Layout, x: float, y: float, z: float, width: float, depth: float, height: float, same: bool = False
) -> None:
    """One carton."""
    kind = 0 if same else int(room.rng.integers(8))
    face = room.picture(f"carton {kind}", fronts.carton)
    room.builder.box(
        (x, y, z + height / 2), (width, depth, height), face, yaw=0.0 if same else room.uniform(-0.06, 0.06)
    )


def lamp(room: Layout, size: tuple[float, float], height: float, power: float, warm: float = 0.6) -> None:
    """A ceiling panel in the current frame's x, y that shines down from ``height``."""
    glow = room.colour((255, 250, 240))
    glow = Material(glow.texture, glow.metres, (1.0, 0.97, 0.9), 1.6, 0.0)
    room.builder.box((0, 0, height - 0.03), (*size, 0.05), room.colour((210, 210, 210)), faces={"-z": glow})
    colour = power * np.array([1.0, 1 - 0.16 * warm, 1 - 0.36 * warm])
    room.builder.light((0, 0, height - 0.06), (size[0] / 2, 0, 0), (0, size[1] / 2, 0), (0, 0, -1), colour)


def window(
    room: Layout, wall: str, along: float, width: float, power: float, low: float = 0.85, height: float = 1.35
) -> bool:
    """A window on a wall with daylight behind it."""
    if not room.reserve_wall(wall, along, low, width + 0.1, height + 0.1):
        return False
    x, y, _, yaw = room.wall_frame(wall, along)
    room.builder.at(x, y, 0.0, yaw, "window")
    view = room.picture(f"window {int(room.rng.integers(2))}", fronts.window, emission=1.1)
    z = low + height / 2 + 0.05
    room.builder.box((0, 0.005, z), (width, 0.03, height), room.colour((232, 232, 228)), faces={"+y": view})
    room.builder.box((0, 0.07, low + 0.02), (width + 0.12, 0.16, 0.03), room.colour((228, 226, 220)))
    room.builder.light(
        (0, 0.05, z), (width / 2, 0, 0), (0, 0, height / 2), (0, 1, 0), power * np.array([0.86, 0.95, 1.0])
    )
    return True


def door(room: Layout, wall: str, along: float, key: str = "door", swing: float = 0.8) -> bool:
    """A door of 0.9 x 2.0 m in its frame; the floor in front of it stays free."""
    x, y, _, yaw = room.wall_frame(wall, along)
    if not room.reserve_wall(wall, along, 0.0, 1.06, 2.08):
        return False
    room.reserve_floor(x - np.sin(yaw) * swing / 2, y + np.cos(yaw) * swing / 2, 0.9, swing, yaw)
    room.builder.at(x, y, 0.0, yaw, "door")
    leaf = room.picture(key, lambda rng: fronts.door(rng, room.style.front))
    frame = room.colour((224, 220, 212))
    room.builder.box((0, 0.02, 1.0), (0.9, 0.04, 2.0), frame, faces={"+y": leaf})
    for side in (-1, 1):
        room.builder.box((side * 0.49, 0.03, 1.02), (0.08, 0.06, 2.04), frame)
    room.builder.box((0, 0.03, 2.04), (1.06, 0.06, 0.08), frame)
    room.builder.box((0.36, 0.07, 1.03), (0.13, 0.025, 0.02), room.colour((176, 176, 172)))
    room.builder.box((0.41, 0.05, 1.03), (0.03, 0.06, 0.02), room.colour((176, 176, 172)))
    return True
