"""The contract every matcher keeps, and what some can do beyond it. A third party adds one by registering a class."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry.scale import MetricScale

#: What a matcher knows of one frame, as named arrays: this is what the map caches (safetensors).
Features = Mapping[str, NDArray[Any]]


class KeyframeFeatures(dict[str, NDArray[Any]]):
    """Features of a keyframe for as long as a map keeps them in memory.

    Attributes:
        key: of the map, the keyframe and its content; a matcher may keep by it what it makes of them, as long as they
            exist.
    """

    def __init__(self, features: Features, key: Hashable) -> None:
        super().__init__(features)
        self.key = key

    def __reduce__(self) -> tuple[type[dict[str, NDArray[Any]]], tuple[dict[str, NDArray[Any]]]]:
        """Another process gets plain features, which no map keeps."""
        return dict, (dict(self),)


@dataclass(frozen=True, eq=False)
class Matches:
    """Pixels of a query that show the same surface points as pixels of one keyframe.

    Attributes:
        query_xy: (N, 2) float64 pixels of the query image as the camera gave it.
        reference_xy: (N, 2) float64 pixels of the keyframe image.
        points: (N, 3) float64 metres, the matched surface points in the *keyframe camera* frame.
        weights: (N,) float64 in (0, 1], relative trust.
        scale: how predicted points were made metric, where they were corrected by measured depth.
        scale_sigma: relative standard deviation of the distances' common scale: 0 where it was measured.
        note: what a person should know of these matches or of their absence, a clause; usually nothing.
    """

    query_xy: NDArray[np.float64]
    reference_xy: NDArray[np.float64]
    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    scale: MetricScale | None = None
    scale_sigma: float = 0.0
    note: str = ""

    def __len__(self) -> int:
        return len(self.query_xy)

    def __getitem__(self, rows: NDArray[Any]) -> Matches:
        return replace(
            self,
            query_xy=self.query_xy[rows],
            reference_xy=self.reference_xy[rows],
            points=self.points[rows],
            weights=self.weights[rows],
        )

    @classmethod
    def empty(cls, note: str = "") -> Matches:
        """No matches at all."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0), note=note)


@dataclass(frozen=True, eq=False)
class PixelMatches:
    """Pixels of a query and of one reference that show the same, without any geometry.

    Attributes:
        query_xy, reference_xy: (N, 2) float64 pixels of the images as the cameras gave them.
        query_pixel: side of a pixel of the image that was matched, in pixels of the query: how exact positions are.
        confidence: (N,) in [0, 1], comparable among matches of one matcher only; None where the matcher has none.
        inlier: (N,) bool, those that one motion of the camera explains; None where nobody has asked.
    """

    query_xy: NDArray[np.float64]
    reference_xy: NDArray[np.float64]
    query_pixel: float = 1.0
    confidence: NDArray[np.float32] | None = None
    inlier: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.query_xy)


@dataclass(frozen=True, eq=False)
class PredictedDepth:
    """What a network believes a view's depth to be, in its own frame and at a scale of its own.

    Attributes:
        xy: (N, 2) pixels of the frame as the camera gave it.
        depth: (N,) along the optical axis, positive, in the network's units.
        confidence: (N,) at least 0, of the network.
    """

    xy: NDArray[np.float64]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class Capabilities:
    """What a matcher can do beyond the contract; whatever it does not declare, nobody asks it for.

    Attributes:
        landmarks: tells which points of a keyframe it would look for elsewhere, by ``landmarks``; a pose must then
            show enough of them.
        pixel_matches: matches images of which no depth is known, by ``match_pixels``; maps are triangulated with it.
        predicted_depth: knows the shape of what an image shows without a sensor, by ``predict_depth``.
        focal: estimates the focal length of an uncalibrated image, by ``estimate_focal``.
        metric: what it predicts is in metres, so that one photo without depth is enough to localize against.
        coarse_points: its predicted points are too coarse to solve a pose against. With a single photo they give only
            the length of the motion, the rest comes from ``match_pixels`` (``matching/two_views.py``).
        keyframes_on_track: keyframes that are enough while the pose is known beforehand; 0: as many as otherwise.
            For a matcher whose time goes into every keyframe.
        pointmaps: knows where the pixels of two images are in space, from either side, by ``predict_pairs``
            (``matching/pair_maps.py``); many images are aligned by it.
        upright: knows upright images only: a query that matches nothing is looked at once more, turned by quarter turns
            (``localization/turned.py``). For networks; keypoints that turn with the image need none of it.
        prefetch: is told by ``prefetch`` which keyframes will probably be matched next, while a GPU is at work.
    """

    landmarks: bool = False
    pixel_matches: bool = False
    predicted_depth: bool = False
    focal: bool = False
    metric: bool = False
    coarse_points: bool = False
    keyframes_on_track: int = 0
    pointmaps: bool = False
    upright: bool = False
    prefetch: bool = False


@runtime_checkable
class Matcher(Protocol):
    """Finds where a query sees what keyframes saw.

    ``describe`` runs once per frame (and once per keyframe in its life), ``match`` once per query
    over all retrieved keyframes together, so that a network can decode them as one batch.

    A matcher that can do more also has an attribute ``capabilities`` (:class:`Capabilities`).
    """

    #: Registry name, e.g. ``sift``.
    name: str

    @property
    def signature(self) -> str:
        """Identifies the features: name and every setting that changes them. Usable as a folder name."""

    def describe(self, frame: Frame) -> Features:
        """Everything this matcher needs to know of a frame, points in camera coordinates included.

        Frames without camera or depth, blank and tiny ones are described like all others.

        Raises:
            UserError: for images more than four times as long as wide, if it cannot take them.
        """

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, D) float32 descriptors that retrieval aggregates into one vector per frame."""

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Matches of the query with each reference, in the references' order."""


class LandmarkMatcher(Matcher, Protocol):
    """A matcher with the capability ``landmarks``."""

    def landmarks(self, features: Features) -> NDArray[np.floating]:
        """Surface points (N, 3) of a keyframe that would be looked for in other views, its camera frame, metres."""


class PixelMatcher(Matcher, Protocol):
    """A matcher with the capability ``pixel_matches``."""

    def match_pixels(self, query: Features, references: Sequence[Features]) -> list[PixelMatches]:
        """Matches of the query with each reference, by appearance alone."""


class PrefetchingMatcher(Matcher, Protocol):
    """A matcher with the capability ``prefetch``."""

    def prefetch(self, references: Sequence[Features]) -> None:
        """Begin to bring keyframes that will probably be matched next to where they are matched, without a wait."""


class DepthPredictor(Matcher, Protocol):
    """A matcher with the capability ``predicted_depth``."""

    def predict_depth(self, features: Features, other: Features) -> PredictedDepth:
        """Depth of a frame, seen together with another view (or itself)."""


class FocalEstimator(Matcher, Protocol):
    """A matcher with the capability ``focal``."""

    def estimate_focal(self, frame: Frame) -> float:
        """Focal length in pixels of a frame without calibration (square pixels, principal point in the middle)."""


def capabilities(matcher: Matcher) -> Capabilities:
    """What a matcher declares that it can do; one that declares nothing does what the contract asks, and no more."""
    declared: Capabilities = getattr(matcher, "capabilities", Capabilities())
    return declared


def tells_landmarks(matcher: Matcher) -> TypeGuard[LandmarkMatcher]:
    """Whether :meth:`LandmarkMatcher.landmarks` may be asked for."""
    return capabilities(matcher).landmarks


def matches_pixels(matcher: Matcher) -> TypeGuard[PixelMatcher]:
    """Whether :meth:`PixelMatcher.match_pixels` may be asked for."""
    return capabilities(matcher).pixel_matches


def predicts_depth(matcher: Matcher) -> TypeGuard[DepthPredictor]:
    """Whether :meth:`DepthPredictor.predict_depth` may be asked for."""
    return capabilities(matcher).predicted_depth


def estimates_focal(matcher: Matcher) -> TypeGuard[FocalEstimator]:
    """Whether :meth:`FocalEstimator.estimate_focal` may be asked for."""
    return capabilities(matcher).focal


def prefetches(matcher: Matcher) -> TypeGuard[PrefetchingMatcher]:
    """Whether :meth:`PrefetchingMatcher.prefetch` may be called."""
    return capabilities(matcher).prefetch


def landmarks(matcher: Matcher, features: Features) -> NDArray[np.float64]:
    """Surface points (N, 3) of a keyframe that the matcher would look for in other views, in its camera frame, metres.

    None of a matcher without that capability.
    """
    found = matcher.landmarks(features) if tells_landmarks(matcher) else np.zeros((0, 3))
    return np.asarray(found, dtype=np.float64)


def keyframes_on_track(matcher: Matcher) -> int:
    """Keyframes that are enough for this matcher while the pose is known beforehand; 0: as many as otherwise."""
    return capabilities(matcher).keyframes_on_track


def upright_only(matcher: Matcher) -> bool:
    """Whether images that are turned against the keyframes' find nothing with this matcher."""
    return capabilities(matcher).upright
