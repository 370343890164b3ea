"""A localizer that can be handed to workers: each opens the map's folder for itself, and answers as any other does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Frame
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.uncertainty import MEASURED_WITH, noise_with
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher
from mast3r_ros.settings import LocalizerSettings


@dataclass(frozen=True)
class Query:
    """A frame, or the id of one of the map's own, and the keyframes that must not be used."""

    frame: Frame | str
    exclude: Collection[str] = ()


class PortableLocalizer:
    """Localizes frames each on its own: whatever it, or another worker, was asked before makes no difference.

    Args:
        localizer: of a map that is saved, where it is to be handed to workers.
    """

    def __init__(self, localizer: Localizer) -> None:
        self._localizer = localizer

    def __call__(self, query: Query) -> PoseEstimate:
        """Find the pose of a frame, or say why it cannot be found."""
        known = self._localizer
        # Points were triangulated, by this matcher perhaps: they are no depth that its camera measured.
        frame = known.map.frame(query.frame, points=False) if isinstance(query.frame, str) else query.frame
        return known.alone(frame, exclude=query.exclude)

    def __reduce__(self) -> tuple[Callable[..., PortableLocalizer], tuple[object, ...]]:
        """As it is sent: where the map lies, and what it may have been told since it was saved."""
        known = self._localizer
        if known.map.path is None:
            raise MapError("workers read a map from its folder: save it first")
        return _opened, (known.map.path, noise_with(known.map, known.matcher), known.matcher, known.settings)


def _opened(folder: Path, noise: PoseNoise | None, matcher: Matcher, settings: LocalizerSettings) -> PortableLocalizer:
    keyframe_map = KeyframeMap.load(folder)
    keyframe_map.pose_noise, keyframe_map.provenance[MEASURED_WITH] = noise, matcher.signature
    return PortableLocalizer(Localizer(keyframe_map, matcher, settings))
