"""A matcher that remembers the features of images, for runs that ask many maps about the same one."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.matching.base import Features, Matcher
from mast3r_ros.matching.wrapped import WrappedMatcher


@dataclass(frozen=True, eq=False)
class _Description:
    """Features of an image, and what else they were made of."""

    camera: Camera | None
    depth: ReferenceType[NDArray[np.float32]] | None
    features: Features

    def is_of(self, frame: Frame) -> bool:
        """Whether they are those of a frame with the same image."""
        return frame.camera is self.camera and frame.depth is (self.depth and self.depth())


class DescribedOnce(WrappedMatcher):
    """Another matcher, which describes each image once, for as long as somebody holds the image.

    A localizer makes a frame of its own of the one it is given, without the depth. So it is not the frame that features
    are remembered by, but what such frames share: the arrays of image and depth, and the camera.
    """

    def __init__(self, matcher: Matcher) -> None:
        super().__init__(matcher)
        self._images: dict[int, ReferenceType[NDArray[np.uint8]]] = {}
        self._known: dict[int, list[_Description]] = {}

    def describe(self, frame: Frame) -> Features:
        """What the matcher within says, or said, of the frame."""
        described = self._of_image(frame.image)
        known = next((d.features for d in described if d.is_of(frame)), None)
        if known is None:
            known = self.inner.describe(frame)
            depth = None if frame.depth is None else ref(frame.depth)
            described.append(_Description(frame.camera, depth, known))
        return known

    def _of_image(self, image: NDArray[np.uint8]) -> list[_Description]:
        """What is remembered of an image, until it is gone."""
        key = id(image)
        if key not in self._images:
            self._images[key] = ref(image, lambda gone: self._forget(key))
            self._known[key] = []
        return self._known[key]

    def _forget(self, key: int) -> None:
        del self._images[key], self._known[key]
