"""The faults: each takes the frames of a stretch as they were and gives them as the robot gets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3

Array = NDArray[np.float64]
Rng = np.random.Generator

#: How far the mount is bumped, the focal length off, and how late a delayed frame or an offset clock is.
BUMP_DEG, FOCAL, DELAY_S, OFFSET_S = 3.0, 1.05, 0.3, 0.1


@dataclass(frozen=True, eq=False)
class Moment:
    """A frame as the robot gets it, and the truth.

    Attributes:
        odom_T_camera: what TF says of the odometry; None where it says nothing.
        map_T_base: where the robot truly is.
        base_T_camera: where TF says that the camera is mounted.
    """

    frame: Frame
    odom_T_camera: Array | None
    map_T_base: Array
    base_T_camera: Array


Fault = Callable[[Sequence[Moment], Rng], list[Moment]]


def _frames(moments: Sequence[Moment], change: Callable[[Frame], Frame]) -> list[Moment]:
    return [replace(moment, frame=change(moment.frame)) for moment in moments]


def frozen_camera(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """The driver sends its last picture again and again, with new stamps."""
    return _frames(moments, lambda frame: replace(frame, image=moments[0].frame.image))


def dropped_and_delayed(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """Half of the frames are lost, the others stamped when they come: 0.3 s after they were taken."""
    late = _shifted(moments, DELAY_S)
    return [moment for moment in late if rng.random() < 0.5] or late[-1:]


def focal_5_percent(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """The focal length in camera_info is 5 % too long or too short."""
    factor = FOCAL if rng.integers(2) else 1 / FOCAL
    return _with_camera(moments, lambda K: np.diag([factor, factor, 1]) @ (K - _centre(K)) + _centre(K))


def bumped_mount(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """The camera looks 3 degrees elsewhere than TF says: as seen from the camera, TF is turned."""
    axis = rng.normal(size=3)
    turned = se3.exp(np.concatenate([np.zeros(3), np.radians(BUMP_DEG) * axis / np.linalg.norm(axis)]))
    return [
        replace(
            moment,
            base_T_camera=moment.base_T_camera @ turned,
            odom_T_camera=None if moment.odom_T_camera is None else moment.odom_T_camera @ turned,
        )
        for moment in moments
    ]


def mirrored_or_rotated(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """The stream is mirrored, or upside down."""
    flip = int(rng.choice([1, -1]))
    return _frames(moments, lambda frame: replace(frame, image=np.ascontiguousarray(cv2.flip(frame.image, flip))))


def overexposure(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """Everything bright is white."""
    gain = float(rng.uniform(2.0, 6.0))
    return _frames(moments, lambda f: replace(f, image=np.clip(f.image * gain, 0, 255).astype(np.uint8)))


def dirt(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """Blurred dark spots that move with the camera."""
    height, width = moments[0].frame.image.shape[:2]
    clear = np.ones((height, width), np.float32)
    for _ in range(int(rng.integers(3, 12))):
        at = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(clear, at, int(rng.integers(8, max(9, height // 4))), float(rng.uniform(0, 0.5)), -1)
    clear = cv2.GaussianBlur(clear, (0, 0), 5)[..., None]
    return _frames(moments, lambda f: replace(f, image=(f.image * clear + 60 * (1 - clear)).astype(np.uint8)))


def wrong_camera_info(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """The calibration of another camera of the same size: another lens, another centre."""
    factor = float(rng.choice([0.6, 0.75, 1.3, 1.6]))
    moved = np.array([[0, 0, rng.uniform(-15, 15)], [0, 0, rng.uniform(-15, 15)], [0, 0, 0]])
    return _with_camera(moments, lambda K: np.diag([factor, factor, 1]) @ (K - _centre(K)) + _centre(K) + moved)


def tf_late_or_missing(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """TF knows nothing of the odometry, for all of the frames or for some."""
    share = float(rng.choice([1.0, 0.5]))
    return [replace(m, odom_T_camera=None) if rng.random() < share else m for m in moments]


def odometry_slip_or_jump(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """Wheels slip, so that odometry tells half as much again or half of the way; or it jumps by a metre."""
    first = moments[0].odom_T_camera
    if first is None:
        return list(moments)
    jump = se3.make(np.eye(3), rng.choice([-1.0, 1.0], 3) * [1, 1, 0])
    factor, jumps = float(rng.choice([0.5, 1.5])), bool(rng.integers(2))

    def changed(odom: Array | None) -> Array | None:
        if odom is None:
            return None
        if jumps:
            return np.asarray(jump @ odom)
        slipped = odom.copy()
        slipped[:3, 3] = first[:3, 3] + factor * (odom[:3, 3] - first[:3, 3])
        return slipped

    return [replace(moment, odom_T_camera=changed(moment.odom_T_camera)) for moment in moments]


def time_offset(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """Pictures are stamped 100 ms after they were taken: odometry and truth are those of the stamp."""
    return _shifted(moments, OFFSET_S)


def other_floor(moments: Sequence[Moment], rng: Rng) -> list[Moment]:
    """The map is of another place (the campaign asks another map)."""
    return list(moments)


def _shifted(moments: Sequence[Moment], seconds: float) -> list[Moment]:
    """Odometry and truth of ``seconds`` after each frame, on the way to the next one."""
    shifted = []
    for now, then in pairwise(moments):
        share = seconds * 1e9 / max(then.frame.stamp_ns - now.frame.stamp_ns, 1)
        odom = now.odom_T_camera
        if odom is not None and then.odom_T_camera is not None:
            odom = _between(odom, then.odom_T_camera, share)
        frame = replace(now.frame, stamp_ns=now.frame.stamp_ns + round(seconds * 1e9))
        base = _between(now.map_T_base, then.map_T_base, share)
        shifted.append(replace(now, frame=frame, odom_T_camera=odom, map_T_base=base))
    return shifted


def _between(a: Array, b: Array, share: float) -> Array:
    return np.asarray(a @ se3.exp(share * se3.log(se3.inverse(a) @ b)))


def _centre(K: Array) -> Array:
    centre = np.zeros((3, 3))
    centre[:2, 2] = K[:2, 2]
    return centre


def _with_camera(moments: Sequence[Moment], change: Callable[[Array], Array]) -> list[Moment]:
    camera = moments[0].frame.camera
    assert camera is not None
    K = np.asarray(change(camera.K))
    wrong = Camera(camera.width, camera.height, K, camera.model, camera.D)
    return _frames(moments, lambda frame: replace(frame, camera=wrong))


FAULTS: dict[str, Fault] = {
    "frozen_camera": frozen_camera,
    "dropped_and_delayed": dropped_and_delayed,
    "focal_5_percent": focal_5_percent,
    "bumped_mount": bumped_mount,
    "mirrored_or_rotated": mirrored_or_rotated,
    "overexposure": overexposure,
    "dirt": dirt,
    "wrong_camera_info": wrong_camera_info,
    "tf_late_or_missing": tf_late_or_missing,
    "odometry_slip_or_jump": odometry_slip_or_jump,
    "time_offset": time_offset,
    "other_floor": other_floor,
}
