"""The map that a node's settings name, ready to be used."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mast3r_ros.errors import MapError, UserError
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.signature import verify
from mast3r_ros.matching import Matcher
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.settings import Settings

#: How often it is said how far the preparation of a map is, seconds.
SAID_EVERY_S = 10.0


class Stopping(UserError):
    """The node is being shut down while it loads."""


def load_relocalizer(settings: Settings, matcher: Matcher, logger: Any, is_stopping: Callable[[], bool]) -> Relocalizer:
    """Read the map and prepare it for the matcher.

    Args:
        is_stopping: asked before each keyframe whether to give up.

    Raises:
        MapError: if there is no usable map, or it is not signed by whom it must be.
        Stopping: if the node is stopping.
    """
    path = settings.node.map
    if not path:
        raise MapError("parameter map is empty: give the folder of a map (`mast3r_ros map build` makes one)")
    started = said_at = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said_at
        if is_stopping():
            raise Stopping("the node is shutting down")
        if time.monotonic() - said_at > SAID_EVERY_S:
            said_at = time.monotonic()
            logger.info(f"preparing keyframe {done} of {total}")

    if settings.node.map_key:
        verify(Path(path).expanduser().resolve(), Path(settings.node.map_key).expanduser())
    keyframe_map = KeyframeMap.load(path)
    if not len(keyframe_map):
        raise MapError(f"the map {path} has no keyframes: build it again from a recording with poses")
    relocalizer = Relocalizer(keyframe_map, matcher, settings, progress)
    took = time.monotonic() - started
    logger.info(
        f"map {path}: {len(keyframe_map)} keyframes, matcher {matcher.name} ({matcher.signature}), {took:.1f} s"
    )
    for sentence in settings.deprecated:
        logger.warning(sentence)
    return relocalizer
