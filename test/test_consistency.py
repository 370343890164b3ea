"""A map is held against its own images: what is wrong with its poses, times or depth is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
import walls
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.consistency import Consistency, check_consistency
from mast3r_ros.mapping.keyframe_map import KeyframeMap

Array = NDArray[np.float64]

CAMERA = Camera.pinhole(320, 240, 260, 260, 159.5, 119.5)
#: Two posters that face the camera: how far they are and how large, metres. One pixel of a poster is 5 mm.
WALL, BOARD = (3.0, 7.0), (2.0, 1.2)


def pose_at(time_s: float) -> Array:
    """A hand that moves to and fro, and turns otherwise than it moves."""
    return se3.exp(
        [
            0.5 * np.sin(0.9 * time_s),
            0.2 * np.cos(1.7 * time_s),
            0.1 * np.sin(2.3 * time_s),
            *np.radians([6 * np.sin(1.3 * time_s), 12 * np.sin(1.1 * time_s + 1), 5 * np.sin(0.7 * time_s)]),
        ]
    )


def seen(posters: Sequence[NDArray[np.uint8]], pose: Array, stamp_s: float) -> PosedFrame:
    """Image and depth of both posters, the nearer one in front."""
    camera_T_map = se3.inverse(pose)
    rays = np.concatenate([CAMERA.pixel_rays, np.ones((CAMERA.height, CAMERA.width, 1))], axis=-1)
    image, depth = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8), np.zeros((CAMERA.height, CAMERA.width))
    for texture, (z, size) in zip(posters, (WALL, BOARD), strict=True):
        texture = texture[: round(size / 0.005), : round(size / 0.005)]
        half = texture.shape[0] * 0.005 / 2
        plane_T_pixel = np.array([[0.005, 0, -half], [0, 0.005, -half], [0, 0, 1]])
        plane = np.stack(
            [camera_T_map[:3, 0], camera_T_map[:3, 1], camera_T_map[:3, :3] @ [0, 0, z] + camera_T_map[:3, 3]]
        )
        homography = CAMERA.K @ plane.T @ plane_T_pixel
        size_px = (CAMERA.width, CAMERA.height)
        inside = cv2.warpPerspective(np.ones(texture.shape[:2], np.uint8), homography, size_px) > 0
        image[inside] = cv2.warpPerspective(texture, homography, size_px)[inside]
        depth[inside] = ((z - pose[2, 3]) / (rays @ pose[2, :3]))[inside]
    return PosedFrame(Frame(image, CAMERA, round(stamp_s * 1e9), depth.astype(np.float32)), pose)


@pytest.fixture(scope="module")
def recording() -> list[PosedFrame]:
    posters = [walls.poster(0), walls.poster(1)]
    return [seen(posters, pose_at(time_s), time_s) for time_s in np.arange(0, 6, 0.5)]


def checked(
    recording: Sequence[PosedFrame], wrong: Callable[[Array, float], Array], depth_scale: float = 1.0
) -> Consistency:
    """A map of the posters whose poses somebody wrote otherwise."""
    keyframe_map = KeyframeMap()
    for posed in recording:
        frame = Frame(posed.frame.image, CAMERA, posed.frame.stamp_ns, posed.frame.depth * np.float32(depth_scale))
        keyframe_map.add(PosedFrame(frame, wrong(posed.map_T_camera, frame.stamp_ns / 1e9)))
    return check_consistency(keyframe_map)


def test_a_right_map_is_not_doubted(recording: list[PosedFrame]) -> None:
    found = checked(recording, lambda pose, _: pose)
    assert found.pairs >= 12 and found.agreeing > 0.9 and found.turn_deg < 0.5 and not found.doubts
    assert found.depth_ratio == pytest.approx(1, abs=0.03)
    assert "agree" in str(found)


def quaternion_reversed(pose: Array, _: float) -> Array:
    """w first in the file, read as if it were last."""
    x, y, z, w = se3.quaternion(pose)
    return se3.make(Rotation.from_quat([w, x, y, z]).as_matrix(), pose[:3, 3])


FLIP_Y, OPENGL = np.diag([1.0, -1, 1, 1]), np.diag([1.0, -1, -1, 1])
BODY_T_OPTICAL = np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (lambda pose, _: se3.inverse(pose), "world to camera"),
        (lambda pose, _: pose @ OPENGL, "OpenGL"),
        (lambda pose, _: FLIP_Y @ pose @ FLIP_Y, "y axis of camera and world is mirrored"),
        (lambda pose, _: pose @ se3.inverse(BODY_T_OPTICAL), "those of a body"),
        (quaternion_reversed, "in the file as qw qx qy qz"),
    ],
)
def test_poses_in_another_convention_are_named(
    recording: list[PosedFrame], wrong: Callable[[Array, float], Array], cause: str
) -> None:
    found = checked(recording, wrong)
    assert found.agreeing < 0.5
    (doubt,) = found.doubts
    assert "contradict the images" in doubt and cause in doubt


@pytest.mark.parametrize("offset_s", [1.0, -0.5])
def test_poses_of_another_clock_are_named(recording: list[PosedFrame], offset_s: float) -> None:
    found = checked(recording, lambda _, time_s: pose_at(time_s + offset_s))
    (doubt,) = found.doubts
    assert f"{abs(offset_s):g} s {'earlier' if offset_s > 0 else 'later'}" in doubt


@pytest.mark.parametrize("scale", [5.0, 0.2])
def test_depth_in_other_units_is_named(recording: list[PosedFrame], scale: float) -> None:
    found = checked(recording, lambda pose, _: pose, depth_scale=1 / scale)
    assert found.depth_ratio == pytest.approx(scale, rel=0.05)
    (doubt,) = found.doubts
    assert "depth and poses disagree" in doubt and "--depth-scale" in doubt
