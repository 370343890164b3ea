"""The Map-free relocalization data set (Arnold et al., ECCV 2022), as it is distributed.

train/, val/, test/                 one folder for each scene in it: s00000, s00001 ...
    s00460/seq0/frame_00000.jpg     the reference; world is this camera (x right, y down, z forward), metres
           seq1/frame_00000.jpg     the queries
           intrinsics.txt           lines "seq1/frame_00000.jpg fx fy cx cy width height", pixels
           poses.txt                lines "seq1/frame_00000.jpg qw qx qy qz tx ty tz", world to camera;
                                    of the test split only the benchmark's server knows them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import FrameList, numbers, read_table, read_text

Array = NDArray[np.float64]

SPLITS = ("train", "val", "test")
#: The frame every pose is relative to.
REFERENCE = "seq0/frame_00000.jpg"
#: Of the frames of a scene only every n-th is evaluated (the benchmark's single-frame task).
EVERY = 5

POSE_FIELDS = "seq1/frame_00000.jpg qw qx qy qz tx ty tz"
CAMERA_FIELDS = "fx fy cx cy width height"


@dataclass(frozen=True, eq=False)
class NamedPose:
    """A line of poses.txt or of a submission.

    Attributes:
        name: of the image, e.g. ``seq1/frame_00005.jpg``.
        number: of the frame.
        translation, xyzw: (3,), (4,) world to camera, metres; the quaternion of norm 1.
        confidence: of an estimate; NaN of the ground truth.
    """

    name: str
    number: int
    translation: Array
    xyzw: Array
    confidence: float = float("nan")

    @property
    def world_T_camera(self) -> Array:
        """(4, 4) the camera in the frame of the reference."""
        return se3.inverse(se3.from_quaternion(self.translation, self.xyzw))


def frame_number(name: str) -> int:
    """Number of a frame by its file name: the five characters before the ending. Raises ValueError."""
    return int(name[-9:-4])


def frame_stamp_ns(number: int) -> int:
    """Frames have no time: a stamp as if there were one each second."""
    return number * 10**9


def parse_poses(text: str, where: str, with_confidence: bool = False) -> tuple[list[NamedPose], list[str]]:
    """The poses of a file, and what was wrong with the lines that are left out, as the benchmark reads them.

    Fields are separated by one blank. Lines with another number of fields, with ``#`` in the name, without a frame
    number, with NaN or infinity, or with a quaternion of zero are left out.

    Args:
        where: name of the file, for the complaints.
        with_confidence: lines of a submission end in a confidence.
    """
    expected = POSE_FIELDS + " confidence" * with_confidence
    poses, complaints = [], []
    for line, content in enumerate(text.splitlines(), start=1):
        try:
            poses.append(_parse_pose(content.strip().split(" "), len(expected.split())))
        except ValueError as error:
            if not content.lstrip().startswith("#"):
                complaints.append(f"{where}, line {line} is left out ({error}): expected '{expected}'")
    return poses, complaints


def by_number(poses: Iterable[NamedPose]) -> dict[int, NamedPose]:
    """Poses by frame number alone, as the benchmark's evaluation keeps them.

    The reference and a query of the same number share one entry: the earlier line gives its place, the later one
    its values.
    """
    return {pose.number: pose for pose in poses}


def _parse_pose(words: list[str], fields: int) -> NamedPose:
    if len(words) != fields:
        raise ValueError(f"{len(words)} fields")
    if "#" in words[0]:
        raise ValueError("a comment")
    number = frame_number(words[0])
    values = np.array([float(word) for word in words[1:]])
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinity")
    norm = float(np.linalg.norm(values[:4]))
    if norm <= 1e-8:
        raise ValueError("the quaternion is zero")
    if fields <= 8 and abs(norm - 1.0) > se3.NORM_TOLERANCE:
        raise ValueError(f"the norm of the quaternion is {norm:.3g} and not 1: is the file in another order?")
    confidence = float(values[7]) if fields > 8 else float("nan")
    return NamedPose(words[0], number, values[4:7], values[[1, 2, 3, 0]] / norm, confidence)


class MapFreeScene(FrameList):
    """One scene: a reference, its queries, and their poses where these are public.

    As a list it holds every frame with a pose, the reference among them, in the reference's camera frame.

    Args:
        path: the scene's folder.
        use_truth: False leaves poses.txt away, as for the test split.

    Attributes:
        poses: of poses.txt, in its order; empty where they are not known.
        complaints: lines of poses.txt that are left out.

    Raises:
        DatasetError: for a missing or malformed file.
    """

    layout = "mapfree"

    def __init__(self, path: Path, use_truth: bool = True) -> None:
        super().__init__(path.resolve().name)
        self._path = path
        self._cameras = _read_cameras(path / "intrinsics.txt")
        self._by_number = {frame_number(name): camera for name, camera in self._cameras.items()}
        self.poses: list[NamedPose] = []
        self.complaints: list[str] = []
        if use_truth:
            file = path / "poses.txt"
            self.poses, self.complaints = parse_poses(read_text(file), str(file))
            if not self.poses:
                raise DatasetError(f"{file} has no pose: expected lines '{POSE_FIELDS}' (world to camera, metres)")

    def __len__(self) -> int:
        return len(self.poses)

    def read(self, index: int) -> PosedFrame:
        """One frame with its true pose."""
        pose = self.poses[index]
        return PosedFrame(self.frame(pose.name), pose.world_T_camera)

    def frame(self, name: str, depth: NDArray[np.float32] | None = None) -> Frame:
        """A frame by its name, e.g. ``seq1/frame_00005.jpg``, with its own intrinsics.

        Args:
            depth: (H, W) metres from elsewhere; the data set itself has none.

        Raises:
            DatasetError: if the image or its line in intrinsics.txt is missing, or does not fit the other.
        """
        self.check([name])
        file = self._path / name
        image, camera = self._read_image(file, self._cameras[name], "its line in intrinsics.txt")
        try:
            stamp_ns = frame_stamp_ns(frame_number(name))
            return Frame(image, camera, stamp_ns, depth, f"{self.name}/{name}")
        except CalibrationError as error:
            raise DatasetError(f"the depth given for {file} does not fit it: {error}") from error

    def check(self, names: Iterable[str]) -> None:
        """See to it that frames have an image file and a line in intrinsics.txt, before a long run rests on them.

        Raises:
            DatasetError: naming what is missing.
        """
        for name in names:
            if name not in self._cameras:
                raise DatasetError(f"{self._path / 'intrinsics.txt'} has no line '{name} {CAMERA_FIELDS}'")
            if not (self._path / name).is_file():
                raise DatasetError(f"{self._path / name} is missing: expected the image of that line in intrinsics.txt")

    @property
    def queries(self) -> list[str]:
        """Names of the frames to localize: the evaluated ones without the reference, which has number 0 for itself
        where no query has it."""
        return [name for name in self.evaluated.values() if name != REFERENCE]

    @property
    def evaluated(self) -> dict[int, str]:
        """Numbers and names of the frames that the benchmark's single-frame task asks for.

        Every fifth entry of the table by number (:func:`by_number`), of poses.txt or, where there is none, of the
        frames in intrinsics.txt.
        """
        names = [pose.name for pose in self.poses] or list(self._cameras)
        table = {frame_number(name): name for name in names}
        return {number: table[number] for number in list(table)[::EVERY]}

    def intrinsics(self, number: int) -> Camera:
        """Intrinsics by frame number, as the evaluation projects with them: K of that frame's last line in
        intrinsics.txt, image size of the file's last line.

        Raises:
            DatasetError: if no line has this number.
        """
        if number not in self._by_number:
            raise DatasetError(f"{self._path / 'intrinsics.txt'} has no line of frame {number}: '{CAMERA_FIELDS}'")
        last = list(self._cameras.values())[-1]
        return replace(self._by_number[number], width=last.width, height=last.height)


class MapFree:
    """A split of the data set.

    Args:
        path: the folder with train, val and test in it.

    Attributes:
        scenes: names of its scenes.

    Raises:
        DatasetError: if the split is unknown, missing or empty.
    """

    def __init__(self, path: Path, split: str = "val") -> None:
        if split not in SPLITS:
            raise DatasetError(f"unknown split '{split}': use {', '.join(SPLITS)}")
        self.path, self.split, self._folder = path, split, path / split
        expected = f"expected {self._folder}/s00000/ with intrinsics.txt, poses.txt, seq0/ and seq1/"
        if not self._folder.is_dir():
            raise DatasetError(f"{path} has no split '{split}': {expected}")
        self.scenes = sorted(f.name for f in self._folder.iterdir() if f.is_dir() and not f.name.startswith("."))
        if not self.scenes:
            raise DatasetError(f"{self._folder} has no scenes: {expected}")

    @property
    def has_truth(self) -> bool:
        """Whether the poses of the queries are public: not those of the test split."""
        return self.split != "test"

    def scene(self, name: str) -> MapFreeScene:
        """One scene. Raises DatasetError."""
        return MapFreeScene(self._folder / name, self.has_truth)

    def __len__(self) -> int:
        return len(self.scenes)

    def __iter__(self) -> Iterator[MapFreeScene]:
        return (self.scene(name) for name in self.scenes)


def _read_cameras(file: Path) -> dict[str, Camera]:
    """Intrinsics by image name, in the order of their (last) lines."""
    cameras: dict[str, Camera] = {}
    for line, (name, *words) in read_table(file):
        fx, fy, cx, cy, width, height = numbers(file, line, words, CAMERA_FIELDS)
        try:
            frame_number(name)
            cameras.pop(name, None)
            cameras[name] = Camera.pinhole(round(width), round(height), fx, fy, cx, cy)
        except ValueError as error:
            raise DatasetError(f"{file}, line {line}: '{name}' is no image like {REFERENCE}") from error
        except CalibrationError as error:
            raise DatasetError(f"{file}, line {line}: {error}") from error
    if not cameras:
        raise DatasetError(f"{file} is empty: expected lines 'seq1/frame_00000.jpg {CAMERA_FIELDS}'")
    return cameras
