"""Which frames of a recording become keyframes: those that show something new, sharply, with depth."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import PosedFrame, valid_depth
from mast3r_ros.mapping.overlap import USUAL_SPACING
from mast3r_ros.mapping.sight import Sight
from mast3r_ros.tables import setting

#: Sharpness is measured at this width, so that it means the same for every camera; pixels.
SHARPNESS_WIDTH = 320
#: Frames looking the same way that a frame's sharpness is compared with: at least, and how far back.
FEWEST_COMPARED, COMPARED = 3, 30


@dataclass(frozen=True)
class SelectionSettings:
    """When a frame becomes a keyframe."""

    distance: float = setting(
        USUAL_SPACING,
        "A view this far from every keyframe is new, as a share of the distance of what it sees (0.08: 4.6 degrees of "
        "parallax).",
        low=0,
        high=10,
    )
    distance_m: float = setting(0.0, "The same in metres, instead, where it is not 0.", low=0, high=1000, unit="m")
    angle_deg: float = setting(12.0, "So is one turned this much.", low=0, high=180, unit="deg")
    sharpness: float = setting(
        0.4,
        "Frames with less than this share of the sharpness of similar views are blurred; 0 is off.",
        low=0,
        high=1,
    )
    require_depth: bool = setting(True, "Skip frames without depth where depth is published.")
    max_keyframes: int = setting(0, "Most keyframes; 0 for no limit.", low=0, high=1000000)

    def __post_init__(self) -> None:
        if (
            self.distance < 0
            or self.distance_m < 0
            or self.angle_deg < 0
            or self.sharpness < 0
            or self.max_keyframes < 0
        ):
            raise ValueError("selection settings cannot be negative")


#: Keeps every usable frame: for sources that are a selection already.
KEEP_ALL = SelectionSettings(distance=0.0, angle_deg=0.0, sharpness=0.0)


class Skip(str, Enum):
    """Why a frame did not become a keyframe."""

    NO_CALIBRATION = "no_calibration"
    BAD_POSE = "bad_pose"
    NO_DEPTH = "no_depth"
    NOTHING_NEW = "nothing_new"
    BLURRED = "blurred"
    MAP_FULL = "map_full"


class KeyframeSelector:
    """Judges the frames of one recording in their order."""

    def __init__(self, settings: SelectionSettings | None = None) -> None:
        self.settings = settings or SelectionSettings()
        self._kept: list[NDArray[np.float64]] = []
        self._recent: deque[tuple[NDArray[np.float64], float]] = deque(maxlen=COMPARED)
        self._depth_seen = False
        self._sight = Sight()

    def judge(self, posed: PosedFrame) -> Skip | None:
        """Why the frame is not needed, or None: it is a keyframe now, and later frames are compared with it."""
        frame, pose, settings = posed.frame, np.asarray(posed.map_T_camera), self.settings
        if frame.camera is None:
            return Skip.NO_CALIBRATION
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            return Skip.BAD_POSE
        has_depth = frame.depth is not None and bool(valid_depth(frame.depth).any())
        self._depth_seen |= has_depth
        reach = self._reach(posed)
        blurred = settings.sharpness > 0 and self._is_blurred(frame.image, pose, reach)
        if settings.require_depth and self._depth_seen and not has_depth:
            return Skip.NO_DEPTH
        if self._kept and self._similar(pose, self._kept, reach, 1.0).any():
            return Skip.NOTHING_NEW
        if blurred:
            return Skip.BLURRED
        if settings.max_keyframes and len(self._kept) >= settings.max_keyframes:
            return Skip.MAP_FULL
        self.remember(pose)
        self._sight.keep(posed)
        return None

    def _reach(self, posed: PosedFrame) -> float:
        """How far a view must be from another to be new, metres."""
        if self.settings.distance_m or not self.settings.distance:
            return self.settings.distance_m
        return self.settings.distance * self._sight.distance(posed)

    def remember(self, map_T_camera: NDArray[np.float64]) -> None:
        """A keyframe there is in the map already: nothing near it is new. (4, 4)."""
        self._kept.append(map_T_camera)

    def _is_blurred(self, image: NDArray[np.uint8], pose: NDArray[np.float64], reach: float) -> bool:
        """Compare with recent views of the same things only: a plain surface has little contrast when sharp, too."""
        value = sharpness(image)
        comparable = np.zeros(0)
        if self._recent:
            near = self._similar(pose, [recent for recent, _ in self._recent], reach, 2.0)
            comparable = np.array([recent for _, recent in self._recent])[near]
        self._recent.append((pose, value))
        return len(comparable) >= FEWEST_COMPARED and value < self.settings.sharpness * float(np.median(comparable))

    def _similar(
        self, pose: NDArray[np.float64], others: list[NDArray[np.float64]], reach: float, factor: float
    ) -> NDArray[np.bool_]:
        """Which poses are within a distance (m) and the settings' angle, times a factor."""
        poses = np.stack(others)
        moved = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1)
        cosine = (np.einsum("nij,ij->n", poses[:, :3, :3], pose[:3, :3]) - 1) / 2  # trace of the rotation between
        turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        near: NDArray[np.bool_] = (moved < factor * reach) & (turned < factor * self.settings.angle_deg)
        return near


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of an (H, W, 3) image, reduced to a common width: small where motion smeared it."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if grey.shape[1] > SHARPNESS_WIDTH:
        height = max(1, round(grey.shape[0] * SHARPNESS_WIDTH / grey.shape[1]))
        grey = cv2.resize(grey, (SHARPNESS_WIDTH, height), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())
