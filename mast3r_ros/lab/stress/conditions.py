"""What can go wrong, one condition each: how queries differ from the map they are asked of.

A condition takes a scene and gives the shots to take. The name of a shot is its level ("night", "3.0 x"): how hard
the condition is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.lab.stress.scenes import EYE_M, ORBIT_DEG, Place, Scene, looking_at, turned, visitors
from mast3r_ros.lab.synthetic import CameraNoise, Shot, World
from mast3r_ros.lab.synthetic.lighting import lit
from mast3r_ros.lab.synthetic.recording import single_threaded
from mast3r_ros.lab.synthetic.world import BOX

Array = NDArray[np.float64]
Rng = np.random.Generator

#: Number of the walk that queries are taken on.
ASKING = 2000
#: What belongs to a room and stays when its furniture changes.
FIXED = ("room", "lamp", "window", "door", "mirror", "pane", "visitor")
#: Angles around the middle from which a wide baseline is asked, from the middle of the map's own, degrees.
WIDE_DEG = (45, 90, 135, 180)
#: Pixels that a picture is smeared over.
BLUR_PX = (4, 8, 16, 32)
#: Focal lengths as multiples of the map's.
ZOOMS = (0.3, 0.5, 2.0, 3.0)
#: Sizes of the pictures of a camera that changes its resolution all the time.
SIZES = ((160, 120), (240, 180), (480, 360), (640, 480))
#: What a camera makes of too much light, too little, and of the night.
EXPOSURES = {
    "4 x over": CameraNoise(exposure=4.0),
    "8 x under": CameraNoise(exposure=1 / 8),
    "night": CameraNoise(exposure=0.02, gain=16.0),
}


@dataclass(frozen=True, eq=False)
class Condition:
    """A condition of a stress run.

    Attributes:
        name: for machines.
        title: for people.
        scene: kind of scene it is asked in, see stress_scenes.
        shots: the queries for a scene, of about a number, at random.
    """

    name: str
    title: str
    scene: str
    shots: Callable[[Scene, int, Rng], list[Shot]]


def chosen(names: Sequence[str]) -> list[Condition]:
    """Conditions by name.

    Raises:
        UserError: for a name that does not exist.
    """
    for name in names:
        if name not in CONDITIONS:
            raise UserError(f"there is no condition called '{name}': use some of {', '.join(CONDITIONS)}")
    return [CONDITIONS[name] for name in names]


def _walk(scene: Scene, count: int) -> list[Shot]:
    """Pictures of a walk as the mapping camera takes them, but without depth."""
    camera = scene.mapping[0].camera
    return [Shot(scene.place.world, pose, camera) for pose in scene.place.poses(ASKING, count)]


def _nominal(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    return _walk(scene, count)


def _pure_rotation(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    """Half from the spot itself, half from a step or two away."""
    shots = []
    for k, shot in enumerate(_walk(scene, count)):
        spot, level = scene.place.spot, "on the spot"
        if k % 2:
            spot, level = _free_near(scene.place, spot, rng), "elsewhere"
        pose = turned(spot, rng.uniform(-np.pi, np.pi), rng.uniform(-0.1, 0.4))
        shots.append(replace(shot, map_T_camera=pose, name=level))
    return shots


def _free_near(place: Place, spot: Array, rng: Rng) -> Array:
    """A free point (3,) within 0.4 to 1.2 m, at about the same height; the spot itself where all is full."""
    for _ in range(50):
        angle, reach = rng.uniform(-np.pi, np.pi), rng.uniform(0.4, 1.2)
        point = spot + np.array([reach * np.cos(angle), reach * np.sin(angle), rng.uniform(-0.2, 0.2)])
        if place.world.clearance(point) > 0.25:
            return point
    return spot


def _wide_baseline(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    shots = []
    for k, shot in enumerate(_walk(scene, count)):
        angle = WIDE_DEG[k % len(WIDE_DEG)]
        sign = rng.choice([-1, 1])
        around = np.radians(sign * angle + rng.uniform(-ORBIT_DEG, ORBIT_DEG) / 2)
        view = scene.place.orbit(float(around), rng.uniform(1.2, 1.8), EYE_M)
        if view is not None:
            shots.append(replace(shot, map_T_camera=view, name=f"{angle} deg"))
    return shots


def _motion_blur(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    def smeared(shot: Shot, pixels: int) -> Shot:
        return replace(shot, turned_rad=pixels / shot.camera.focal, name=f"{pixels} px")

    return [smeared(shot, BLUR_PX[k % len(BLUR_PX)]) for k, shot in enumerate(_walk(scene, count))]


def _exposure(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    """Too bright, too dark, and at night, when one lamp is left."""
    world = scene.place.world
    with single_threaded():
        one_lamp = lit(replace(world, lights=world.lights[-1:]))
    levels = list(EXPOSURES)
    return [
        replace(
            shot,
            noise=EXPOSURES[levels[k % len(levels)]],
            name=levels[k % len(levels)],
            world=one_lamp if levels[k % len(levels)] == "night" else world,
        )
        for k, shot in enumerate(_walk(scene, count))
    ]


def _moving_objects(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    """One to three people before the camera, each time elsewhere."""
    names = visitors(scene.place.furnished)
    shots = []
    for k, shot in enumerate(_walk(scene, count)):
        present = 1 + k % len(names)
        world = scene.place.furnished.without(*names[present:])
        for name in names[:present]:
            world = world.moved(name, _before(shot, scene.place.world.size, rng))
        people = "1 person" if present == 1 else f"{present} people"
        shots.append(replace(shot, world=world, name=people))
    return shots


def _before(shot: Shot, size: tuple[float, float, float], rng: Rng) -> Array:
    """Motion (4, 4) from the origin to a place on the floor that the camera sees, inside the room."""
    ray = shot.map_T_camera[:3, :3] @ [rng.uniform(-0.5, 0.5), 0, 1.0]
    spot = shot.map_T_camera[:2, 3] + rng.uniform(0.9, 2.2) * ray[:2] / np.linalg.norm(ray[:2])
    reach = np.asarray(size[:2]) / 2 - 0.3
    motion = se3.exp([0, 0, 0, 0, 0, rng.uniform(-np.pi, np.pi)])
    motion[:2, 3] = np.clip(spot, -reach, reach)
    return motion


def _changed_furniture(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    """Of the things that can be moved, a quarter is gone, or a half is gone and a quarter stands elsewhere."""
    world = scene.place.world
    loose = [name for name in world.names if not name.startswith(FIXED)]
    order = rng.permutation(len(loose))
    names, quarter = [loose[k] for k in order], -(-len(loose) // 4)
    changed = {
        "a quarter": world.without(*names[:quarter]),
        "most": _shifted(world.without(*names[: 2 * quarter]), names[2 * quarter : 3 * quarter], rng),
    }
    return [
        replace(shot, world=changed[list(changed)[k % 2]], name=list(changed)[k % 2])
        for k, shot in enumerate(_walk(scene, count))
    ]


def _shifted(world: World, names: list[str], rng: Rng) -> World:
    """Things slid along the wall they stand or hang at, to either side."""
    for name in names:
        boxes = (world.group == world.names.index(name)) & (world.kind == BOX)
        if not bool(boxes.any()):
            continue
        along = world.axes[boxes][0, :, 0].double().numpy()
        along = along / np.linalg.norm(along)
        motion = np.eye(4)
        motion[:3, 3] = rng.choice([-1, 1]) * rng.uniform(0.3, 0.9) * along
        world = world.moved(name, motion)
    return world


def _glass(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    """A third each of a mirror, of whatever is there, and of the pane."""
    world, shots = scene.place.world, []
    mirrors = [name for name in world.names if name.startswith("mirror")]
    for k, shot in enumerate(_walk(scene, count)):
        level = ("mirror", "around", "pane")[k % 3]
        if level != "around":
            name = str(rng.choice(mirrors)) if level == "mirror" else "pane 1"
            target = world.centre[world.group == world.names.index(name)].mean(dim=0).double().numpy()
            shot = replace(shot, map_T_camera=looking_at(shot.map_T_camera[:3, 3], target))
        shots.append(replace(shot, name=level))
    return shots


def _focal(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    def zoomed(shot: Shot, factor: float) -> Shot:
        K = shot.camera.K.copy()
        K[:2, :2] *= factor
        return replace(shot, camera=replace(shot.camera, K=K), name=f"{factor:g} x")

    return [zoomed(shot, ZOOMS[k % len(ZOOMS)]) for k, shot in enumerate(_walk(scene, count))]


def _fisheye(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    """A fisheye lens of 160 degrees, and one with strong barrel distortion."""

    def lens(camera: Camera, focal: float, model: str, D: list[float]) -> Camera:
        K = camera.K.copy()
        K[0, 0] = K[1, 1] = focal * camera.width
        return replace(camera, K=K, model=model, D=np.array(D))

    usual = scene.mapping[0].camera
    lenses = {
        "160 deg": lens(usual, 0.36, "equidistant", [0.01, -0.005, 0.001, 0.0]),
        "barrel": lens(usual, 0.5, "plumb_bob", [-0.25, 0.06, 0.0, 0.0, -0.005]),
    }
    levels = list(lenses)
    return [
        replace(shot, camera=lenses[levels[k % 2]], name=levels[k % 2]) for k, shot in enumerate(_walk(scene, count))
    ]


def _resolution(scene: Scene, count: int, rng: Rng) -> list[Shot]:
    def sized(shot: Shot, size: tuple[int, int]) -> Shot:
        return replace(shot, camera=shot.camera.resized(*size), name=f"{size[0]}x{size[1]}")

    return [sized(shot, SIZES[k % len(SIZES)]) for k, shot in enumerate(_walk(scene, count))]


#: Every condition by name, in the order of the table.
CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition("nominal", "as the map was made", "room", _nominal),
        Condition("pure_rotation", "mapped by turning on the spot", "spot", _pure_rotation),
        Condition("planar_scene", "one flat wall", "planar", _nominal),
        Condition("repeated_structure", "identical shelves, tiles, symmetric room", "repeated", _nominal),
        Condition("textureless_walls", "paint only", "textureless", _nominal),
        Condition("wide_baseline", "mapped from one side, asked from 45 to 180 deg", "orbit", _wide_baseline),
        Condition("motion_blur", "motion blur of 4 to 32 px", "room", _motion_blur),
        Condition("exposure_night", "over and under exposed, night", "room", _exposure),
        Condition("moving_objects", "people in the way", "room", _moving_objects),
        Condition("changed_furniture", "furniture gone and moved", "room", _changed_furniture),
        Condition("glass_mirrors", "mirrors and a pane of glass", "glass", _glass),
        Condition("focal_length", "0.3 to 3 times the map's focal length", "room", _focal),
        Condition("fisheye", "fisheye and strong barrel distortion", "room", _fisheye),
        Condition("resolution", "resolution changes all the time", "room", _resolution),
    )
}
