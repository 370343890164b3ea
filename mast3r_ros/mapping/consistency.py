"""Whether a map's poses, images and depth agree, and what is probably wrong where they do not.

Two images tell the motion between their cameras up to its length (five-point essential matrices), whatever the poses
say. Poses in another convention contradict that in a way of their own, so each convention that people mix up is tried;
points triangulated with the poses have another depth than the sensor's where one of the two is in other units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.relative_pose import EssentialSettings, RelativePose, solve_relative_pose
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.observations import LocalFeatures, View, mutual

Array = NDArray[np.float64]
Poses = NDArray[np.float64]  # (N, 4, 4)

#: Keyframes that are looked at, and how far on in the map their partners are: neighbours in time see the same,
#: whatever is wrong with the poses.
SAMPLES, PARTNERS = 14, (1, 2)
FEATURES = 1000
ESSENTIAL = EssentialSettings(threshold_px=1.5, iterations=1000)
#: A motion is believed with this many matches, which are at least this share of all.
FEWEST_MATCHES, LEAST_SHARE = 60, 0.3
#: Two images agree with a motion whose rotation and direction of travel are off by no more than this, degrees: well
#: above what poses from SLAM and five-point motions are off by, well below what another convention does.
ROTATION_DEG, DIRECTION_DEG = 4.0, 30.0
#: Rays that meet at less than this say nothing about the direction of travel or depth, degrees.
PARALLAX_DEG = 1.5
#: Fewer pairs say nothing.
FEWEST_PAIRS = 5
#: Poses are doubted when fewer pairs than this agree, and a cause is named when more than that agree with it.
DOUBTED, EXPLAINED = 0.5, 0.75
#: Other times are tried when turns between neighbours are off by more than this in the mean, degrees, and one is named
#: when it makes that error so much smaller.
TURN_DEG, TIME_GAIN = 1.0, 0.75
#: Depth is doubted beyond this ratio of triangulated to given.
DEPTH_RATIO = 1.25
#: Clocks that are tried, seconds.
OFFSETS_S = tuple(sign * value for value in (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0) for sign in (1, -1))


@dataclass(frozen=True)
class Consistency:
    """What was found.

    Attributes:
        pairs: pairs of keyframes whose images tell the motion between them.
        agreeing: share of them whose poses tell the same.
        turn_deg: mean difference of the rotations in degrees; what is far off counts as 10.
        cause: what would make them agree, "" where nothing that was tried does.
        depth_ratio: median of triangulated to given depth; NaN where it is not known.
    """

    pairs: int
    agreeing: float
    turn_deg: float = 0.0
    cause: str = ""
    depth_ratio: float = float("nan")

    @property
    def doubts(self) -> list[str]:
        """A sentence for each contradiction."""
        found = []
        if self.pairs >= FEWEST_PAIRS and self.agreeing < DOUBTED:
            likely = self.cause or (
                "none of the usual conventions explains it: check the calibration, the times of the poses, and that "
                "poses and images belong together"
            )
            found.append(
                f"the poses contradict the images: of {self.pairs} pairs of keyframes {self.agreeing:.0%} moved as "
                f"their poses say. {likely[0].upper()}{likely[1:]}"
            )
        elif self.cause:
            found.append(
                f"the poses turn otherwise than the images, by {self.turn_deg:.1f} deg in the mean from one keyframe "
                f"to the next. Probably the times of poses and images come from different clocks: {self.cause}"
            )
        ratio = self.depth_ratio
        if ratio > DEPTH_RATIO or ratio < 1 / DEPTH_RATIO:
            found.append(
                f"depth and poses disagree: triangulated with the poses, surfaces are {ratio:.3g} times as far as the "
                f"depth images say. The depth's unit is probably another (--depth-scale: {1 / ratio:.3g} times what "
                "was used), or the poses are not in metres"
            )
        return found

    def __str__(self) -> str:
        if self.doubts:
            return "; ".join(self.doubts)
        if self.pairs < FEWEST_PAIRS:
            return "too few pairs of keyframes share enough to compare poses and images"
        known = np.isfinite(self.depth_ratio)
        depth = f"; triangulated to given depth {self.depth_ratio:.2f}" if known else ""
        return f"poses and images agree in {self.agreeing:.0%} of {self.pairs} pairs of keyframes{depth}"


@dataclass(frozen=True, eq=False)
class _Pair:
    """Places of two keyframes in the map, the motion their images tell, and the matches that support it.

    Attributes:
        moved: whether the direction of travel can be told.
        rays1, rays2: (M, 2) at z = 1; depth: (M,) given for the first, 0 where unknown.
    """

    first: int
    second: int
    motion: RelativePose
    moved: bool
    rays1: Array
    rays2: Array
    depth: Array


def check_consistency(
    keyframe_map: KeyframeMap, progress: Callable[[int, int], None] = lambda done, total: None
) -> Consistency:
    """Compare poses, images and depth of evenly chosen neighbours in a map.

    Args:
        progress: called with (done, total).
    """
    keyframes = keyframe_map.keyframes
    poses = np.array([keyframe.map_T_camera for keyframe in keyframes]).reshape(-1, 4, 4)
    pairs = list(_pairs(keyframe_map, progress))
    if not pairs:
        return Consistency(0, float("nan"), float("nan"))
    given = _agreement(pairs, poses)
    cause, turn = "", _turn_error(pairs, poses)
    if len(pairs) >= FEWEST_PAIRS and (np.mean(given) < DOUBTED or turn > TURN_DEG):
        stamps = np.array([keyframe.stamp_ns for keyframe in keyframes])
        cause = _wrong_convention(pairs, poses) if np.mean(given) < DOUBTED else ""
        cause = cause or _wrong_time(pairs, poses, stamps)
    return Consistency(len(pairs), float(np.mean(given)), turn, cause, _depth_ratio(pairs, given, poses))


def _pairs(keyframe_map: KeyframeMap, progress: Callable[[int, int], None]) -> Iterator[_Pair]:
    """Pairs of keyframes whose images tell a motion."""
    ids = [keyframe.id for keyframe in keyframe_map.keyframes]
    finder = LocalFeatures(keyframe_map, FEATURES)
    chosen = np.unique(np.linspace(0, max(len(ids) - 2, 0), min(SAMPLES, len(ids))).round().astype(int)).tolist()
    for done, first in enumerate(chosen, start=1):
        progress(done, len(chosen))
        for second in (first + step for step in PARTNERS if first + step < len(ids)):
            view, descriptors = finder.describe(ids[first])
            other, theirs = finder.describe(ids[second])
            rows1, rows2 = mutual(descriptors, theirs)
            rays1, rays2 = view.rays[rows1], other.rays[rows2]
            motion = solve_relative_pose(rays1, rays2, (view.camera.focal, other.camera.focal), ESSENTIAL)
            if motion is None or motion.inlier.sum() < max(FEWEST_MATCHES, LEAST_SHARE * len(rows1)):
                continue
            inlier = motion.inlier
            depth = _depth_at(keyframe_map, ids[first], view, rows1[inlier])
            moved = _parallax(rays1[inlier], rays2[inlier], motion.camera2_T_camera1[:3, :3]) > PARALLAX_DEG
            yield _Pair(first, second, motion, moved, rays1[inlier], rays2[inlier], depth)


def _depth_at(keyframe_map: KeyframeMap, id: str, view: View, rows: NDArray[np.int64]) -> Array:
    """Given depth (M,) of features, 0 where it is unknown."""
    image = keyframe_map.frame(id).depth
    if image is None:
        return np.zeros(len(rows))
    x, y = np.rint(view.xy[rows]).astype(int).T
    depth = image[np.clip(y, 0, image.shape[0] - 1), np.clip(x, 0, image.shape[1] - 1)].astype(np.float64)
    return np.asarray(np.nan_to_num(depth))


def _parallax(rays1: Array, rays2: Array, R: Array) -> float:
    """Median angle in degrees between rays once the rotation between their cameras is undone."""
    a, b = se3.homogeneous(rays1) @ R.T, se3.homogeneous(rays2)
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(np.degrees(np.median(np.arccos(np.clip(cosine, -1, 1)))))


def _agreement(pairs: list[_Pair], poses: Poses) -> NDArray[np.bool_]:
    """Which pairs (N,) moved as poses say."""
    return np.array([_agrees(pair, se3.inverse(poses[pair.second]) @ poses[pair.first]) for pair in pairs])


def _agrees(pair: _Pair, camera2_T_camera1: Array) -> bool:
    motion = pair.motion.camera2_T_camera1
    turn = Rotation.from_matrix(motion[:3, :3].T @ camera2_T_camera1[:3, :3]).magnitude()
    if np.degrees(turn) > ROTATION_DEG:
        return False
    length = float(np.linalg.norm(camera2_T_camera1[:3, 3]))
    if not pair.moved or length == 0:
        return not pair.moved
    cosine = motion[:3, 3] @ camera2_T_camera1[:3, 3] / length
    return bool(np.degrees(np.arccos(np.clip(cosine, -1, 1))) < DIRECTION_DEG)


def _turn_error(pairs: list[_Pair], poses: Poses) -> float:
    """Mean difference in degrees between the rotations that images and poses tell; at most 10 for a pair."""
    errors = [
        (pair.motion.camera2_T_camera1[:3, :3].T @ poses[pair.second, :3, :3].T @ poses[pair.first, :3, :3])
        for pair in pairs
    ]
    return float(np.mean(np.minimum(np.degrees(Rotation.from_matrix(np.array(errors)).magnitude()), 10.0)))


def _wrong_convention(pairs: list[_Pair], poses: Poses) -> str:
    """The convention under which most pairs agree, as a sentence, if these are enough."""
    shares = {text: float(np.mean(_agreement(pairs, tried))) for text, tried in _conventions(poses)}
    best = max(shares, key=lambda text: shares[text])
    return best if shares[best] > EXPLAINED else ""


def _wrong_time(pairs: list[_Pair], poses: Poses, stamps_ns: NDArray[np.int64]) -> str:
    """By how much the poses' times are off, as a sentence, if some time makes the error much smaller."""
    errors = {}
    for offset in OFFSETS_S:
        if (shifted := _shifted(poses, stamps_ns, offset)) is not None:
            errors[offset] = _turn_error(pairs, shifted)
    best = min(errors, key=lambda offset: errors[offset], default=0.0)
    if not errors or errors[best] > TIME_GAIN * _turn_error(pairs, poses):
        return ""
    return f"they agree best with poses of about {abs(best):g} s {'later' if best > 0 else 'earlier'}"


def _conventions(poses: Poses) -> Iterator[tuple[str, Poses]]:
    """What would be wrong, and the poses as they would be right; reflections of the world alone change no motion."""
    inverse = np.array([se3.inverse(pose) for pose in poses])
    yield "they would agree if each pose were inverted: they are world to camera", inverse
    turned = poses.copy()
    turned[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    yield (
        "they would agree if the rotations alone were inverted: only these are world to camera",
        turned,
    )
    flips = {
        (
            1,
            -1,
            -1,
        ): "the camera's axes are OpenGL's (y up, z backward), expected are x right, y down, z forward",
        (-1, -1, 1): "the camera is turned by half a turn about its optical axis",
        (-1, 1, -1): "the camera looks backward",
        (1, -1, 1): "the y axis of camera and world is mirrored (as with a negative fy, ICL-NUIM)",
        (-1, 1, 1): "the x axis of camera and world is mirrored",
        (1, 1, -1): "the z axis of camera and world is mirrored",
        (-1, -1, -1): "the positions have the opposite sign",
    }
    for signs, text in flips.items():
        flip = np.diag([*signs, 1.0])
        yield text, np.array([flip @ pose @ flip for pose in poses])
    body_T_optical = np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    text = "the poses are those of a body (x forward, y left, z up), expected are those of the camera's optical frame"
    yield text, poses @ body_T_optical
    for where, given, back in (("", poses, False), (" (world to camera)", inverse, True)):
        for order, shift in (("qw qx qy qz", 1), ("qx qy qz qw", -1)):
            q = np.roll(Rotation.from_matrix(given[:, :3, :3]).as_quat(), -shift, axis=1)
            tried = given.copy()
            tried[:, :3, :3] = Rotation.from_quat(q).as_matrix()
            tried = np.array([se3.inverse(pose) for pose in tried]) if back else tried
            yield f"the quaternions{where} are in the file as {order}, not in the order that was read", tried


def _shifted(poses: Poses, stamps_ns: NDArray[np.int64], offset_s: float) -> Poses | None:
    """Poses as they are so many seconds later; None where the keyframes have no times."""
    times, kept = np.unique((stamps_ns - stamps_ns.min()) / 1e9, return_index=True)
    if len(times) < max(2, len(poses) // 2):
        return None
    at = np.clip((stamps_ns - stamps_ns.min()) / 1e9 + offset_s, times[0], times[-1])
    moved = poses.copy()
    moved[:, :3, :3] = Slerp(times, Rotation.from_matrix(poses[kept, :3, :3]))(at).as_matrix()
    moved[:, :3, 3] = np.stack([np.interp(at, times, poses[kept, axis, 3]) for axis in range(3)], axis=1)
    return moved


def _depth_ratio(pairs: list[_Pair], agrees: NDArray[np.bool_], poses: Poses) -> float:
    """Median ratio of triangulated to given depth, over pairs whose poses and images agree; NaN without any."""
    ratios: list[Array] = [np.zeros(0)]
    for pair, right in zip(pairs, agrees, strict=True):
        if not (right and pair.moved):
            continue
        camera2_T_camera1 = se3.inverse(poses[pair.second]) @ poses[pair.first]
        z = _triangulated(pair.rays1, pair.rays2, camera2_T_camera1)
        good = (pair.depth > 0) & (z > 0)
        ratios.append(z[good] / pair.depth[good])
    every = np.concatenate(ratios)
    return float(np.median(every)) if len(every) >= FEWEST_MATCHES else float("nan")


def _triangulated(rays1: Array, rays2: Array, camera2_T_camera1: Array) -> Array:
    """Depth (M,) in the first camera at which two rays come closest."""
    a, b = se3.homogeneous(rays1) @ camera2_T_camera1[:3, :3].T, se3.homogeneous(rays2)
    t = camera2_T_camera1[:3, 3]
    # z1 a + t = z2 b: the cross product with b leaves z1.
    across = np.cross(b, a)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-(across * np.cross(b, t)).sum(axis=1) / (across**2).sum(axis=1))
