"""Keyframes, and whole maps, in another frame or another unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.mapping.blob import decode_depth, decode_points, encode_depth, encode_points
from mast3r_ros.mapping.feature_cache import FeatureCache
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.records import Entry
from mast3r_ros.mapping.storage import read_map, write_map


def transformed(entry: Entry, similarity: Similarity) -> Entry:
    """A keyframe after the map was moved, turned and scaled; its pixels stay as they are.

    Raises:
        MapError: where its depth cannot be read.
    """
    keyframe = replace(entry.keyframe, map_T_camera=similarity.pose(entry.keyframe.map_T_camera))
    if similarity.scale == 1:
        return replace(entry, keyframe=keyframe)
    depth, points = entry.depth, entry.points
    if depth is not None:
        depth = encode_depth(decode_depth(depth, keyframe.camera) * np.float32(similarity.scale))
    if points is not None:
        xy, distance = decode_points(points)
        points = encode_points(xy, distance * similarity.scale)
    return replace(
        entry, keyframe=keyframe, depth=depth, points=points, depth_median_m=entry.depth_median_m * similarity.scale
    )


def scaled_noise(noise: PoseNoise | None, factor: float) -> PoseNoise | None:
    """A map's noise after all its lengths were multiplied."""
    return noise and replace(noise, position_m=noise.position_m * factor)


def with_event(provenance: Mapping[str, str], event: str) -> dict[str, str]:
    """Provenance that also tells what was done to a map, and when; earlier events stay."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {**provenance, "history": "\n".join(filter(None, [provenance.get("history", ""), f"{now} {event}"]))}


def write_transformed(
    source: Path, target: Path, similarity: Similarity, event: str, facts: Mapping[str, str], frame_id: str = ""
) -> None:
    """Write a map moved, turned and scaled, in one step; source and target may be the same folder.

    Args:
        event: what is done, kept in the map's history.
        facts: replace entries of its provenance.
        frame_id: another name of the map frame.

    Raises:
        MapError: for a map that cannot be read or written; nothing is changed then.
    """
    source, target = source.expanduser().resolve(), target.expanduser().resolve()
    header, entries = read_map(source)
    header = replace(
        header,
        frame_id=frame_id or header.frame_id,
        provenance=with_event({**header.provenance, **facts}, event),
        pose_noise=scaled_noise(header.pose_noise, similarity.scale),
    )
    moved = [transformed(entry, similarity) for entry in entries]
    kept = moved if similarity.scale == 1 else []
    write_map(target, header, moved, lambda fresh: carry_features(source, kept, fresh))


def carry_features(source: Path, entries: Iterable[Entry], fresh: Path) -> None:
    """Take over what matchers know of keyframes of the map ``source`` whose pixels and depth are unchanged."""
    cache = FeatureCache()
    cache.folder = source
    cache.copy_to(fresh, {entry.keyframe.id: entry for entry in entries})
