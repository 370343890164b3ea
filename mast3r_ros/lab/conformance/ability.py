"""Checks of what a matcher declares that it can do beyond the contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mast3r_ros.lab.conformance.contract import DEPTH_SHARE, outside
from mast3r_ros.lab.conformance.scene import CheckScene
from mast3r_ros.matching.base import (
    Capabilities,
    Matcher,
    capabilities,
    estimates_focal,
    matches_pixels,
    predicts_depth,
    tells_landmarks,
)

#: Methods that a capability promises.
METHODS = {
    "landmarks": "landmarks",
    "pixel_matches": "match_pixels",
    "predicted_depth": "predict_depth",
    "focal": "estimate_focal",
    "pointmaps": "predict_pairs",
    "prefetch": "prefetch",
}
#: Capabilities that mean nothing without others.
NEEDS = {"metric": ("predicted_depth",), "coarse_points": ("pixel_matches", "predicted_depth", "metric")}


def declarations(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """Nothing is promised without its method, and no method goes unused because nobody promised it."""
    able = capabilities(matcher)
    declared: Any = able
    if not isinstance(declared, Capabilities):
        yield f"capabilities are {type(declared).__name__}, not Capabilities"
        return
    for capability, method in METHODS.items():
        there = callable(getattr(matcher, method, None))
        if getattr(able, capability) and not there:
            yield f"it declares {capability} and has no method '{method}'"
        if there and not getattr(able, capability):
            yield f"it has a method '{method}' that nobody calls: declare Capabilities({capability}=True)"
    for capability, needed in NEEDS.items():
        missing = [name for name in needed if getattr(able, capability) and not getattr(able, name)]
        if missing:
            yield f"it declares {capability}, which means nothing without {' and '.join(missing)}"
    if able.coarse_points and "camera" not in matcher.describe(scene.query):
        yield "it declares coarse_points, for which features hold the 'camera' (matching/packed_camera.py)"
    if able.keyframes_on_track < 0:
        yield f"keyframes_on_track is {able.keyframes_on_track}: it is a number of keyframes"


def landmarks_are_on_the_surface(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """In the camera frame, at the distance that the depth image says; none where nothing is known."""
    if not tells_landmarks(matcher):
        return
    frame = scene.reference
    assert frame.camera is not None and frame.depth is not None
    points = np.asarray(matcher.landmarks(matcher.describe(frame)))
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        yield f"landmarks are {points.dtype} {points.shape}, not finite (N, 3)"
        return
    if not len(points):
        yield "a keyframe with depth and texture has no landmarks"
        return
    xy = frame.camera.project(points)
    yield from outside(xy, frame, "landmarks")
    u, v = np.nan_to_num(np.rint(xy)).astype(int).T
    depth = frame.depth[v.clip(0, frame.height - 1), u.clip(0, frame.width - 1)]
    far = int(np.sum(~(np.abs(points[:, 2] / depth - 1) < DEPTH_SHARE)))
    if far:
        yield f"{far} of {len(points)} landmarks do not lie on the surface that the keyframe's depth shows"
    if len(matcher.landmarks(matcher.describe(replace(frame, depth=None)))) and not capabilities(matcher).metric:
        yield "a keyframe without depth has landmarks, in metres that nobody knows"


def pixel_matches(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """One for each reference, without any depth."""
    if not matches_pixels(matcher):
        return
    frame = replace(scene.reference, depth=None)
    found = matcher.match_pixels(matcher.describe(scene.query), [matcher.describe(f) for f in (frame, scene.distorted)])
    if len(found) != 2:
        yield f"match_pixels of two references gives {len(found)} results"
        return
    for matches, reference in zip(found, (frame, scene.distorted), strict=True):
        if matches.query_xy.shape != matches.reference_xy.shape or matches.query_xy.shape[1:] != (2,):
            shapes = f"{matches.query_xy.shape} and {matches.reference_xy.shape}"
            yield f"match_pixels gives {shapes} pixels, not (N, 2) each"
            continue
        yield from outside(matches.query_xy, scene.query, "query_xy of match_pixels")
        yield from outside(matches.reference_xy, reference, "reference_xy of match_pixels")
        if not matches.query_pixel > 0:
            yield f"query_pixel is {matches.query_pixel}, not a length in pixels"


def depth_and_focal(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """Positive finite numbers at pixels of the frame."""
    frame = replace(scene.reference, depth=None)
    if predicts_depth(matcher):
        predicted = matcher.predict_depth(matcher.describe(frame), matcher.describe(scene.query))
        count = len(predicted.xy)
        if predicted.xy.shape != (count, 2) or predicted.depth.shape != (count,):
            yield f"predict_depth gives pixels {predicted.xy.shape} and depth {predicted.depth.shape}"
            return
        yield from outside(predicted.xy, frame, "pixels of predict_depth")
        if not (np.isfinite(predicted.depth) & (predicted.depth > 0)).all():
            yield "predict_depth gives depth that is not positive: leave such pixels out"
        if predicted.confidence.shape != (count,) or not (predicted.confidence >= 0).all():
            yield "predict_depth gives confidence that is not one number from 0 on for each pixel"
    if estimates_focal(matcher):
        focal = matcher.estimate_focal(replace(frame, camera=None))
        if not (np.isfinite(focal) and focal > 0):
            yield f"estimate_focal gives {focal} for an ordinary image"
