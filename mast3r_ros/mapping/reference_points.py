"""Places that a person knows in another frame: a file that says where keyframes, or what they show, are there.

    # keyframe x y z           where the camera of the keyframe is, metres
    # keyframe:u:v x y z       where the thing is that the keyframe shows at this pixel, by its depth
    000012 1.20 3.40 1.55
    000080:320:201 4.00 0.00 0.90

Three or more, not all on one line. With latitude and longitude (WGS84, degrees) and height (metres) in place of x, y
and z the other frame is east, north, up at the first place of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import valid_depth
from mast3r_ros.geometry.similarity import Similarity, fit_similarity
from mast3r_ros.io.datasets.base import numbers, read_table
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.rescale import is_metric

Array = NDArray[np.float64]

FEWEST = 3
#: Places are on one line when they spread across it by less than this share of along it.
ACROSS = 0.03
#: Places that are off by more than this share of their extent, in the mean, are of something else.
FITS = 0.15
#: Metres of the map and of the file may differ by this, or by what the places leave open; an unknown scale must be told
#: to this.
SCALE_OFF, SCALE_TOLD = 0.05, 0.05
#: Pixels around one that are searched for depth.
AROUND = 3
#: Rounds of reweighting; with this many places or fewer all count alike.
ROUNDS, TOO_FEW_TO_DOUBT = 20, 4
#: Semi-major axis (m) and flattening of the WGS84 ellipsoid.
WGS84_A, WGS84_F = 6378137.0, 1 / 298.257223563


@dataclass(frozen=True, eq=False)
class ReferencePoints:
    """Places in the map and in the other frame.

    Attributes:
        names: as the file has them.
        here, there: (N, 3) in the map and in the other frame.
        origin: latitude, longitude and height of the other frame's origin, where it is geographic.
    """

    names: list[str]
    here: Array
    there: Array
    origin: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class PointFit:
    """What carries the map to the other frame.

    Attributes:
        residuals: (N,) by how much each place is off afterwards, metres.
        scale_sigma: relative standard deviation of the scale that the places tell.
    """

    target_T_map: Similarity
    residuals: Array
    scale_sigma: float


def read_points(file: Path, keyframe_map: KeyframeMap, wgs84: bool = False) -> ReferencePoints:
    """Read a file of places.

    Args:
        wgs84: its numbers are latitude, longitude (degrees) and height (metres).

    Raises:
        DatasetError: for a file that is missing or malformed.
        MapError: for a keyframe that the map does not have, a pixel without depth, or fewer than three places.
    """
    expected = "latitude longitude height" if wgs84 else "x y z"
    names, here, there = list[str](), list[Array](), list[list[float]]()
    for line, words in read_table(file):
        there.append(numbers(file, line, words[1:], expected))
        names.append(words[0])
        here.append(_place(words[0], keyframe_map, f"{file}, line {line}"))
    if len(names) < FEWEST:
        raise MapError(f"{file}: has {len(names)} places: give {FEWEST} or more, not all on one line")
    target, origin = np.array(there), None
    if wgs84:
        origin = (there[0][0], there[0][1], there[0][2])
        target = east_north_up(target, origin)
    return ReferencePoints(names, np.array(here), target, origin)


def _place(name: str, keyframe_map: KeyframeMap, where: str) -> Array:
    """Position (3,) in the map of ``keyframe`` or ``keyframe:u:v``."""
    id, *pixel = name.split(":")
    if id not in keyframe_map:
        raise MapError(f"{where}: the map has no keyframe '{id}'")
    pose = keyframe_map[id].map_T_camera
    if not pixel:
        return np.asarray(pose[:3, 3])
    frame, camera = keyframe_map.frame(id), keyframe_map[id].camera
    try:
        u, v = (float(word) for word in pixel)
    except ValueError:
        raise MapError(f"{where}: '{name}' is no place: expected keyframe or keyframe:u:v") from None
    row, column = round(v), round(u)
    if frame.depth is None or not (0 <= row < frame.height and 0 <= column < frame.width):
        raise MapError(f"{where}: keyframe '{id}' has no depth at pixel {u:g}, {v:g}")
    around = frame.depth[max(0, row - AROUND) : row + AROUND + 1, max(0, column - AROUND) : column + AROUND + 1]
    known = around[valid_depth(around)]
    if len(known) == 0:
        raise MapError(f"{where}: keyframe '{id}' knows no depth around pixel {u:g}, {v:g}: choose another pixel")
    point = camera.points(np.array([[u, v]]), np.array([np.median(known)]))[0]
    return np.asarray(pose[:3, :3] @ point + pose[:3, 3])


def east_north_up(geodetic: Array, origin: tuple[float, float, float]) -> Array:
    """Latitude, longitude (degrees) and height (m) (N, 3) on WGS84 -> metres east, north and up of an origin (N, 3)."""
    latitude, longitude = np.radians(origin[:2])
    east = [-np.sin(longitude), np.cos(longitude), 0]
    up = [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    return np.asarray(
        (_earth_centred(geodetic) - _earth_centred(np.array([origin]))) @ np.array([east, np.cross(up, east), up]).T
    )


def _earth_centred(geodetic: Array) -> Array:
    latitude, longitude, height = np.radians(geodetic[:, 0]), np.radians(geodetic[:, 1]), geodetic[:, 2]
    squared = WGS84_F * (2 - WGS84_F)
    normal = WGS84_A / np.sqrt(1 - squared * np.sin(latitude) ** 2)
    across = (normal + height) * np.cos(latitude)
    z = (normal * (1 - squared) + height) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), z], axis=1)


def fit_points(points: ReferencePoints, keyframe_map: KeyframeMap) -> PointFit:
    """The motion of the map that puts its places where they are; of one without metres, its scale as well.

    Places that do not fit the others count less (Cauchy weights).

    Raises:
        MapError: where the places cannot tell it, do not fit, or have other metres than the map.
    """
    extent = _refuse_line(points)
    fit, weights = _weighted_fit(points)
    residuals = np.linalg.norm(points.there - fit.points(points.here), axis=1)
    mean = float(np.average(residuals, weights=weights))
    if fit.scale <= 0 or mean > FITS * extent:
        raise MapError(
            f"the places do not fit the map: they are off by {mean:.2f} m in the mean, over {extent:.2f} m. "
            "Check their order (x y z), their names, and that no axis is mirrored"
        )
    spread = float(np.sqrt((weights[:, None] * (points.here - points.here.mean(axis=0)) ** 2).sum()))
    freedom = max(3 * len(residuals) - 7, 1)
    sigma = float(np.sqrt((weights * residuals**2).sum() / freedom)) / (fit.scale * spread)
    if not is_metric(keyframe_map):
        if 2 * sigma > SCALE_TOLD:
            raise MapError(f"the places tell the map's scale to {2 * sigma:.0%} only: give more of them, further apart")
        return PointFit(fit, residuals, sigma)
    if abs(np.log(fit.scale)) > max(SCALE_OFF, 3 * sigma):
        raise MapError(
            f"the map's metres and those of the places disagree: a metre of the map is {fit.scale:.3f} m there. "
            f"Correct the map's scale first (mast3r_ros map scale MAP --factor {fit.scale:.4g}), or the file"
        )
    centre = np.average(points.here, axis=0, weights=weights)
    moved = Similarity(1.0, fit.R, np.average(points.there, axis=0, weights=weights) - fit.R @ centre)
    return PointFit(moved, np.linalg.norm(points.there - moved.points(points.here), axis=1), sigma)


def _refuse_line(points: ReferencePoints) -> float:
    """Extent of the places, root mean square, metres; MapError where they are on one line."""
    for side in (points.here, points.there):
        spread = np.linalg.svd(side - side.mean(axis=0), compute_uv=False)
        if spread[1] <= ACROSS * spread[0]:
            raise MapError(
                "the places lie on one line, so how the map is turned about it cannot be told: add one beside it, for "
                "example something that a keyframe shows (keyframe:u:v x y z)"
            )
    return float(np.sqrt(((points.there - points.there.mean(axis=0)) ** 2).sum() / len(points.there)))


def _weighted_fit(points: ReferencePoints) -> tuple[Similarity, Array]:
    """The similarity, and the weights (N,) that it came of."""
    weights = np.ones(len(points.here))
    for _ in range(ROUNDS if len(weights) > TOO_FEW_TO_DOUBT else 1):
        fit = fit_similarity(points.here, points.there, weights)
        off = np.linalg.norm(points.there - fit.points(points.here), axis=1)
        if len(weights) > TOO_FEW_TO_DOUBT:
            weights = 1 / (1 + (off / max(2 * float(np.median(off)), 1e-9)) ** 2)
    return fit, weights
