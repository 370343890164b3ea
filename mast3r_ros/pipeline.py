"""The whole way of a frame in one object: the node, the commands, replay and evaluation all use this one.

keyframes = open_map("maps/office")
relocalizer = Relocalizer(keyframes, load_matcher("auto"), Settings.read("robot.yaml"))
answer = relocalizer.localize("photo.jpg")
print(answer.map_T_camera, answer.covariance, answer.reason)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.io.codec.image_files import ImageFiles
from mast3r_ros.io.datasets import open_source
from mast3r_ros.io.datasets.base import read_expected
from mast3r_ros.localization import Localizer, PoseEstimate, PosePrior, Tracker
from mast3r_ros.localization.map_noise import save_ready
from mast3r_ros.localization.several_views import localize_rig
from mast3r_ros.mapping import build
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.rescale import is_metric
from mast3r_ros.mapping.selection import SelectionSettings
from mast3r_ros.matching import registry
from mast3r_ros.matching.base import Matcher
from mast3r_ros.multiview.refine_map import is_odometry, refine_if_possible
from mast3r_ros.settings import Settings

Array = NDArray[np.float64]

#: Told how many keyframes are described, of how many.
Progress = Callable[[int, int], None]


class Relocalizer:
    """Finds a camera in a map. One caller at a time.

    Args:
        keyframes: the map, of :func:`open_map` or :func:`build_map`.
        matcher: of :func:`load_matcher`.
        settings: everything that can be chosen; may be replaced as a whole between two frames.
        progress: is told while keyframes are described, which happens once for each map and matcher.

    Raises:
        MapError: for a map without keyframes, or one whose scale is unknown.
    """

    def __init__(
        self,
        keyframes: KeyframeMap,
        matcher: Matcher,
        settings: Settings = Settings(),
        progress: Progress | None = None,
    ) -> None:
        if not len(keyframes):
            raise MapError("the map has no keyframes: build it again from a recording with poses")
        if not is_metric(keyframes):
            raise MapError(
                "the map's scale is unknown, so no pose in it is in metres: give it one by the distance of two "
                "keyframes (mast3r_ros map scale MAP --known-length A B METRES)"
            )
        keyframes.feature_memory = settings.node.feature_memory << 20
        keyframes.prepare(matcher, progress)
        self._localizer = Localizer(keyframes, matcher, settings.localizer)
        self._tracker = Tracker(self._localizer, settings.tracking)
        self._settings = settings
        self._image_files = ImageFiles()

    @property
    def map(self) -> KeyframeMap:
        """The map that frames are localized in."""
        return self._localizer.map

    @property
    def matcher(self) -> Matcher:
        """What finds matches."""
        return self._localizer.matcher

    @property
    def localizer(self) -> Localizer:
        """The part that looks at one frame, without memory."""
        return self._localizer

    @property
    def settings(self) -> Settings:
        """The settings that the next frame is localized with."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        if settings is not self._settings:
            self._settings = settings
            self._localizer.settings, self._tracker.settings = settings.localizer, settings.tracking

    @property
    def map_T_odom(self) -> Array | None:
        """(4, 4) correction of the odometry by the last accepted pose of the track; None before the first."""
        return self._tracker.map_T_odom

    def localize(
        self,
        image: str | Path | NDArray[np.uint8] | Frame,
        camera: Camera | None = None,
        *,
        depth: NDArray[np.float32] | None = None,
        prior: PosePrior | None = None,
    ) -> PoseEstimate:
        """Find the pose of one image on its own, or say why it cannot be found.

        Args:
            image: an image file, (H, W, 3) uint8 RGB pixels, or a frame that has everything.
            camera: its calibration; without one the map's own is taken where the size fits, else the focal length
                is estimated.
            depth: (H, W) metres along the optical axis, registered to the image; 0 or NaN where unknown. Poses are
                held against it.
            prior: where the camera should be. It guides the search and never decides.

        Returns:
            ``map_T_camera`` (4, 4), its ``covariance`` (6, 6) in ROS order, and the ``reason`` why it was rejected.

        Raises:
            DatasetError: for a file that is no image.
        """
        return self._localizer.localize(self._frame(image, camera, depth), prior)

    def localize_rig(self, frames: Sequence[Frame], rig_T_cameras: NDArray[np.float64]) -> PoseEstimate:
        """Find the first of a rig's cameras: alone where its picture is enough, else by all pictures together.

        Args:
            frames: calibrated, one of each camera, taken at the same time.
            rig_T_cameras: (C, 4, 4) where the cameras are on the rig.
        """
        return localize_rig(self._localizer, frames, rig_T_cameras)

    def track(self, frame: Frame, odom_T_camera: Array | None = None) -> PoseEstimate:
        """Localize the next frame of a moving camera: odometry and earlier answers guide it and contradict it.

        Args:
            frame: with its time stamp.
            odom_T_camera: (4, 4) pose of the camera in the odometry frame at that time, where there is odometry.
        """
        return self._tracker.localize(frame, odom_T_camera)

    def set_prior(self, prior: PosePrior, odom_T_camera: Array | None = None, stamp_ns: int = 0) -> None:
        """Tell where the camera of the track is believed to be; what was known is forgotten.

        Args:
            odom_T_camera: (4, 4) odometry at that moment, so that the belief moves along with the robot.
            stamp_ns: that moment.
        """
        self._tracker.set_prior(prior, odom_T_camera, stamp_ns)

    def reset(self) -> None:
        """Forget the track: the camera may be anywhere."""
        self._tracker.reset()

    def _frame(
        self,
        image: str | Path | NDArray[np.uint8] | Frame,
        camera: Camera | None,
        depth: NDArray[np.float32] | None,
    ) -> Frame:
        if isinstance(image, Frame):
            return image
        name = str(image) if isinstance(image, (str, Path)) else ""
        if isinstance(image, (str, Path)):
            cameras = [camera] if camera is not None else self.map.cameras
            pixels = read_expected(Path(image), cameras[0] if len(cameras) == 1 else None, self._image_files)
        else:
            pixels = image
        if camera is None:
            camera = self.map.camera_of_size(pixels.shape[1], pixels.shape[0])
        return Frame(pixels, camera, depth=depth, name=name)


def open_map(path: str | Path) -> KeyframeMap:
    """Read a map.

    Raises:
        MapError: where there is none, or it is damaged or of a newer format.
    """
    return KeyframeMap.load(Path(path))


def build_map(
    source: str | Path,
    output: str | Path,
    *,
    matcher: Matcher | None = None,
    selection: SelectionSettings | None = None,
) -> KeyframeMap:
    """Make a map of a recording with poses: a bag, or a 7-Scenes, TUM RGB-D, COLMAP or images + poses folder.

    Where no depth is known and odometry alone knows the poses, these are made anew by structure from motion.

    Args:
        output: folder that it is saved to.
        matcher: triangulates keyframes without depth, and measures how well the map finds itself; the best that can
            run here by default.
        selection: which frames become keyframes.

    Raises:
        BagError, DatasetError, MapError: for what cannot be read, or has no usable frame.
    """
    chosen, frames = matcher or load_matcher(), open_source(Path(source))
    keyframes, _ = build.build_map(
        frames,
        selection=selection,
        matcher=chosen,
        describe=False,
        source_name=str(source),
        refine=refine_if_possible if is_odometry(str(getattr(frames, "map_frame", ""))) else None,
    )
    if not len(keyframes):
        raise MapError(f"{source}: no frame can become a keyframe: each needs a calibration and a pose")
    save_ready(keyframes, chosen, Path(output))
    return keyframes


def load_matcher(name: str = "auto", **options: Any) -> Matcher:
    """The matcher of this name: ``sift``, ``mast3r``, ``dust3r``, one that was registered, or ``auto`` for the best.

    Args:
        options: its settings, such as ``checkpoint="mast3r.safetensors"`` or ``feature="orb"``.

    Raises:
        MatcherError: for an unknown name, or options that the matcher does not have.
        CheckpointError: for a checkpoint that cannot be used.
    """
    return registry.create(name, **options)
