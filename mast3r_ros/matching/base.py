"""The contract every matcher keeps. A third party adds one by registering a class; nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame

#: What a matcher knows of one frame, as named arrays: this is what the map caches (safetensors).
Features = Mapping[str, NDArray]


@dataclass(frozen=True, eq=False)
class Matches:
    """Pixels of a query that show the same surface points as pixels of one keyframe.

    Attributes:
        query_xy: (N, 2) float64 pixels of the query image as the camera gave it.
        reference_xy: (N, 2) float64 pixels of the keyframe image.
        points: (N, 3) float64 metres, the matched surface points in the *keyframe camera* frame.
        weights: (N,) float64 in (0, 1], relative trust.
    """

    query_xy: NDArray[np.float64]
    reference_xy: NDArray[np.float64]
    points: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.query_xy)

    def __getitem__(self, rows: NDArray) -> Matches:
        return Matches(self.query_xy[rows], self.reference_xy[rows], self.points[rows], self.weights[rows])

    @classmethod
    def empty(cls) -> Matches:
        """No matches at all."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0))


@runtime_checkable
class Matcher(Protocol):
    """Finds where a query sees what keyframes saw.

    ``describe`` runs once per frame (and once per keyframe in its life), ``match`` once per query
    over all retrieved keyframes together, so that a network can decode them as one batch.
    """

    #: Registry name, e.g. ``sift``.
    name: str

    @property
    def signature(self) -> str:
        """Identifies the features: name and every setting that changes them. Usable as a folder name."""

    def describe(self, frame: Frame) -> Features:
        """Everything this matcher needs to know of a frame, points in camera coordinates included."""

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, D) float32 descriptors that retrieval aggregates into one vector per frame."""

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Matches of the query with each reference, in the references' order."""
