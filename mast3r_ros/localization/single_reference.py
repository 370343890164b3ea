"""Localization without a map: one reference photo, whose camera is the origin of everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher, capabilities, estimates_focal, predicts_depth
from mast3r_ros.matching.two_views import TwoViewMatcher

#: Name of the only keyframe, and of the frame that poses are in: the photo's camera (x right, y down, z forward).
REFERENCE = "reference"


def reference_map(frame: Frame, matcher: Matcher) -> KeyframeMap:
    """A map in memory with one keyframe.

    Args:
        frame: the photo. Without calibration its focal length is read off the network's pointmap; without depth
            the matcher must be a network, and distances are as metric as the network is.

    Raises:
        MapError: if the matcher needs a depth or calibration that is not given.
    """
    name = frame.name or "the reference"
    if frame.depth is None and not predicts_depth(matcher):
        raise MapError(
            f"{name} has no depth, which matcher '{matcher.name}' needs: give --reference-depth, "
            "or the --checkpoint of a network"
        )
    frame = calibrated(frame, matcher)
    if frame.camera is None:
        raise MapError(f"the focal length of {name} is unknown: give --camera or --focal, or a --checkpoint")
    keyframe_map = KeyframeMap(REFERENCE, source=frame.name, image_format="png")
    keyframe_map.add(PosedFrame(frame, np.eye(4)), REFERENCE)
    return keyframe_map


def metric_without_depth(matcher: Matcher) -> bool:
    """Whether the matcher alone tells metres of a photo without depth."""
    return predicts_depth(matcher) and capabilities(matcher).metric


def photo_matcher(matcher: Matcher, frame: Frame) -> Matcher:
    """The matcher to ask a map of nothing but this photo with.

    Without depth, pointmaps of small networks are too coarse to solve a pose against: of theirs only the length of the
    motion is taken. Others are taken as they are.
    """
    able = capabilities(matcher)
    return TwoViewMatcher(matcher) if frame.depth is None and able.metric and able.coarse_points else matcher


def calibrated(frame: Frame, matcher: Matcher) -> Frame:
    """The frame with a focal length from its pointmap, where it has no calibration and the matcher is a network."""
    if frame.camera is not None or not estimates_focal(matcher):
        return frame
    focal = matcher.estimate_focal(frame)
    centre = (frame.width - 1) / 2, (frame.height - 1) / 2
    return replace(frame, camera=Camera.pinhole(frame.width, frame.height, focal, focal, *centre))
