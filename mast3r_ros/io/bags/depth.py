"""Depth images of a recording as the colour camera would have measured them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import BagError, CalibrationError, CodecError
from mast3r_ros.frames import Camera, valid_depth
from mast3r_ros.io import codec
from mast3r_ros.io.bags.messages import decode_any_depth, frame_of, stamp_ns
from mast3r_ros.io.bags.readable import Readable
from mast3r_ros.io.bags.topics import FrameTopics, pixel_encoding
from mast3r_ros.io.codec.depth import DEPTH_ENCODINGS
from mast3r_ros.registration import register_depth, same_view
from mast3r_ros.transforms import DisconnectedFrames, TransformUnavailable, UnknownFrame

Depth = NDArray[np.float32]

GIVEN = "given"
AS_IT_IS, REGISTERED = "as it is: in the colour camera's view", "registered through camera_info and TF"


@dataclass(frozen=True)
class DepthUse:
    """How depth is used, by its first message.

    Attributes:
        frame: its frame_id.
        encoding: of its pixels; compressed depth by what is in it.
        unit_m: metres of one unit; 0 where the encoding is unknown.
        how: :data:`AS_IT_IS`, :data:`REGISTERED`, or empty where it is not used.
        median_m: median of what it measures, None where nothing.
        doubts: sentences.
    """

    frame: str
    encoding: str
    unit_m: float
    how: str
    median_m: float | None
    doubts: tuple[str, ...]


class DepthRefused(BagError):
    """Depth that no frame of the recording can use."""


class DepthOf:
    """Registers the depth messages of one recording to its images.

    Args:
        required: depth was asked for by name: where it can never be used, BagError is raised.
    """

    def __init__(self, bag: Readable, topics: FrameTopics, required: bool) -> None:
        self.bag, self.topics, self.required = bag, topics, required
        self._info: Any = None
        self._camera: Camera | None = None
        self._refused = False
        self._told: set[str] = set()

    def look(self, first: tuple[Any, Camera | None, tuple[int, int]] | None) -> DepthUse:
        """Read what registration needs, and say how depth will be used.

        One file has one reading position: this comes before the images are read.

        Args:
            first: the first image's message, camera and size (width, height), where there is one.

        Raises:
            BagError: for required depth that can never be used.
        """
        topic = str(self.topics.depth)
        if self.topics.depth_info:
            self._info = self.bag.first(self.topics.depth_info)
        try:
            message = self.bag.first(topic)
        except BagError as error:
            return DepthUse("", "", 0.0, "", None, (str(error),))
        encoding = pixel_encoding(message)
        unit = DEPTH_ENCODINGS.get(encoding, ("", 0.0))[1]
        doubts: list[str] = []
        how, median = "", None
        try:
            depth = decode_any_depth(message)
            measured = depth[valid_depth(depth)]
            median = float(np.median(measured)) if measured.size else None
            doubts += _doubts_about(topic, encoding, measured)
            if first is not None:
                image, camera, size = first
                how = AS_IT_IS if self._fits(depth, message, image, camera, size) else REGISTERED
                if how == REGISTERED:
                    self._check_registration(message, image, camera)
        except DepthRefused as error:
            how = ""
            doubts.append(self._refuse(str(error)))
        except CodecError as error:
            how = AS_IT_IS  # later messages may be whole
            self._told.add("damaged")
            doubts.append(f"the first depth image on {topic} cannot be decoded ({error}): such are not used")
        if not self.bag.topics[topic].stamped and self.bag.topics[self.topics.image].stamped:
            how = ""
            doubts.append(self._refuse(f"depth on {topic} has no time (its stamps are 0), so it belongs to no image"))
        return DepthUse(frame_of(message), encoding, unit, how, median, tuple(doubts))

    def registered(
        self, message: Any, image: Any, camera: Camera | None, size: tuple[int, int], time_ns: int
    ) -> Depth | None:
        """(H, W) float32 metres in the colour camera, or None where the depth cannot be used; then it is told why.

        Args:
            image, camera, size, time_ns: the image's message, calibration, (width, height) and time.
        """
        if self._refused:
            return None
        stamp = f"{time_ns / 1e9:.3f} s"
        try:
            depth = decode_any_depth(message)
            if self._fits(depth, message, image, camera, size):
                return depth
            return self._registered(depth, message, image, camera, time_ns)
        except CodecError as error:
            self._tell("damaged", f"depth on {self.topics.depth} at {stamp} cannot be decoded ({error}): not used")
        except DepthRefused as error:
            self.bag.report(self._refuse(str(error)))
        except TransformUnavailable as error:
            self._tell(
                "tf", f"depth on {self.topics.depth} at {stamp} has no transform to its image ({error}): not used"
            )
        return None

    def _tell(self, kind: str, what: str) -> None:
        """Each kind of trouble once: it may be that of every message."""
        if kind not in self._told:
            self._told.add(kind)
            self.bag.report(f"{what}; it is said once, however many there are")

    def _fits(self, depth: Depth, message: Any, image: Any, camera: Camera | None, size: tuple[int, int]) -> bool:
        """Whether depth is registered already: of the image's frame and size, with its intrinsics."""
        if frame_of(message) != frame_of(image) or (depth.shape[1], depth.shape[0]) != size:
            return False
        return same_view(self._depth_camera(depth.shape[1], depth.shape[0]), camera)

    def _check_registration(self, message: Any, image: Any, camera: Camera | None) -> None:
        """Raises DepthRefused where registration can never work."""
        depth = decode_any_depth(message)
        with suppress(TransformUnavailable):  # at this time; others may have one
            self._registered(depth, message, image, camera, stamp_ns(image))

    def _registered(self, depth: Depth, message: Any, image: Any, camera: Camera | None, time_ns: int) -> Depth:
        what = f"depth on {self.topics.depth} is not registered to {self.topics.image}"
        depth_camera = self._depth_camera(depth.shape[1], depth.shape[0])
        if depth_camera is None or camera is None:
            missing = "the depth camera's camera_info" if depth_camera is None else "the colour camera's camera_info"
            raise DepthRefused(f"{what}, and {missing} to register it with is not in the bag")
        colour_T_depth = np.eye(4)
        if frame_of(message) != frame_of(image):
            try:
                transforms = self.bag.transforms(self.topics.image)
                colour_T_depth = transforms.lookup(frame_of(image), frame_of(message), time_ns)
            except (UnknownFrame, DisconnectedFrames) as error:
                raise DepthRefused(f"{what}, and TF has no way between their cameras ({error})") from error
        return register_depth(depth, depth_camera, camera, colour_T_depth)

    def _depth_camera(self, width: int, height: int) -> Camera | None:
        """The depth camera's calibration, which does not change during a recording."""
        if self._camera is None and self._info is not None:
            rectified = FrameTopics(str(self.topics.depth)).rectified
            try:
                camera = codec.camera_from_info(self._info, rectified, (width, height))
                camera = None if camera is None else codec.fit_camera_to_image(camera, width, height)
            except CalibrationError as error:
                raise DepthRefused(f"{self.topics.depth_info} of depth cannot be used ({error})") from error
            self._camera = None if camera is None or codec.is_placeholder(camera) else camera
        return self._camera

    def _refuse(self, why: str) -> str:
        """No depth from here on; the sentence that tells so."""
        if self.required:
            raise BagError(f"{self.bag.path}: {why}: record it, or do without depth")
        self._refused = True
        return f"{why}: the depth is not used"


def _doubts_about(topic: str, encoding: str, measured: NDArray[np.float32]) -> list[str]:
    """Floats are metres (REP 118); millimetres in them are whole numbers, metres never all are."""
    if not measured.size:
        return [f"the first depth image on {topic} measures nothing"]
    if encoding in ("32fc1", "64fc1") and measured.max() >= 100 and (measured == np.rint(measured)).all():
        return [
            f"depth on {topic} holds whole numbers up to {measured.max():.0f} as metres ({encoding}): millimetres "
            "should be 16UC1"
        ]
    return []
