"""A tiny place for campaigns: views that the fake matcher recognises, and where they were taken from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.endure.campaign import Wrong
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.mapping.keyframe_map import KeyframeMap

Array = NDArray[np.float64]

CAMERA = Camera.pinhole(96, 72, 78.0, 78.0, 47.5, 35.5)
CAMERA_FRAME, STAMP_NS = "camera_optical", 1_700_000_000_000_000_000
#: The camera looks forward from 0.2 m in front of and 0.5 m above the robot's centre.
BASE_T_CAMERA = se3.make([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0.2, 0.0, 0.5])
VIEWS = 4
#: A pose further off than this is wrong.
WRONG_M, WRONG_DEG = 0.25, 10.0


def view(number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Image (72, 96, 3) and depth (72, 96) of a view: blobs that no other view has, on a bowl."""
    coarse = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((12, 12, 1), np.uint8))
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    depth = (2.0 + 0.5 * np.sin(u / 15.0 + number) + 0.5 * np.cos(v / 12.0)).astype(np.float32)
    return image, depth


def map_T_camera(number: int) -> Array:
    """Where a view was taken: half a metre further along the map's x axis each."""
    return se3.make(np.eye(3), [0.5 * number, 0.0, 0.0]) @ BASE_T_CAMERA


def small_map(views: int = VIEWS) -> KeyframeMap:
    """A map of so many views, in memory."""
    made = KeyframeMap("map")
    for number in range(views):
        image, depth = view(number)
        made.add(PosedFrame(Frame(image, CAMERA, number * 10**9, depth), map_T_camera(number)), f"k{number}")
    return made


def check_pose(estimate: PoseEstimate, number: int, what: str) -> str:
    """The outcome's name. Raises Wrong for an accepted pose that is not where view ``number`` was taken."""
    if not estimate.localized:
        return f"rejected: {estimate.reason.value}"
    assert estimate.map_T_camera is not None
    if off := wrong(map_T_camera(number), estimate.map_T_camera):
        raise Wrong(f"wrong pose after {what.split(':')[0]}", f"{off}: {what}")
    return "localized"


def wrong(truth: Array, pose: Array) -> str:
    """By how much a pose (4, 4) is wrong; empty where it is not."""
    off = se3.inverse(truth) @ pose
    metres, degrees = float(np.linalg.norm(off[:3, 3])), float(np.degrees(np.linalg.norm(se3.log(off)[3:])))
    return "" if metres <= WRONG_M and degrees <= WRONG_DEG else f"off by {metres:.2f} m, {degrees:.1f} deg"
