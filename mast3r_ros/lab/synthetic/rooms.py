"""Families of rooms. A family and a seed give the same room on every machine, texel by texel.

Homes and work places: ``living``, ``office``, ``kitchen``, ``corridor``, ``warehouse``.
Stress: ``textureless`` (paint only), ``repeated`` (identical quarters under a half turn), ``planar`` (all there is to
see lies on one wall), ``glass`` (a home with mirrors on two walls and a pane across the room), ``doors`` (a corridor of
equal doors, lamps and tiles, with a few pictures).
Outdoors: ``street`` (a street or a yard between facades, 16 to 90 m).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from mast3r_ros.errors import UserError
from mast3r_ros.lab.synthetic import fronts, furniture, heaps, outdoors, people, pictures, textures
from mast3r_ros.lab.synthetic.layout import WALLS, Layout
from mast3r_ros.lab.synthetic.lighting import LightingSettings, lit
from mast3r_ros.lab.synthetic.photographs import open_photographs
from mast3r_ros.lab.synthetic.world import Material, World


@dataclass(frozen=True)
class RoomSettings:
    """How a room is made.

    Attributes:
        clutter: how full it is; 1 is usual, 0 leaves only what belongs to the walls.
        lighting: how its light is computed.
        light: brightness of the lamps against the light of a usual evening; below 0.2 it is night.
        device: where the light maps are computed; the room itself comes back on the CPU.
        make: rooms of one make share colours, wallpapers, floors, doors and furniture, but not what people bring
            in; None: every seed has its own.
        twin: twins of one make and seed are the same room to the last chair, with other pictures, books, screens and
            rugs, and of other pieces of wood, plaster and cloth.
        visitors: people in the middle of the room, named ``visitor 1`` ..., there to be moved or carried away.
        photographs: pack of scripts/training_pictures.py whose images take the place of drawn ones; rooms are then
            full of odd things as well (:mod:`mast3r_ros.lab.synthetic.heaps`).
    """

    clutter: float = 1.0
    lighting: LightingSettings = LightingSettings()
    light: float = 1.0
    device: str | torch.device = "cpu"
    make: int | None = None
    twin: int = 0
    visitors: int = 0
    photographs: str = ""

    def layout(self, rng: np.random.Generator, size: tuple[float, float, float], plain: bool = False) -> Layout:
        """An empty room of this make."""
        return Layout(rng, size, plain, self.make, self.twin, open_photographs(self.photographs))


def make_room(family: str, seed: int, settings: RoomSettings | None = None) -> World:
    """A furnished, lit room.

    Args:
        family: one of :data:`FAMILIES`.
        seed: of everything random in it.

    Raises:
        UserError: for a family that does not exist.
    """
    if family not in FAMILIES:
        raise UserError(f"there is no family of rooms called '{family}': use one of {', '.join(FAMILIES)}")
    settings = settings or RoomSettings()
    rng = np.random.default_rng([seed, *family.encode()])
    layout = FAMILIES[family](rng, settings)
    if settings.photographs:
        heaps.strew(layout, settings.clutter)
    for _ in range(settings.visitors):
        layout.builder.at(0.0, 0.0, name="visitor")
        people.visitor(layout)
    world = layout.builder.build(layout.size, family, seed)
    world = lit(world.to(settings.device), settings.lighting).to("cpu")
    if settings.light != 1.0:
        # The camera's exposure was set for a usual evening and stays.
        world = World(**{**world.__dict__, "exposure": world.exposure * settings.light})
    return world


def _size(
    rng: np.random.Generator, length: tuple[float, float], width: tuple[float, float], height: tuple[float, float]
) -> tuple[float, float, float]:
    return float(rng.uniform(*length)), float(rng.uniform(*width)), float(rng.uniform(*height))


def _shell(room: Layout, floor: Material, walls: list[Material], ceiling: Material | None = None) -> None:
    """The room itself with skirting boards; ``walls`` are used in turn."""
    paint = ceiling or room.surface("ceiling", lambda rng: textures.plaster(rng, (236, 234, 230)), 5.0)
    faces = {name: walls[k % len(walls)] for k, name in enumerate(("+x", "-x", "+y", "-y"))}
    room.builder.shell(room.size, faces | {"-z": floor, "+z": paint})
    board = room.colour((222, 218, 210))
    for wall in WALLS:
        room.builder.at(*room.wall_frame(wall, 0.0))
        room.builder.box((0, 0.006, 0.04), (room.wall_length(wall), 0.012, 0.08), board)


def _papered(room: Layout) -> list[Material]:
    """Two kinds of walls: painted or papered, perhaps one of brick."""
    colour = room.style.wall
    plain = room.surface("plaster", lambda rng: textures.plaster(rng, colour), 3.6)
    other = room.rng.choice(3)
    if other == 0:
        return [plain, room.surface("paper", lambda rng: textures.wallpaper(rng, np.asarray(colour) * 0.94), 2.6)]
    if other == 1:
        return [plain, plain, plain, room.surface("brick", lambda rng: textures.bricks(rng, (168, 92, 70)), 1.9)]
    second = np.asarray(room.style.accent) * 0.45 + np.asarray(colour) * 0.55
    return [plain, plain, room.surface("plaster 2", lambda rng: textures.plaster(rng, second), 3.6)]


def _floor(room: Layout) -> Material:
    """Boards, tiles or carpet."""
    kind = room.rng.choice(4)
    if kind < 2:
        return room.surface("floor", lambda rng: textures.planks(rng, room.style.floor), 2.4)
    if kind == 2:
        return room.surface("floor", lambda rng: textures.tiles(rng, (188, 180, 168)), 3.2)
    return room.surface("floor", lambda rng: textures.carpet(rng, np.asarray(room.style.accent) * 0.5 + 60), 4.0)


def _openings(room: Layout, windows: int, doors: int, daylight: float) -> None:
    for k in range(doors):
        for _ in range(20):
            wall = list(WALLS)[int(room.rng.integers(4))]
            if furniture.door(room, wall, room.uniform(-0.5, 0.5) * (room.wall_length(wall) - 1.4), f"door {k % 2}"):
                break
    for _ in range(windows):
        for _ in range(20):
            wall = list(WALLS)[int(room.rng.integers(4))]
            along = room.uniform(-0.5, 0.5) * max(room.wall_length(wall) - 2.2, 0)
            if furniture.window(room, wall, along, room.uniform(1.0, 1.7), daylight):
                break


def _pictures(room: Layout, count: int, low: float = 1.1) -> None:
    """Pictures and posters on free walls, each different."""
    for k in range(count):
        width = room.uniform(0.45, 1.0)
        height = width * float(room.rng.choice([0.75, 1.0, 1.35]))
        height = min(height, room.size[2] - low - 0.3)
        if room.on_wall("picture", width, height, low + room.uniform(-0.1, 0.25)):
            shown = room.picture(f"picture {k}", pictures.picture)
            room.builder.box((0, 0.012, 0), (width, 0.024, height), room.colour((60, 50, 44)), faces={"+y": shown})


def _lamps(room: Layout, columns: int, rows: int, size: tuple[float, float], power: float, warm: float) -> None:
    for x in (np.arange(columns) + 0.5) / columns - 0.5:
        for y in (np.arange(rows) + 0.5) / rows - 0.5:
            room.builder.at(float(x) * room.size[0], float(y) * room.size[1], name="lamp")
            furniture.lamp(room, size, room.size[2], power / (columns * rows), warm)


def _living(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, _size(rng, (4.6, 6.2), (3.8, 5.0), (2.4, 2.8)))
    _furnish_living(room, settings)
    return room


def _furnish_living(room: Layout, settings: RoomSettings) -> None:
    _shell(room, _floor(room), _papered(room))
    _openings(room, windows=int(room.rng.integers(1, 3)), doors=1, daylight=5.0)
    if settings.clutter > 0:
        if room.at_wall("sofa", width := room.uniform(1.7, 2.3), 0.92, 0.85):
            furniture.sofa(room, width)
        for _ in range(round(2 * settings.clutter)):
            width, height = room.uniform(0.8, 1.4), room.uniform(1.5, 2.1)
            if room.at_wall("shelf", width, 0.32, height):
                furniture.shelf(room, width, 0.32, height)
        for columns, rows, height in ((3, 1, 0.75), (2, 3, 0.95), (2, 1, 1.95)):
            width = room.uniform(0.9, 1.5)
            if room.chance(settings.clutter * 0.85) and room.at_wall("cabinet", width, 0.42, height):
                furniture.cabinet(room, width, 0.42, height, columns, rows, 0 if height > 1.5 else 3)
        if room.on_floor("table", 1.1, 0.65, gap=0.55, margin=0.9):
            furniture.table(room, 1.1, 0.6, 0.45)
        if room.chance(0.6 * settings.clutter) and room.at_wall("plant", 0.5, 0.5, 1.3):
            furniture.plant(room, 0, 0.25, 0, 1.2)
    room.builder.at(room.uniform(-0.4, 0.4), room.uniform(-0.3, 0.3), yaw=room.uniform(-0.1, 0.1), name="rug")
    rug = room.picture("rug", fronts.rug)
    room.builder.box(
        (0, 0, 0.006),
        (room.uniform(1.8, 2.4), room.uniform(1.2, 1.6), 0.012),
        room.colour((90, 70, 60)),
        faces={"+z": rug},
    )
    _pictures(room, round(5 + 8 * settings.clutter))
    _lamps(room, 2, 1, (0.5, 0.5), 9.0, 0.7)


def _office(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, _size(rng, (5.0, 8.0), (4.2, 6.0), (2.6, 3.0)))
    carpet = room.surface("floor", lambda r: textures.carpet(r, np.asarray(room.style.accent) * 0.4 + 50), 4.0)
    panels = room.surface("ceiling", lambda r: textures.tiles(r, (228, 228, 224), 4, 1024, 0.015), 2.4)
    _shell(room, carpet, _papered(room), panels)
    _openings(room, windows=2, doors=1, daylight=6.0)
    for _ in range(round(4 * settings.clutter)):
        width = room.uniform(1.4, 1.8)
        if room.at_wall("desk", width, 1.3, 1.3):
            furniture.desk(room, width, int(room.rng.integers(1, 3)))
    for _ in range(round(3 * settings.clutter)):
        width, height = room.uniform(0.8, 1.2), room.uniform(1.2, 2.1)
        if room.at_wall("shelf", width, 0.35, height):
            furniture.shelf(room, width, 0.35, height)
    if room.chance(settings.clutter) and room.at_wall("cabinet", 0.9, 0.45, 1.2):
        furniture.cabinet(room, 0.9, 0.45, 1.2, 2, 4, 2)
    if room.chance(0.7 * settings.clutter) and room.on_floor("table", 1.6, 1.0, gap=0.7, margin=1.2):
        furniture.table(room, 1.5, 0.9, 0.74, 4, metal=True)
    if room.chance(0.7) and room.on_wall("board", 1.8, 1.1, 0.95):
        board = room.picture("board", lambda r: pictures.notice(r, 1024))
        room.builder.box((0, 0.015, 0), (1.8, 0.03, 1.1), room.colour((200, 200, 200)), faces={"+y": board})
    _pictures(room, round(5 + 8 * settings.clutter))
    _lamps(room, 2, 2, (0.6, 0.6), 14.0, 0.15)
    return room


def _kitchen(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, _size(rng, (4.0, 5.5), (3.4, 4.4), (2.4, 2.7)))
    stone = room.surface("floor", lambda r: textures.tiles(r, (176, 160, 140)), 2.6)
    _shell(room, stone if room.chance(0.6) else _floor(room), _papered(room))
    wall = list(WALLS)[int(rng.integers(4))]
    length = room.wall_length(wall)
    run = min(length - 0.8, 3.6)
    if room.put_at_wall("counter", wall, -(length - run) / 2 + 0.06, run, 0.62, 2.2):
        furniture.counter(room, run)
    if room.put_at_wall("fridge", wall, length / 2 - 0.36, 0.6, 0.62, 1.85):
        furniture.fridge(room)
    _openings(room, windows=1, doors=1, daylight=5.0)
    if settings.clutter > 0:
        if room.at_wall("counter", 1.8, 0.62, 2.2):
            furniture.counter(room, 1.8, sink=False)
        if room.on_floor("table", 1.5, 1.9, gap=0.35, margin=0.5):
            x = room.uniform(0.2, 0.4)
            for sx in (-x, x):
                furniture.chair(room, sx, -0.2, 0.0)
                furniture.chair(room, sx, 1.0, np.pi)
            furniture.table(room, 1.4, 0.8, 0.75, 4)
        for height in (0.9, 1.8):
            if room.chance(0.7 * settings.clutter) and room.at_wall("shelf", 0.9, 0.34, height):
                furniture.shelf(room, 0.9, 0.34, height)
    _pictures(room, round(5 + 6 * settings.clutter))
    _lamps(room, 2, 1, (0.5, 0.5), 9.0, 0.5)
    return room


def _corridor(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, _size(rng, (9.0, 14.0), (2.0, 2.8), (2.4, 2.9)))
    _shell(room, _floor(room), _papered(room))
    for wall in ("south", "north"):
        for k, along in enumerate(np.arange(-room.size[0] / 2 + 1.2, room.size[0] / 2 - 0.8, room.uniform(2.2, 3.2))):
            furniture.door(room, wall, float(along) + room.uniform(-0.2, 0.2), f"door {k % 2}", swing=0.2)
    furniture.window(room, "east", 0.0, 1.2, 5.0)
    for _ in range(round(3 * settings.clutter)):
        width, height = room.uniform(0.6, 1.2), room.uniform(0.8, 1.3)
        if room.at_wall("cabinet", width, 0.32, height):
            furniture.cabinet(room, width, 0.32, height, 2, 3, 2)
    if room.chance(0.7 * settings.clutter) and room.at_wall("plant", 0.45, 0.45, 1.2):
        furniture.plant(room, 0, 0.22, 0, 1.0)
    _pictures(room, round(8 + 8 * settings.clutter))
    _lamps(room, 5, 1, (0.9, 0.25), 16.0, 0.2)
    return room


def _doors(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    apart, doors = float(rng.uniform(1.8, 2.4)), 6
    room = settings.layout(rng, (apart * doors, 2.2, 2.6))
    tile = Material(room.texture("floor", lambda r: textures.tiles(r, (186, 180, 172), 4, 1024, 0.0)), apart, grain=0.0)
    paper = Material(room.texture("paper", lambda r: textures.wallpaper(r, room.style.wall)), apart, grain=0.0)
    _shell(room, tile, [paper], room.colour((232, 232, 228), 0.0))
    for k in range(doors):
        along = (k - (doors - 1) / 2) * apart
        for wall in ("south", "north"):
            furniture.door(room, wall, along, "door", swing=0.2)
            if room.chance(0.25):
                room.builder.at(*room.wall_frame(wall, along + apart / 2, 1.5), "picture")
                shown = room.picture(f"picture {wall} {k}", pictures.picture)
                room.builder.box((0, 0.012, 0), (0.5, 0.024, 0.7), shown)
        room.builder.at(along, 0.0, name="lamp")
        furniture.lamp(room, (0.6, 0.3), room.size[2], 3.0, 0.2)
    return room


def _warehouse(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, _size(rng, (11.0, 15.0), (9.0, 11.0), (4.2, 5.2)))
    ground = room.surface("floor", lambda r: textures.concrete(r), 5.0, 0.4)
    sheet = room.surface("sheet", lambda r: textures.concrete(r, (184, 182, 176)), 4.5, 0.4)
    block = room.surface("block", lambda r: textures.bricks(r, (170, 166, 158), rows=12), 2.6)
    _shell(room, ground, [sheet, sheet, block, block], sheet)
    _openings(room, windows=0, doors=2, daylight=0.0)
    height, depth = room.uniform(2.6, 3.4), 1.0
    aisles = int(room.size[1] // 3.0)
    for aisle in range(aisles):
        y = (aisle + 0.5) / aisles * room.size[1] - room.size[1] / 2
        width = room.size[0] - room.uniform(4.4, 5.2)
        shift = room.uniform(-0.4, 0.4)
        if room.reserve_floor(shift, y, width, depth):
            room.builder.at(shift, y - depth / 2, name="rack")
            furniture.rack(room, width, depth, height, levels=3)
    for _ in range(round(7 * settings.clutter)):
        w = room.uniform(0.5, 0.9)
        if room.at_wall("carton", w, w, 0.9):
            furniture.load(room, 0, w / 2, 0, w, w * 0.9, room.uniform(0.4, 0.8))
    _pictures(room, round(4 + 8 * settings.clutter), low=1.3)
    _lamps(room, 3, 2, (2.4, 0.4), 90.0, 0.05)
    return room


def _textureless(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, _size(rng, (4.6, 6.2), (3.8, 5.0), (2.4, 2.8)), plain=True)
    white = room.colour(room.style.wall)
    _shell(room, room.colour(room.style.floor), [white], white)
    _openings(room, windows=0, doors=1, daylight=0.0)
    if room.chance(settings.clutter) and room.at_wall("cabinet", 1.2, 0.42, 0.8):
        furniture.cabinet(room, 1.2, 0.42, 0.8, 1, 1, 0)
    _lamps(room, 2, 1, (0.5, 0.5), 9.0, 0.4)
    return room


def _repeated(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    side = float(rng.uniform(5.5, 7.0))
    room = settings.layout(rng, (side, side, 2.7))
    tile = room.surface("floor", lambda r: textures.tiles(r, (180, 176, 170), 8, 512, 0.0), side / 4)
    tile = Material(tile.texture, side / 4, grain=0.0)
    wall = Material(room.texture("wall", lambda r: textures.tiles(r, room.style.wall, 8, 512, 0.0)), 1.0, grain=0.0)
    _shell(room, tile, [wall], room.colour((230, 230, 228), 0.0))
    for name in WALLS:
        state = rng.bit_generator.state
        for along in (-side / 4, side / 4):
            rng.bit_generator.state = state
            if room.put_at_wall("shelf", name, float(along), 1.2, 0.4, 1.6):
                furniture.rack(room, 1.2, 0.4, 1.6, 3, same=True)
            room.builder.at(*room.wall_frame(name, float(along), 2.05), "picture")
            room.builder.box((0, 0.012, 0), (0.8, 0.024, 0.6), room.picture("picture", pictures.picture))
        furniture.door(room, name, 0.0, "door", swing=0.3)
    _lamps(room, 2, 2, (0.5, 0.5), 12.0, 0.2)
    return room


def _planar(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, (7.0, 5.0, 3.0))
    white = Material(room.texture("plain", lambda r: textures.flat((216, 214, 210))), 1.0, grain=0.0)
    room.builder.shell(room.size, dict.fromkeys(("+x", "-x", "+y", "-y", "+z", "-z"), white))
    columns, rows = 6, 3
    width, height = room.size[0] / columns, room.size[2] / rows
    room.builder.at(*room.wall_frame("north", 0.0), "mural")
    for k in range(columns * rows):
        x, z = (k % columns + 0.5) * width - room.size[0] / 2, (k // columns + 0.5) * height
        shown = room.picture(f"mural {k}", pictures.unframed)
        room.builder.box((x, 0.001, z), (width, 0.002, height), shown)
    _lamps(room, 2, 2, (0.5, 0.5), 14.0, 0.2)
    return room


def _glass(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    room = settings.layout(rng, _size(rng, (4.8, 6.2), (4.2, 5.0), (2.4, 2.8)))
    walls = ("south", "east") if room.chance(0.5) else ("north", "west")
    for wall in walls:
        room.reserve_wall(wall, 0.0, 0.3, 2.0, 1.7)
    _furnish_living(room, settings)
    grey = room.colour((150, 156, 160), 0.0)
    mirror, pane = replace(grey, reflects=0.9), replace(grey, reflects=0.25, transmits=0.7)
    for wall in walls:
        room.builder.at(*room.wall_frame(wall, 0.0, 1.15), "mirror")
        room.builder.box((0, 0.01, 0), (2.0, 0.02, 1.7), room.colour((90, 80, 70)), faces={"+y": mirror})
    room.builder.at(0.0, 0.0, name="pane")
    room.builder.box((0, 0, 1.25), (1.6, 0.01, 1.3), pane)
    return room


def _street(rng: np.random.Generator, settings: RoomSettings) -> Layout:
    street = settings.layout(rng, _size(rng, (30.0, 90.0), (16.0, 50.0), (14.0, 30.0)))
    outdoors.build_street(street, settings.clutter)
    return street


#: Every family by name.
FAMILIES: dict[str, Callable[[np.random.Generator, RoomSettings], Layout]] = {
    "living": _living,
    "office": _office,
    "kitchen": _kitchen,
    "corridor": _corridor,
    "doors": _doors,
    "warehouse": _warehouse,
    "textureless": _textureless,
    "repeated": _repeated,
    "planar": _planar,
    "glass": _glass,
    "street": _street,
}
