"""TUM RGB-D benchmark (Sturm et al., IROS 2012); ICL-NUIM (Handa et al., ICRA 2014) and Bonn come in the same layout.

rgb.txt          lines "timestamp rgb/1305031102.175304.png"
depth.txt        lines "timestamp depth/1305031102.160407.png"; 16 bits, 5000 per metre, registered to colour
groundtruth.txt  lines "timestamp tx ty tz qx qy qz qw": colour camera to world

ICL-NUIM's cameras have their y axis upward and a world mirrored to match (its fy is -480): both are mirrored back.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import FrameList, read_depth, read_table
from mast3r_ros.io.datasets.stamps import stamps_ns
from mast3r_ros.io.datasets.trajectory_file import read_trajectory

log = logging.getLogger(__name__)

#: Colour cameras of the three recording set-ups, from the benchmark's calibration page; fr3 comes undistorted.
CAMERAS = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}
#: ICL-NUIM's folders, such as living_room_traj2_frei_png or traj0_loop; its camera, with fy taken positive.
ICL_NUIM = re.compile(r"(living_room|office_room|^)_?traj\d_?(frei|loop|n_frei)?", re.IGNORECASE)
ICL_CAMERA = (481.2, 480.0, 319.5, 239.5)
_MIRROR_Y = np.diag([1.0, -1.0, 1.0, 1.0])
#: Ground truth further apart than this is a gap of the motion capture, not a motion to interpolate.
LONGEST_GAP_S = 0.2


class TumRgbd(FrameList):
    """One sequence folder.

    Args:
        camera: the colour camera; None takes it from the folder's name (freiburg1, 2, 3).
        depth_scale: units of the depth images per metre.
        max_delay_s: how far apart colour and depth of one frame may be.
        use_depth: False leaves depth away.
        mirror_y: the y axes of camera and world are mirrored, as ICL-NUIM's; None finds out by the folder's name.

    Raises:
        DatasetError: for missing or malformed lists, or an unknown camera.
    """

    layout = "tum"

    def __init__(
        self,
        path: Path,
        camera: Camera | None = None,
        depth_scale: float = 5000.0,
        max_delay_s: float = 0.02,
        use_depth: bool = True,
        mirror_y: bool | None = None,
    ) -> None:
        super().__init__(path.name)
        self._path, self._depth_scale = path, depth_scale
        if mirror_y is None and (mirror_y := ICL_NUIM.search(path.resolve().name) is not None):
            log.warning("%s is taken as ICL-NUIM: the y axes of its cameras and its world are mirrored back", path.name)
        self._camera = camera or _camera_of(path.resolve().name)
        has_depth = use_depth and (path / "depth.txt").exists()
        depth_stamps, depth_files = _file_list(path / "depth.txt") if has_depth else ([], [])
        truth_stamps, truth_poses = _trajectory(path / "groundtruth.txt")
        self._entries: list[tuple[float, str, str | None, NDArray[np.float64]]] = []
        images = 0
        for stamp, file in zip(*_file_list(path / "rgb.txt"), strict=True):
            images += 1
            pose = _pose_at(stamp, truth_stamps, truth_poses)
            if pose is not None and mirror_y:
                pose = _MIRROR_Y @ pose @ _MIRROR_Y
            nearest = _nearest(stamp, depth_stamps, max_delay_s)
            if pose is not None:
                self._entries.append((stamp, file, None if nearest is None else depth_files[nearest], pose))
        if not self._entries:
            raise DatasetError(
                f"{path}: none of {images} images has a pose in groundtruth.txt at its time: "
                f"{_times(truth_stamps)}, the images' in rgb.txt {_times(_file_list(path / 'rgb.txt')[0])}"
            )
        if len(self._entries) < images:
            log.info("%s: %d of %d images have no ground truth and are left out", path, images - len(self), images)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def stamps_s(self) -> list[float]:
        """Times of all frames in seconds."""
        return [stamp for stamp, *_ in self._entries]

    def read(self, index: int) -> PosedFrame:
        """One frame with its ground-truth pose, interpolated to the image's time."""
        stamp, file, depth_file, pose = self._entries[index]
        image, camera = self._read_image(self._path / file, self._camera)
        depth = None if depth_file is None else read_depth(self._path / depth_file, self._depth_scale)
        return PosedFrame(Frame(image, camera, round(stamp * 1e9), depth, name=file), pose)


def _times(stamps: list[float]) -> str:
    return f"its times are {stamps[0]:.3f} to {stamps[-1]:.3f} s" if stamps else "it has no times"


def _camera_of(name: str) -> Camera:
    for known, ((fx, fy, cx, cy), D) in CAMERAS.items():
        if known in name.lower() or known.replace("freiburg", "fr") in name.lower():
            K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
            return Camera(640, 480, K, "plumb_bob", np.array(D))
    if ICL_NUIM.search(name):
        return Camera.pinhole(640, 480, *ICL_CAMERA)
    raise DatasetError(
        f"the camera of '{name}' is unknown (its name holds none of {', '.join(CAMERAS)}): "
        "give its calibration (--intrinsics)"
    )


def _file_list(path: Path) -> tuple[list[float], list[str]]:
    """Stamps in seconds and file names, sorted by stamp."""
    stamps, files = [], []
    for line, (stamp, *name) in read_table(path):
        if not name:
            raise DatasetError(f"{path}, line {line}: expected 'timestamp filename'")
        stamps.append((line, stamp))
        files.append(" ".join(name))
    rows = sorted(zip(stamps_ns(path, stamps), files, strict=True))
    return [stamp / 10**9 for stamp, _ in rows], [file for _, file in rows]


def _trajectory(path: Path) -> tuple[list[float], list[NDArray[np.float64]]]:
    """Stamps in seconds and poses, sorted by stamp."""
    rows = read_trajectory(path)
    return [stamp_ns / 10**9 for stamp_ns, _ in rows], [pose for _, pose in rows]


def _pose_at(stamp: float, stamps: list[float], poses: list[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    after = bisect_left(stamps, stamp)
    if after < len(stamps) and stamps[after] == stamp:
        return poses[after]
    if after in (0, len(stamps)) or stamps[after] - stamps[after - 1] > LONGEST_GAP_S:
        return None
    alpha = (stamp - stamps[after - 1]) / (stamps[after] - stamps[after - 1])
    return se3.interpolate(poses[after - 1], poses[after], alpha)


def _nearest(stamp: float, stamps: list[float], most: float) -> int | None:
    after = bisect_left(stamps, stamp)
    around = [i for i in (after - 1, after) if 0 <= i < len(stamps) and abs(stamps[i] - stamp) <= most]
    return min(around, key=lambda i: abs(stamps[i] - stamp), default=None)
