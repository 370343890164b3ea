"""A reconstruction on disk: COLMAP text models, clouds, and a keyframe map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.export import colmap_camera, write_ply
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.records import id_of_name
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.photos import Photo

#: COLMAP counts pixels from the corner of the first one, we from its centre.
HALF = 0.5
#: Points of fewer views, or seen less exactly than this, stay out of clouds and maps.
FEWEST_VIEWS, MOST_ERROR_PX = 2, 4.0


def point_colours(model: Model, photos: list[Photo]) -> NDArray[np.uint8]:
    """(P, 3) RGB of each point, the mean of where it is seen."""
    total, count = np.zeros((len(model.points), 3)), np.zeros(len(model.points))
    for n in model.images:
        image, rows = photos[n].read(), np.flatnonzero(model.image == n)
        u, v = np.rint(model.xy[rows]).astype(int).T
        seen = image[v.clip(0, image.shape[0] - 1), u.clip(0, image.shape[1] - 1)]
        np.add.at(total, model.point[rows], seen)
        np.add.at(count, model.point[rows], 1)
    return np.asarray((total / np.maximum(count, 1)[:, None]).round().astype(np.uint8))


def write_colmap(folder: Path, model: Model, photos: list[Photo], colours: NDArray[np.uint8]) -> None:
    """cameras.txt, images.txt and points3D.txt with all observations.

    Raises:
        MapError: for a camera that COLMAP has no model for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    lenses: dict[str, int] = {}
    place = np.zeros(len(model.xy), np.int64)  # of each observation among its image's
    for number, n in enumerate(model.images, start=1):
        text = colmap_camera(model.cameras[n])
        if text not in lenses:
            lenses[text] = len(lenses) + 1
            cameras.append(f"{lenses[text]} {text}")
        rows = np.flatnonzero(model.image == n)
        place[rows] = np.arange(len(rows))
        camera_T_world = se3.inverse(model.world_T_camera[n])
        x, y, z, w = se3.quaternion(camera_T_world)
        pose = " ".join(f"{value:.12g}" for value in (w, x, y, z, *camera_T_world[:3, 3]))
        images.append(f"{number} {pose} {lenses[text]} {photos[n].name}")
        seen = zip((model.xy[rows] + HALF).tolist(), model.point[rows].tolist(), strict=True)
        images.append(" ".join(f"{u:.3f} {v:.3f} {point + 1}" for (u, v), point in seen))
    (folder / "cameras.txt").write_text("\n".join(cameras) + "\n")
    (folder / "images.txt").write_text("\n".join(images) + "\n", encoding="utf-8")
    (folder / "points3D.txt").write_text("\n".join(_point_lines(model, colours, place)) + "\n")


def _point_lines(model: Model, colours: NDArray[np.uint8], place: NDArray[np.int64]) -> list[str]:
    number = {n: row for row, n in enumerate(model.images, start=1)}
    tracks: list[list[str]] = [[] for _ in model.points]
    for point, image, at in zip(model.point.tolist(), model.image.tolist(), place.tolist(), strict=True):
        tracks[point].append(f"{number[image]} {at}")
    lines = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for row, (xyz, rgb, error) in enumerate(zip(model.points, colours.tolist(), model.error_px, strict=True)):
        position = " ".join(f"{value:.9g}" for value in xyz)
        lines.append(f"{row + 1} {position} {rgb[0]} {rgb[1]} {rgb[2]} {error:.4g} {' '.join(tracks[row])}")
    return lines


def write_cloud(path: Path, model: Model, colours: NDArray[np.uint8]) -> int:
    """The points as a PLY cloud; returns how many. Raises MapError where the file cannot be written."""
    good = model.error_px < MOST_ERROR_PX
    write_ply(path, model.points[good].astype(np.float32), colours[good])
    return int(good.sum())


def keyframe_map(
    model: Model,
    photos: list[Photo],
    facts: Mapping[str, str],
    source: str = "",
    frame_id: str = "map",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> KeyframeMap:
    """A map with every registered image as a keyframe and its points as depth.

    Args:
        facts: kept in the map for people and programs, ``scale`` among them.
    """
    made = KeyframeMap(frame_id, source=source)
    made.provenance.update(facts)
    for done, n in enumerate(model.images, start=1):
        image = photos[n].read()
        frame = Frame(image, model.cameras[n], stamp_ns=n, name=photos[n].name)
        keyframe = made.add(PosedFrame(frame, model.world_T_camera[n]), id_of_name(photos[n].name, made.__contains__))
        xy, depth = model.seen(n)
        if len(depth):
            made.set_points(keyframe.id, xy, depth)
        progress(done, len(model))
    return made
