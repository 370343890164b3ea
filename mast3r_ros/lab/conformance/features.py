"""Checks of what a matcher knows of single frames: features, their signature, the cache, descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import PosedFrame
from mast3r_ros.lab.conformance.scene import CheckScene
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features, Matcher

#: What a folder may be called on every file system that a map may be copied to.
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")


def signature(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """It names a folder of the map, and whoever reads it twice reads the same."""
    before = matcher.signature
    if not isinstance(before, str) or not FOLDER_NAME.fullmatch(before):
        yield f"signature {before!r} cannot be the name of a folder: use letters, digits, '.', '_', '+' and '-'"
    matcher.describe(scene.reference)
    if matcher.signature != before:
        yield f"the signature changed from {before!r} to {matcher.signature!r} while a frame was described"


def arrays(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """A mapping from names to NumPy arrays of numbers."""
    for frame in (scene.reference, scene.query):
        found: Any = matcher.describe(frame)
        if not isinstance(found, Mapping):
            yield f"describe gives {type(found).__name__}, not a dict of named arrays"
            return
        for name, array in found.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
                kind = f"{type(array).__name__} {getattr(array, 'dtype', '')}".strip()
                yield f"feature {name!r} of the {frame.name} is {kind}, not an array of numbers under a name"


def deterministic(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """The same features for the same frame, whatever was described in between."""
    first = _copied(matcher.describe(scene.reference))
    matcher.describe(scene.query)
    for name in different(first, matcher.describe(scene.reference)):
        yield f"feature '{name}' of the same frame is another one the second time"


def survive_the_cache(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """Written beside a map and read again, they are the same and match the same."""
    described = _copied(matcher.describe(scene.reference))
    with TemporaryDirectory(prefix="mast3r_ros_") as folder:
        keyframes = KeyframeMap(image_format="png")
        keyframes.add(PosedFrame(scene.reference, np.eye(4)), "reference")
        keyframes.save(Path(folder) / "map")
        loaded = KeyframeMap.load(Path(folder) / "map")
        made = _copied(loaded.features(matcher, "reference"))
        loaded.save(Path(folder) / "map")
        read = KeyframeMap.load(Path(folder) / "map").features(matcher, "reference")
        for name in different(made, read):
            yield f"feature '{name}' is another one when it is read from the map's cache"
        missing = sorted(set(described) ^ set(read))
        if missing:
            yield f"features of a keyframe and of a frame are not of the same names: {', '.join(missing)}"
        query = matcher.describe(scene.query)
        before, after = matcher.match(query, [made])[0], matcher.match(query, [read])[0]
        if len(before) != len(after):
            yield f"features from the cache give {len(after)} matches, the same ones before {len(before)}"


def descriptors(matcher: Matcher, scene: CheckScene) -> Iterator[str]:
    """One length for all frames, or they cannot be in one index."""
    lengths = set()
    for frame in (scene.reference, scene.query):
        found: Any = matcher.local_descriptors(matcher.describe(frame))
        if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype != np.float32:
            kind = f"{getattr(found, 'dtype', type(found).__name__)} {getattr(found, 'shape', '')}".strip()
            yield f"local_descriptors of the {frame.name} are {kind}, not (N, D) float32"
            continue
        lengths.add(found.shape[1])
        if not len(found):
            yield f"the {frame.name}, which is full of texture, has no local descriptor: it can never be retrieved"
        if not np.isfinite(found).all():
            yield f"local_descriptors of the {frame.name} contain NaN or infinity"
    if len(lengths) > 1:
        yield f"local_descriptors have lengths {sorted(lengths)} for different frames"


def differ_by_signature(matcher: Matcher, others: Sequence[Matcher], scene: CheckScene) -> Iterator[str]:
    """A cache that is keyed by the signature must not mix features that were made differently."""
    mine = _copied(matcher.describe(scene.reference))
    for other in others:
        names = different(mine, other.describe(scene.reference))
        if names and other.signature == matcher.signature:
            yield (
                f"with other options the features {', '.join(names)} are others and the signature is still "
                f"'{matcher.signature}': a map's cache would mix them"
            )


def different(first: Features, second: Features) -> list[str]:
    """Names of the features in which two descriptions of a frame differ."""
    names = sorted({*first, *second})
    return [n for n in names if n not in first or n not in second or not same_array(first[n], second[n])]


def same_array(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether two arrays (any shape) are of one type and shape and hold the same; NaN equals NaN."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return bool(np.array_equal(first, second, equal_nan=first.dtype.kind == "f"))


def _copied(features: Features) -> Features:
    return {name: np.array(array) for name, array in features.items()}
