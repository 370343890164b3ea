"""What makes a reconstruction metric: known camera poses, odometry, a known length, or a network that knows metres.

A scale comes with an interval that should hold the truth in 95 of 100 cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.io.datasets.base import named_values, numbers, pose_of, read_table
from mast3r_ros.mapping.rescale import UNKNOWN_SCALE
from mast3r_ros.multiview.model import Model

Array = NDArray[np.float64]

#: Resamplings that intervals are told from.
RESAMPLED = 400
#: Images whose distance odometry is believed for are at most this many apart.
STEPS = 5
#: Odometry is wrong as a whole by this share (one standard deviation): wheels are worn, carpets are soft.
ODOMETRY = 0.012
#: A metric network is wrong as a whole by this share (one standard deviation), far from what it was trained on.
NETWORK = 0.15
#: A length that a person measured is believed to within this share.
MEASURED = 0.01


@dataclass(frozen=True, eq=False)
class Scale:
    """How a model becomes metric.

    Attributes:
        metres_T_model: to the frame of the known poses; a factor alone where only a length is known.
        interval: smallest and largest factor that fits.
        origin: where it comes from, for people.
    """

    metres_T_model: Similarity
    interval: tuple[float, float]
    origin: str

    @classmethod
    def by_factor(cls, factor: float, interval: tuple[float, float], origin: str) -> Scale:
        """Lengths are known, places are not."""
        return cls(Similarity(factor, np.eye(3), np.zeros(3)), interval, origin)

    @property
    def factor(self) -> float:
        """Metres for each unit of the model."""
        return self.metres_T_model.scale

    @property
    def relative_interval(self) -> tuple[float, float]:
        """True metres for each metre of the model once the scale is applied, at least and at most."""
        return self.interval[0] / self.factor, self.interval[1] / self.factor

    def applied(self, model: Model) -> Model:
        """The model in metres."""
        return model.moved(self.metres_T_model)


def provenance(scale: Scale | None) -> dict[str, str]:
    """What a map keeps of its scale."""
    if scale is None:
        return {"scale": UNKNOWN_SCALE}
    low, high = scale.relative_interval
    return {
        "scale": scale.origin,
        "scale interval": f"{low:.3f} to {high:.3f} true metres for each of the map's (95 %)",
    }


def checked_length(names: Sequence[str], first: str, second: str, metres: float) -> tuple[str, str, float]:
    """The same again. Raises DatasetError for an image that is none of these, or a length that cannot be."""
    for name in (first, second):
        if name not in names:
            raise DatasetError(f"--known-length: there is no image '{name}' (there are {', '.join(names[:3])}, ...)")
    if first == second or not 0 < metres < np.inf:
        raise DatasetError(f"--known-length {first} {second} {metres:g}: two images and a positive length are needed")
    return first, second, metres


def from_length(model: Model, names: Sequence[str], first: str, second: str, metres: float) -> Scale | None:
    """By the distance between the camera centres of two images; None where the model lacks one of them.

    The interval allows for one per cent of error of the length, and for half of one of the reconstruction.

    Args:
        names: of all images, by number.
    """
    place = {name: n for n, name in enumerate(names)}
    pair = place.get(first, -1), place.get(second, -1)
    if not all(n in model.world_T_camera for n in pair):
        return None
    units = float(np.linalg.norm(model.world_T_camera[pair[0]][:3, 3] - model.world_T_camera[pair[1]][:3, 3]))
    if units <= 0:
        return None
    factor, unsure = metres / units, MEASURED * 1.5
    interval = factor * (1 - unsure), factor * (1 + unsure)
    return Scale.by_factor(factor, interval, f"distance of {first} and {second}, {metres:g} m")


def from_poses(model: Model, known: Mapping[int, Array], origin: str) -> Scale | None:
    """By known poses (4, 4) of some images; None where fewer than three of the model's are known.

    Rotations turn the model, positions place and scale it. Positions that do not fit the others (by a median of
    residuals) are left out; the interval comes from resampling.
    """
    numbers = [n for n in model.images if n in known]
    if len(numbers) < 3:
        return None
    here = np.array([model.world_T_camera[n][:3, 3] for n in numbers])
    there = np.array([known[n][:3, 3] for n in numbers])
    turns = np.array([known[n][:3, :3] @ model.world_T_camera[n][:3, :3].T for n in numbers])
    R = Rotation.from_matrix(turns).mean().as_matrix()
    kept = np.ones(len(here), bool)
    for _ in range(4):
        s, t = _length_and_place(here[kept] @ R.T, there[kept])
        off = np.linalg.norm(there - (s * here @ R.T + t), axis=1)
        kept = off <= max(3 * 1.4826 * float(np.median(off)), 1e-12)
        if kept.sum() < 3:
            return None
    if not s > 0:
        return None
    return Scale(Similarity(s, R, t), _resampled(here[kept] @ R.T, there[kept], s), origin)


def from_odometry(model: Model, odometry: Mapping[int, Array], origin: str) -> Scale | None:
    """By how far odometry went between images close in time; None where it hardly moved.

    Odometry drifts, so the model is not bent to it: only distances of images few steps apart count, by their weighted
    median, and the frame is the one that fits best. The interval allows for odometry that is wrong as a whole
    (:data:`ODOMETRY`) beside what resampling in blocks tells.

    Args:
        odometry: (4, 4) odom_T_camera by image number; numbers are in the order of time.
    """
    numbers = [n for n in model.images if n in odometry]
    here = np.array([model.world_T_camera[n][:3, 3] for n in numbers]).reshape(-1, 3)
    there = np.array([odometry[n][:3, 3] for n in numbers]).reshape(-1, 3)
    first, ratio, weight = _baselines(here, there)
    if len(ratio) < 3:
        return None
    s = _weighted_median(ratio, weight)
    turns = np.array([odometry[n][:3, :3] @ model.world_T_camera[n][:3, :3].T for n in numbers])
    R = Rotation.from_matrix(turns).mean().as_matrix()
    random, block = np.random.default_rng(0), first // STEPS
    found = []
    for _ in range(RESAMPLED):
        drawn = np.bincount(random.integers(0, block.max() + 1, block.max() + 1), minlength=block.max() + 1)
        counts = weight * drawn[block]
        found += [_weighted_median(ratio, counts)] if counts.sum() > 0 else []
    spread = np.percentile(np.log(np.array(found) / s), [2.5, 97.5])
    low, high = np.exp(-np.hypot(spread[0], 2 * ODOMETRY)), np.exp(np.hypot(spread[1], 2 * ODOMETRY))
    t = there.mean(axis=0) - s * R @ here.mean(axis=0)
    return Scale(Similarity(s, R, np.asarray(t)), (float(s * low), float(s * high)), origin)


def from_network(model: Model, origin: str) -> Scale | None:
    """By what a metric network believes; None where none has said anything.

    The interval allows for a network that is wrong as a whole (:data:`NETWORK`), beside how far its images disagree.
    """
    if model.metres is None:
        return None
    factor, spread = model.metres
    reach = np.exp(2 * np.hypot(NETWORK, spread))
    return Scale.by_factor(factor, (float(factor / reach), float(factor * reach)), origin)


def _baselines(here: Array, there: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """First image, metres for each unit, and metres of every pair of images up to :data:`STEPS` apart that moved."""
    first, ratio, weight = list[int](), list[float](), list[float]()
    lengths = np.linalg.norm(np.diff(there, axis=0), axis=1)
    least = 0.5 * float(np.median(lengths)) if len(lengths) else 0.0
    for step in range(1, STEPS + 1):
        for n in range(len(here) - step):
            units, metres = (float(np.linalg.norm(side[n + step] - side[n])) for side in (here, there))
            if units > 0 and metres > max(least, 1e-6):
                first.append(n)
                ratio.append(metres / units)
                weight.append(metres)
    return np.array(first, dtype=np.int64), np.array(ratio), np.array(weight)


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def read_camera_poses(file: Path, names: Sequence[str]) -> dict[str, Array]:
    """``map_T_camera`` (4, 4) by image name, of lines "name qw qx qy qz tx ty tz".

    Args:
        names: of all images; those of the file may be without folders.

    Raises:
        DatasetError: for a missing or malformed file, or one that knows fewer than three of the images.
    """
    known = {Path(name).name: name for name in names} | {name: name for name in names}
    expected, found = "qw qx qy qz tx ty tz", dict[str, Array]()
    for line, words in read_table(file):
        name, values = named_values(words, 7)
        w, x, y, z, *translation = numbers(file, line, values, expected)
        pose = pose_of(file, line, translation, [x, y, z, w], f"name {expected}")
        if name in known:
            found[known[name]] = pose
    if len(found) < 3:
        raise DatasetError(f"{file}: knows the poses of {len(found)} of the images; a scale needs three")
    return found


def _length_and_place(here: Array, there: Array) -> tuple[float, Array]:
    """s and t (3,) with ``there ~ s here + t``, least squares."""
    mean_here, mean_there = here.mean(axis=0), there.mean(axis=0)
    x, y = here - mean_here, there - mean_there
    s = float((x * y).sum() / max((x * x).sum(), np.finfo(float).tiny))
    return s, mean_there - s * mean_here


def _resampled(here: Array, there: Array, s: float) -> tuple[float, float]:
    """95 % interval of the scale between two sets of positions (N, 3) of the same orientation."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLED):
        rows = random.integers(0, len(here), len(here))
        if len(np.unique(rows)) < 3:
            continue
        found.append(_length_and_place(here[rows], there[rows])[0])
    # Few positions tell little of their own spread: the interval of the resampling is too narrow by this much.
    widen = np.sqrt(len(here) / max(len(here) - 3, 1))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(s + (low - s) * widen), float(s + (high - s) * widen)
