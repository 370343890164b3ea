"""Image files: JPEG, PNG, WebP, TIFF and BMP -> (H, W, 3) uint8 RGB, for all of the program."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mast3r_ros.errors import CalibrationError, CodecError
from mast3r_ros.frames import Camera
from mast3r_ros.io.codec.calibration import fit_camera_to_image
from mast3r_ros.io.codec.eight_bits import EightBits
from mast3r_ros.io.codec.images import RGB, decode_file, to_rgb
from mast3r_ros.io.codec.picture_files import DEEP_COLOUR

#: Number of the EXIF tag, and how a TIFF file begins.
_ORIENTATION = 0x0112
_TIFF = (b"II*\0", b"MM\0*")
#: EXIF orientation -> (transpose first, then flip the columns, then flip the rows).
_TURNS = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


class ImageFiles:
    """Reads the image files of one recording alike: orientation, 16 bits and colour order are decided here.

    A file is turned upright as its EXIF orientation says, unless it comes with a calibration that fits its pixels as
    they are stored: calibrations describe the sensor. 16-bit images become 8 bits by :class:`EightBits`.
    """

    def __init__(self) -> None:
        self._eight_bits = EightBits()

    def read(self, path: Path, camera: Camera | None = None, as_stored: bool = False) -> tuple[RGB, Camera | None]:
        """The image (H, W, 3) uint8 RGB, and its camera rescaled to its size where one is given.

        Args:
            as_stored: leave the pixels as they are in the file, whatever its EXIF orientation says.

        Raises:
            CodecError: naming the file, if it is missing or no intact image.
            CalibrationError: if the camera fits neither the stored nor the upright image.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CodecError(f"{path} cannot be read: {error.strerror}") from error
        try:
            image = to_rgb(decode_file(data, DEEP_COLOUR), self._eight_bits)
        except CodecError as error:
            raise CodecError(f"{path}: {error}") from error
        turned = image if as_stored else upright(image, exif_orientation(data))
        if camera is None:
            return turned, None
        try:
            return image, fit_camera_to_image(camera, image.shape[1], image.shape[0])
        except CalibrationError:
            return turned, fit_camera_to_image(camera, turned.shape[1], turned.shape[0])


def load_image(path: str | Path) -> RGB:
    """One image file as (H, W, 3) uint8 RGB, upright as its EXIF orientation says; transparency is dropped.

    Raises:
        CodecError: for files that are missing or no images.
    """
    return ImageFiles().read(Path(path))[0]


def exif_orientation(data: bytes) -> int:
    """EXIF orientation of an image file's bytes, 1 (upright) to 8; 1 where there is none."""
    if not data.startswith(_TIFF) and not any(mark in data for mark in (b"Exif\0", b"eXIf", b"EXIF")):
        return 1  # Pillow decodes a whole PNG to look for what comes after its pixels
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the file decides what goes wrong in a header that is optional
        return 1


def upright(image: NDArray[np.uint8], orientation: int) -> RGB:
    """(H, W, 3) as stored -> turned and mirrored as its EXIF orientation says."""
    transpose, flip_columns, flip_rows = _TURNS.get(orientation, (False, False, False))
    image = image.transpose(1, 0, 2) if transpose else image
    return np.ascontiguousarray(image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])
