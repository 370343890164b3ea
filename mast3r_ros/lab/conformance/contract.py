"""Checks of what every matcher must do: matches of a query with keyframes, whatever the images are like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Frame
from mast3r_ros.lab.conformance.features import different, same_array
from mast3r_ros.lab.conformance.scene import CheckScene, blank
from mast3r_ros.matching.base import Features, Matcher, Matches

#: A point may project this far from the pixel it was matched at, pixels of the keyframe.
REPROJECTION_PX = 1.0
#: Its distance may be off by this share where the keyframe's own depth is known.
DEPTH_SHARE = 0.05
#: Pixels may lie this far outside of the outermost pixel centres: the border of a pixel, and rounding.
BORDER_PX = 0.51
#: Width and height of images that nobody would choose.
ODD_SIZES = ((1, 1), (8, 8), (31, 17), (320, 40), (40, 320))
#: Images longer than this, in widths, may be refused with a sentence.
LONGEST = 4


def members(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """The members of the protocol are there, of their kinds."""
    if not isinstance(getattr(matcher, "name", None), str) or not matcher.name:
        yield "it has no name: give it an attribute 'name', a string"
    if not hasattr(type(matcher), "signature") and not hasattr(matcher, "signature"):
        yield "it has no signature: give it an attribute 'signature' that names everything the features depend on"
    for method in ("describe", "local_descriptors", "match"):
        if not callable(getattr(matcher, method, None)):
            yield f"it has no method '{method}'"


def one_for_each_reference(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """As many as references, in their order, of the right shapes."""
    query, reference, nothing = (matcher.describe(f) for f in (scene.query, scene.reference, blank(320, 240)))
    if not len(matcher.match(reference, [reference])[0]):
        yield "an image full of texture, whose depth is known, has no match with itself"
    if len(matcher.match(query, [])):
        yield "match of no reference gives something: it must be an empty list"
    for asked in (query, reference):
        alone = len(matcher.match(asked, [reference])[0])
        for place, order in enumerate(([reference, nothing], [nothing, reference])):
            found = matcher.match(asked, order)
            if len(found) != 2:
                yield f"match of two references gives {len(found)} results"
                return
            for matches in found:
                yield from _malformed(matches)
            # Networks decode in batches, whose rounding may move a few matches.
            if abs(len(found[place]) - alone) > 10 + 0.2 * alone:
                yield f"a reference has {alone} matches alone, and {len(found[place])} as number {place + 1} of two"


def points_are_where_they_are_seen(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """In front of the keyframe's camera, on the rays of the matched pixels, as far away as its depth says."""
    for frame in (scene.reference, scene.distorted):
        assert frame.camera is not None and frame.depth is not None
        reference = matcher.describe(frame)
        # One that only knows what it has seen before is asked for that as well.
        found = matcher.match(matcher.describe(scene.query), [reference])[0]
        found = found if len(found) else matcher.match(matcher.describe(replace(frame, depth=None)), [reference])[0]
        if not len(found):
            continue
        if (found.points[:, 2] <= 0).any():
            yield f"{_share(found.points[:, 2] <= 0)} of the points with the {frame.name} lie behind its camera"
            continue
        off = np.linalg.norm(frame.camera.project(found.points) - found.reference_xy, axis=1)
        if not (off <= REPROJECTION_PX).all():
            wrong = _share(~(off <= REPROJECTION_PX))
            yield (
                f"{wrong} of the points with the {frame.name} do not project to their reference_xy (up to "
                f"{np.nanmax(off):.1f} px off): points are those of the keyframe, in its camera's frame"
            )
        u, v = np.rint(found.reference_xy).astype(int).T
        depth = frame.depth[v.clip(0, frame.height - 1), u.clip(0, frame.width - 1)]
        far = np.abs(found.points[:, 2] / depth - 1) > DEPTH_SHARE
        if far.any():
            yield f"{_share(far)} of the points with the {frame.name} are not as far away as its depth says, in metres"


def pixels_are_inside(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """Of the images as the cameras gave them."""
    query = matcher.describe(scene.query)
    for frame in (scene.reference, scene.distorted):
        found = matcher.match(query, [matcher.describe(frame)])[0]
        yield from outside(found.query_xy, scene.query, "query_xy")
        yield from outside(found.reference_xy, frame, "reference_xy")


def missing_depth_or_camera(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """Every combination of what is known of a reference and of a query."""
    queries = (scene.query, replace(scene.query, camera=None))
    whole = scene.reference
    assert whole.depth is not None
    references = {
        "without depth": replace(whole, depth=None),
        "without camera": replace(whole, camera=None),
        "without depth and camera": replace(whole, depth=None, camera=None),
        "with an empty depth image": replace(whole, depth=np.zeros_like(whole.depth)),
        "with a depth image of NaN": replace(whole, depth=np.full_like(whole.depth, np.nan)),
    }
    for words, reference in references.items():
        for query in queries:
            where = f"a reference {words} and a query {'with' if query.camera is not None else 'without'} camera"
            yield from _raised(where, lambda q=query, r=reference: _matched(matcher, q, r))  # type: ignore[misc]


def odd_images(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """As a query and as a reference."""
    odd = [blank(320, 240, grey) for grey in (0, 255)] + [blank(*size) for size in ODD_SIZES]
    for frame in odd:
        where = f"a {frame.name} image of grey value {frame.image[0, 0, 0]}"
        for words, pair in (("query", (frame, scene.reference)), ("reference", (scene.query, frame))):
            yield from _raised(f"{where} as a {words}", lambda p=pair: _matched(matcher, *p), _is_long(frame))  # type: ignore[misc]


def inputs_are_left_alone(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """Keyframes' features are shared by all queries, images by whoever else shows them."""
    frames = [scene.query, scene.reference]
    images = [frame.image.copy() for frame in frames]
    assert scene.reference.depth is not None
    depth = scene.reference.depth.copy()
    query, reference = (matcher.describe(frame) for frame in frames)
    before = [{name: np.array(array) for name, array in f.items()} for f in (query, reference)]
    matcher.local_descriptors(reference)
    matcher.match(query, [reference])
    for frame, image in zip(frames, images, strict=True):
        if not same_array(frame.image, image):
            yield f"the image of the {frame.name} was written to"
    if not same_array(scene.reference.depth, depth):
        yield "the depth image of the reference was written to"
    for words, old, new in zip(("query", "reference"), before, (query, reference), strict=True):
        for name in different(old, new):
            yield f"feature '{name}' of the {words} was written to"


def outside(xy: NDArray[Any], frame: Frame, name: str) -> Iterator[str]:
    """Pixels (N, 2) that are not in a frame's image."""
    away = (xy < -BORDER_PX) | (xy > np.array([frame.width, frame.height]) - 1 + BORDER_PX)
    if away.any():
        yield (
            f"{_share(away.any(axis=1))} of {name} lie outside of the {frame.width}x{frame.height} image of the "
            f"{frame.name}: pixels are those of the image as the camera gave it"
        )


def _malformed(found: Any) -> Iterator[str]:
    if not isinstance(found, Matches):
        yield f"match gives {type(found).__name__}, not Matches"
        return
    count = len(found.query_xy)
    for name, width in (("query_xy", 2), ("reference_xy", 2), ("points", 3), ("weights", 0)):
        array = getattr(found, name)
        shape = (count, width) if width else (count,)
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.shape != shape:
            kind = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}".strip()
            yield f"{name} is {kind}, not float64 {shape}"
        elif not np.isfinite(array).all():
            yield f"{name} contains NaN or infinity: leave such matches out"
    weights = np.asarray(found.weights)
    if weights.dtype.kind == "f" and not ((weights > 0) & (weights <= 1)).all():
        yield f"weights are outside of (0, 1]: {np.nanmin(weights):.3g} to {np.nanmax(weights):.3g}"
    if not found.scale_sigma >= 0:
        yield f"scale_sigma is {found.scale_sigma}, not a standard deviation"
    note: Any = found.note
    if not isinstance(note, str):
        yield "note is not a string"


def _matched(matcher: Matcher, query: Frame, reference: Frame) -> Iterator[str]:
    """What is wrong with the matches of two frames."""
    mine: Features = matcher.describe(query)
    theirs = matcher.describe(reference)
    matcher.local_descriptors(mine)
    for matches in matcher.match(mine, [theirs]):
        yield from _malformed(matches)


def _is_long(frame: Frame) -> bool:
    return max(frame.width, frame.height) > LONGEST * min(frame.width, frame.height)


def _raised(where: str, look: Callable[[], Iterator[str]], may_refuse: bool = False) -> Iterator[str]:
    try:
        for fault in look():
            yield f"{where}: {fault}"
    except UserError as error:
        if not may_refuse:
            yield f"{where} is refused ({error}): give no matches instead, a frame must not stop a node"
    except Exception as error:  # whatever a stranger's code raises is a finding
        yield f"{where} raises {type(error).__name__}: {error}"


def _share(wrong: Any) -> str:
    return f"{int(np.sum(wrong))} of {len(wrong)}"
