"""Worlds as recordings: a robot drives through a room twice, once to map it and once to be found in it.

Both recordings hold what a real robot would have recorded (compressed camera images, calibration, registered
depth, TF with odometry that drifts), and what only a simulation knows: the true pose of the camera.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter
from mast3r_ros.lab.synthetic.rooms import make_room
from mast3r_ros.lab.synthetic.sensors import OdometryNoise, drifting
from mast3r_ros.lab.synthetic.sequence import SequenceSettings, render_sequence
from mast3r_ros.lab.synthetic.trajectory import TourSettings, Trajectory, mounted_camera, tour
from mast3r_ros.lab.synthetic.world import World

Array = NDArray[np.float64]

MAP, ODOM, BASE, CAMERA = "map", "odom", "base_link", "camera_optical_frame"
#: Topics of a recording. Only recordings with a known truth have the last one.
IMAGE, INFO, DEPTH = "/camera/image_raw/compressed", "/camera/camera_info", "/camera/depth/image_raw"
TRUTH = "/ground_truth"
#: How often odometry is recorded, Hz.
ODOMETRY_HZ = 60
#: When the first recording begins, and how much later the second: any time will do.
START_NS, LATER_NS = 1_760_000_000_000_000_000, 3_600_000_000_000

#: Called with (frames recorded, frames in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RecordingSettings:
    """A room and the two drives through it.

    Attributes:
        family: of the room, see :func:`make_room`.
        seed: of the room, both drives and all noise.
        width, height: of the images, pixels.
        mapping_s, query_s: length of the drives, seconds.
        mapping_hz, query_hz: frames per second; divisors of 60.
        covered_s: the lens is covered for this long in the middle of the query drive.
    """

    family: str = "office"
    seed: int = 0
    width: int = 640
    height: int = 480
    mapping_s: float = 60.0
    query_s: float = 20.0
    mapping_hz: int = 2
    query_hz: int = 10
    covered_s: float = 0.1

    @property
    def camera(self) -> Camera:
        """A webcam-like camera of 75 degrees with the barrel distortion such lenses have."""
        w, h = self.width, self.height
        f = 0.65 * w
        K = np.array([[f, 0, 0.503 * w], [0, 0.998 * f, 0.496 * h], [0, 0, 1.0]])
        return Camera(w, h, K, "plumb_bob", np.array([-0.12, 0.06, 0.0006, -0.0004, -0.01]))


def demo_world(settings: RecordingSettings) -> World:
    """The room of the settings."""
    with single_threaded():
        return make_room(settings.family, settings.seed)


def record_mapping(world: World, path: Path, settings: RecordingSettings, progress: Progress | None = None) -> None:
    """Record a thorough drive, with map -> odom in TF, from which a map can be built."""
    drive = _drive(world, settings.seed, settings.mapping_s, stops=4, look_around=1.0)
    with BagWriter(path, overwrite=True) as bag:
        recorder = _Recorder(bag, drive, START_NS, settings.seed, with_map=True)
        recorder.record(_frames(world, drive, settings.mapping_hz, settings), settings.mapping_hz, progress)


def record_query(world: World, path: Path, settings: RecordingSettings, progress: Progress | None = None) -> None:
    """Record another drive an hour later, without map -> odom: that is what the relocalizer has to find."""
    drive = _drive(world, settings.seed + 1, settings.query_s, stops=6, look_around=0.2)
    frames = _frames(world, drive, settings.query_hz, replace(settings, seed=settings.seed + 1))
    middle = settings.query_s / 2
    frames = _with_covered_lens(frames, middle, middle + settings.covered_s)
    with BagWriter(path, overwrite=True) as bag:
        recorder = _Recorder(bag, drive, START_NS + LATER_NS, settings.seed + 1, with_map=False)
        recorder.record(frames, settings.query_hz, progress)


def _drive(world: World, seed: int, seconds: float, stops: int, look_around: float) -> Trajectory:
    """A robot that keeps its distance from the walls: a camera that sees nothing but paint cannot be found."""
    camera = mounted_camera(height_m=1.2, tilt_deg=10.0)
    settings = TourSettings(
        rate_hz=ODOMETRY_HZ,
        speed_mps=0.6,
        turn_rate_rps=0.8,
        stops=stops,
        look_around=look_around,
        clearance_m=0.45,
        base_T_camera=camera,
        duration_s=seconds,
    )
    return tour(world, seed, settings)


def _frames(world: World, drive: Trajectory, rate_hz: int, settings: RecordingSettings) -> Iterator[PosedFrame]:
    """What the camera sees, rendered on all cores: one frame on each is faster than one frame on all."""
    camera = settings.camera
    camera.pixel_rays  # noqa: B018  computed once, before threads share it

    def render(k: int) -> PosedFrame:
        torch.set_num_threads(1)
        moment = Trajectory(drive.stamps_ns[k : k + 1], drive.map_T_base[k : k + 1], drive.base_T_camera)
        noise = SequenceSettings(seed=settings.seed * 1_000_003 + k)
        return next(render_sequence(world, moment, camera, noise)).posed

    with single_threaded(), ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(render, range(0, len(drive), ODOMETRY_HZ // rate_hz))


@contextmanager
def single_threaded() -> Iterator[None]:
    """Worlds are made of many small tensors: threads that share them spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_covered_lens(frames: Iterator[PosedFrame], begin_s: float, end_s: float) -> Iterator[PosedFrame]:
    """Between two times the camera sees next to nothing."""
    for posed in frames:
        frame = posed.frame
        if begin_s <= frame.stamp_ns * 1e-9 < end_s and frame.depth is not None:
            rng = np.random.default_rng(frame.stamp_ns)
            dark = np.clip(rng.normal(9, 2, frame.image.shape), 0, 255).astype(np.uint8)
            posed = PosedFrame(
                Frame(dark, frame.camera, frame.stamp_ns, np.zeros_like(frame.depth), frame.name), posed.map_T_camera
            )
        yield posed


class _Recorder:
    """Writes a drive: odometry and truth all the time, camera frames when there are any."""

    def __init__(self, bag: BagWriter, drive: Trajectory, start_ns: int, seed: int, with_map: bool) -> None:
        self._bag, self._drive, self._start_ns, self._with_map = bag, drive, start_ns, with_map
        self._odom_T_base = drifting(drive.map_T_base, OdometryNoise(), np.random.default_rng([seed, 1]))

    def record(self, frames: Iterator[PosedFrame], rate_hz: int, progress: Progress | None) -> None:
        """Write everything in the order of time."""
        every = ODOMETRY_HZ // rate_hz
        count = len(range(0, len(self._drive), every))
        self._bag.transform(BASE, CAMERA, self._drive.base_T_camera, self._start_ns, static=True)
        for k in range(len(self._drive)):
            stamp_ns = self._start_ns + int(self._drive.stamps_ns[k])
            self._motion(k, stamp_ns)
            if k % every == 0:
                self._frame(next(frames), stamp_ns)
                if progress is not None:
                    progress(k // every + 1, count)

    def _motion(self, k: int, stamp_ns: int) -> None:
        odom_T_base = self._odom_T_base[k]
        self._bag.transform(ODOM, BASE, odom_T_base, stamp_ns)
        if self._with_map:
            self._bag.transform(MAP, ODOM, self._drive.map_T_base[k] @ se3.inverse(odom_T_base), stamp_ns)
        map_T_camera = self._drive.map_T_base[k] @ self._drive.base_T_camera
        self._bag.odometry(TRUTH, map_T_camera, stamp_ns, MAP, CAMERA)

    def _frame(self, posed: PosedFrame, stamp_ns: int) -> None:
        """Calibration and depth before the image: whoever gets the image has what belongs to it."""
        frame = posed.frame
        assert frame.camera is not None and frame.depth is not None
        self._bag.camera_info(INFO, frame.camera, stamp_ns, CAMERA)
        self._bag.depth(DEPTH, frame.depth, stamp_ns, CAMERA)
        self._bag.compressed_image(IMAGE, frame.image, stamp_ns, CAMERA)
