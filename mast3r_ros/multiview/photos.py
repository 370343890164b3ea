"""A folder of photographs: which there are, how each was calibrated, and which cannot be used and why."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mast3r_ros.errors import CalibrationError, CodecError, DatasetError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.io.codec.image_files import ImageFiles
from mast3r_ros.io.datasets.base import IMAGE_SUFFIXES
from mast3r_ros.io.datasets.camera_file import read_camera
from mast3r_ros.io.datasets.posed_images import read_intrinsics

#: Focal length of an image that nobody says anything about, as a share of its longer side (45 degrees of view).
USUAL_FOCAL = 1.2
#: EXIF: camera model, the folder of photographic facts, and in it the focal length as of 35 mm film.
_MODEL, _FACTS, _FOCAL_35 = 0x0110, 0x8769, 0xA405
_FILM_MM = 36.0


@dataclass(frozen=True, eq=False)
class Photo:
    """One usable image.

    Attributes:
        name: its path from the folder.
        path: the file.
        camera: calibration, or the best guess of it.
        calibrated: whether somebody knows it.
        lens: images of one lens share a focal length.
        digest: of its pixels and its calibration; what is known of an image on disk is found by it.
    """

    name: str
    path: Path
    camera: Camera
    calibrated: bool
    lens: str
    digest: str = ""

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) pixels, turned as the calibration has them."""
        return ImageFiles().read(self.path, self.camera if self.calibrated else None)[0]


@dataclass
class PhotoFolder:
    """Reads a folder's images one after the other.

    Attributes:
        files: all image files, in order of their names.
        cameras: calibration by name; "" for all.
        unusable: why an image is left out, by name; filled while reading.
    """

    folder: Path
    files: list[Path]
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Every file's path from the folder."""
        return [path.relative_to(self.folder).as_posix() for path in self.files]

    def __iter__(self) -> Iterator[tuple[Photo, Frame]]:
        """Usable images; a second copy of an image is not."""
        reader, known = ImageFiles(), dict[str, str]()
        for path in self.files:
            name = path.relative_to(self.folder).as_posix()
            camera = self.cameras.get(name, self.cameras.get(path.name, self.cameras.get("")))
            try:
                image, fitted = reader.read(path, camera)
            except CodecError as error:
                self.unusable[name] = f"cannot be read ({error})"
                continue
            except CalibrationError as error:
                self.unusable[name] = f"does not fit its calibration ({error})"
                continue
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            if digest in known:
                self.unusable[name] = f"is the same picture as {known[digest]}"
                continue
            known[digest] = name
            photo = replace(_photo(name, path, image, fitted), digest=digest[:32] + _digest(fitted))
            yield photo, Frame(image, photo.camera, name=name)


def open_photos(folder: Path, intrinsics: Path | None = None) -> PhotoFolder:
    """The images of a folder and of those below it.

    Args:
        intrinsics: "name fx fy cx cy width height" for each image, "width height fx fy cx cy" for all, or a
            calibration file as ROS writes it (.yaml).

    Raises:
        DatasetError: where there is no image, or the calibration cannot be read or is of other images.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is no folder of images and no video that can be opened")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not files:
        raise DatasetError(
            f"{folder}: has no images ({', '.join(IMAGE_SUFFIXES)}); of a recording with poses say --odometry"
        )
    cameras: Mapping[str, Camera] = {}
    if intrinsics is not None:
        yaml = intrinsics.suffix.lower() in (".yaml", ".yml")
        cameras = {"": read_camera(intrinsics)} if yaml else read_intrinsics(intrinsics)
        names = {path.relative_to(folder).as_posix() for path in files} | {path.name for path in files}
        if "" not in cameras and not names & set(cameras):
            raise DatasetError(f"{intrinsics}: has no line for any image of {folder} ({next(iter(cameras), 'empty')})")
    return PhotoFolder(folder, files, cameras)


def _photo(name: str, path: Path, image: NDArray[np.uint8], fitted: Camera | None) -> Photo:
    height, width = image.shape[:2]
    if fitted is not None:
        return Photo(name, path, fitted, True, "")
    model, focal_35 = _exif(path)
    longer = max(width, height)
    focal = longer * (focal_35 / _FILM_MM if focal_35 else USUAL_FOCAL)
    camera = Camera.pinhole(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    return Photo(name, path, camera, False, f"{model} {longer}x{min(width, height)} {focal:.0f}")


def with_focal(photo: Photo, focal: float) -> Photo:
    """The photo with another focal length, of square pixels."""
    K = photo.camera.K.copy()
    K[0, 0] = K[1, 1] = focal
    return replace(photo, camera=replace(photo.camera, K=K))


def _digest(camera: Camera | None) -> str:
    """Of a calibration: eight hexadecimal digits."""
    facts = b"" if camera is None else camera.model.encode() + camera.K.tobytes() + camera.D.tobytes()
    return hashlib.sha256(facts).hexdigest()[:8]


def _exif(path: Path) -> tuple[str, float]:
    """Camera model and focal length in mm of 35 mm film; empty and 0 where the file does not say."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            exif = image.getexif()
            return str(exif.get(_MODEL, "")), float(exif.get_ifd(_FACTS).get(_FOCAL_35, 0) or 0)
    except Exception:  # the header is optional, and the file decides what is wrong with it
        return "", 0.0
