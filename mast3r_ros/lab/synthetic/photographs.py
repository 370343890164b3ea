"""Photographed surfaces and pictures in place of drawn ones: a pack of scripts/training_pictures.py."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError

Image = NDArray[np.uint8]
Maker = Callable[[np.random.Generator], Image]
#: Kinds of images in a pack, by the folders they lie in.
SURFACES, PICTURES = "surfaces", "pictures"
#: Share of a room's textures that are drawn all the same, so that neither look is forgotten.
DRAWN = 0.15


class Photographs:
    """The images of a pack, by kind."""

    def __init__(self, path: Path) -> None:
        """Raises DatasetError for a file that is no pack."""
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(
                f"{path} is no pack of pictures ({error}): make one with scripts/training_pictures.py {path}"
            ) from error
        self._names = {kind: [n for n in names if n.startswith(f"{kind}/")] for kind in (SURFACES, PICTURES)}
        if missing := [kind for kind, found in self._names.items() if not found]:
            raise DatasetError(f"{path} holds no {' and no '.join(missing)}: see scripts/training_pictures.py")

    def maker(self, kind: str, drawn: Maker) -> Maker:
        """Mostly a photograph of this kind in random light and colours, now and then what was drawn."""

        def make(rng: np.random.Generator) -> Image:
            if rng.uniform() < DRAWN:
                return drawn(rng)
            names = self._names[kind]
            return recoloured(self._image(names[int(rng.integers(len(names)))]), rng)

        return make

    def _image(self, name: str) -> Image:
        with zipfile.ZipFile(self.path) as archive:
            image = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
        side = 1 << (max(image.shape[:2]) - 1).bit_length()  # textures have sides that are powers of two
        return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)[..., ::-1], np.uint8)


@lru_cache(maxsize=4)
def open_photographs(path: str) -> Photographs | None:
    """The pack of this name; None of an empty name. Raises DatasetError."""
    return Photographs(Path(path)) if path else None


def recoloured(image: Image, rng: np.random.Generator) -> Image:
    """Another colour, brightness and contrast, perhaps mirrored."""
    value = image.astype(np.float32) / 255
    mean = value.mean()
    # Game textures are dark: their mean is brought to that of painted walls, to within what the room draws.
    value = (value - mean) * rng.uniform(0.8, 1.4) + rng.uniform(0.25, 0.65)
    value *= np.exp(rng.normal(0, 0.1, 3)).astype(np.float32)
    turned = value[:, ::-1] if rng.uniform() < 0.5 else value
    return np.ascontiguousarray(np.clip(255 * turned, 0, 255).astype(np.uint8))
