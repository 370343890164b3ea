"""What a map would be built of, and every doubt about it, without building: `bag check` and `map build --dry-run`.

Whatever opening and reading a source says in earnest is heard here too: the same readers are asked, and their warnings
are the doubts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError, UserError
from mast3r_ros.frames import Camera, PosedFrame, valid_depth
from mast3r_ros.io.bags import BagReader, open_bag
from mast3r_ros.io.bags.messages import raw_stamp_ns
from mast3r_ros.io.bags.plan import Plan
from mast3r_ros.io.bags.topics import tf_topics
from mast3r_ros.io.codec import doubt_about
from mast3r_ros.io.datasets.base import FrameList
from mast3r_ros.io.datasets.detect import detect, open_source
from mast3r_ros.io.datasets.rosbag import RosBag
from mast3r_ros.transforms import TransformBuffer, TransformUnavailable

#: Frames that are decoded: enough to see whether it works.
LOOKED_AT = 12
#: A pause this many times longer than the usual time between two images is told.
LONG_PAUSE = 10.0


@dataclass
class Check:
    """Facts by name, each a sentence or a table for people and for JSON; the TF tree; and doubts, a sentence each."""

    facts: dict[str, Any] = field(default_factory=dict)
    tree: str = ""
    doubts: list[str] = field(default_factory=list)


def check_source(path: Path, layout: str | None = None, **options: Any) -> Check:
    """Look at a source without building anything. Arguments and errors as :func:`open_source`."""
    check = Check()
    with _warnings(check.doubts):
        if path.exists() and (layout or detect(path)) == RosBag.layout:
            _check_bag(check, path, options)
        else:
            _check_frames(check, open_source(path, layout, **options))
    check.doubts = list(dict.fromkeys(doubt.removeprefix(f"{path}: ") for doubt in check.doubts))
    return check


@contextmanager
def _warnings(into: list[str]) -> Iterator[None]:
    """Collect what the package would log as warnings, instead of printing it."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            into.append(record.getMessage())

    logger, collector = logging.getLogger("mast3r_ros"), Collector(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


# Recordings


def _check_bag(check: Check, path: Path, options: dict[str, Any]) -> None:
    choice = ("image_topic", "camera_info_topic", "depth_topic", "use_depth", "camera")
    given = {name: options[name] for name in choice if name in options}
    with open_bag(path) as bag:
        plan = bag.plan(**given)
        stamps = _stamps(bag, plan)
        check.facts["recording"] = {
            "path": str(path),
            "ros": 2 if bag.is_ros2 else 1,
            "duration_s": round((bag.end_ns - bag.start_ns) / 1e9, 3),
            "topics": len(bag.topics),
        }
        check.facts |= {"images": _images(bag, plan), "calibration": _calibration(bag, plan), "depth": _depth(plan)}
        check.facts["stamps"] = {name: _rate(times) for name, times in stamps.items()}
        check.doubts += _doubts_of_stamps(plan, stamps)
        chosen, _ = tf_topics(bag.topics, plan.topics.image)
        transforms = bag.transforms(plan.topics.image)
        check.tree = draw_tree(transforms)
        check.facts["tf"] = {"topics": list(chosen), "frames": transforms.frames}
        check.facts["poses"] = _poses(check, path, options, stamps[plan.topics.image])
        list(islice(bag.frames(**given), LOOKED_AT))


def _images(bag: BagReader, plan: Plan) -> dict[str, Any]:
    topic = bag.topics[plan.topics.image]
    size = None if plan.size is None else list(plan.size)
    return {
        "topic": plan.topics.image,
        "encoding": topic.encoding,
        "frame": plan.image_frame,
        "size": size,
        "count": topic.count,
        "rectified": plan.topics.rectified,
    }


def _calibration(bag: BagReader, plan: Plan) -> dict[str, Any] | None:
    if plan.camera is None:
        return None
    topic = bag.topics.get(plan.camera_source)
    return {"source": plan.camera_source, "frame": None if topic is None else topic.frame_id, **_camera(plan.camera)}


def _camera(camera: Camera) -> dict[str, Any]:
    return {
        "size": [camera.width, camera.height],
        **{name: round(getattr(camera, name), 3) for name in ("fx", "fy", "cx", "cy")},
        "model": camera.model,
        "D": [round(float(value), 6) for value in camera.D],
    }


def _depth(plan: Plan) -> dict[str, Any] | None:
    if plan.depth is None:
        return None
    use = plan.depth
    return {
        "topic": plan.topics.depth,
        "encoding": use.encoding,
        "unit_m": use.unit_m,
        "frame": use.frame,
        "used": use.how or "not used",
        "camera_info": plan.topics.depth_info,
        "median_m": None if use.median_m is None else round(use.median_m, 3),
    }


def _stamps(bag: BagReader, plan: Plan) -> dict[str, NDArray[np.int64]]:
    """Times of all messages of the used topics, nanoseconds, in the order of recording; of images without, recorded."""
    found: dict[str, list[int]] = {name: [] for name in plan.topics.names.values() if name}
    stamped = bag.topics[plan.topics.image].stamped
    for topic, recorded_ns, data in bag.serialized(found):
        if len(data) >= 12:
            stamp = raw_stamp_ns(data, bag.topics[topic].serialization)
            found[topic].append(stamp if stamped else recorded_ns)
    return {name: np.array(times, dtype=np.int64) for name, times in found.items()}


def _rate(times: NDArray[np.int64]) -> dict[str, Any]:
    """How often messages come, and the longest time without one."""
    apart = np.diff(np.sort(times)) / 1e9
    apart = apart[apart > 0]
    if not apart.size:
        return {"count": len(times), "rate_hz": None, "longest_pause_s": None}
    return {
        "count": len(times),
        "rate_hz": round(1 / float(np.median(apart)), 2),
        "longest_pause_s": round(float(apart.max()), 3),
    }


def _doubts_of_stamps(plan: Plan, stamps: dict[str, NDArray[np.int64]]) -> list[str]:
    doubts = []
    times = stamps[plan.topics.image]
    back = int((np.diff(times) < 0).sum())
    if back:
        doubts.append(
            f"stamps on {plan.topics.image} go back {back} times: two cameras on one topic, or a clock was set"
        )
    rate = _rate(times)
    if rate["rate_hz"] and rate["longest_pause_s"] * rate["rate_hz"] > LONG_PAUSE:
        doubts.append(f"images on {plan.topics.image} pause for up to {rate['longest_pause_s']} s")
    if plan.depth is not None and plan.depth.how and len(times) and len(stamps[str(plan.topics.depth)]):
        others = np.sort(stamps[str(plan.topics.depth)])
        after = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
        near = np.minimum(abs(others[after - 1] - times), abs(others[np.minimum(after, len(others) - 1)] - times))
        without = int((near > 20_000_000).sum())
        if without:
            doubts.append(
                f"{without} of {len(times)} images have no depth image within 0.02 s (the median is "
                f"{np.median(near) / 1e9:.3f} s away)"
            )
    return doubts


def _poses(check: Check, path: Path, options: dict[str, Any], times: NDArray[np.int64]) -> dict[str, Any] | None:
    """Where poses would come from, how many images have one, and the extent of the way."""
    try:
        source = RosBag(path, **options)
    except DatasetError as error:
        check.doubts.append(f"no map can be built of it, though it can be localized in one: {error}")
        return None
    found, why = [], ""
    for stamp in times.tolist():
        try:
            found.append(source.pose_at(stamp)[:3, 3])
        except TransformUnavailable as error:
            why = str(error)
    if len(found) < len(times):
        check.doubts.append(f"{len(times) - len(found)} of {len(times)} images have no pose at their time ({why})")
    origin = options.get("pose_topic") or "TF"
    return {"from": origin, "frame": source.map_frame, "images": len(found), "of": len(times), **_way(found)}


def draw_tree(transforms: TransformBuffer) -> str:
    """Coordinate frames as an indented tree, moving ones marked."""
    below = transforms.children()
    children = {child for kids in below.values() for child, _ in kids}
    lines: list[str] = []

    def draw(frame: str, mark: str, indent: str, depth: int) -> None:
        lines.append(f"{indent}{frame}{mark}")
        for child, static in below.get(frame, []) if depth < len(below) + 1 else []:
            draw(child, "" if static else " (moving)", f"{indent}  ", depth + 1)

    for root in sorted(set(below) - children):
        draw(root, "", "", 0)
    return "\n".join(lines)


# All other sources


def _check_frames(check: Check, source: Any) -> None:
    """By some frames spread over the whole."""
    if isinstance(source, FrameList):
        count: int | None = len(source)
        places = np.unique(np.linspace(0, len(source) - 1, min(LOOKED_AT, len(source))).round().astype(int))
        looked = [source.read(int(place)) for place in places]
    else:
        count, looked = None, list(islice(source, LOOKED_AT))
    if not looked:
        raise UserError(f"{source.name} has no frames")
    check.facts["source"] = {"name": source.name, "layout": source.layout, "frames": count, "looked_at": len(looked)}
    sizes = sorted({(posed.frame.width, posed.frame.height) for posed in looked})
    check.facts["images"] = {"sizes": [list(size) for size in sizes]}
    cameras = _distinct([posed.frame.camera for posed in looked if posed.frame.camera is not None])
    check.facts["calibration"] = [_camera(camera) for camera in cameras] or None
    without = sum(posed.frame.camera is None for posed in looked)
    if without:
        check.doubts.append(
            f"{without} of {len(looked)} frames looked at have no calibration: they are left out of a map"
        )
    check.doubts += [f"the calibration {doubt}" for camera in cameras if (doubt := doubt_about(camera))]
    check.facts["depth"] = _depth_of_frames(looked)
    check.facts["poses"] = _way([posed.map_T_camera[:3, 3] for posed in looked])


def _distinct(cameras: list[Camera]) -> list[Camera]:
    found: list[Camera] = []
    for camera in cameras:
        if not any(camera.same_as(other) for other in found):
            found.append(camera)
    return found


def _depth_of_frames(looked: list[PosedFrame]) -> dict[str, Any] | None:
    depths = [posed.frame.depth for posed in looked if posed.frame.depth is not None]
    if not depths:
        return None
    measured = np.concatenate([depth[valid_depth(depth)] for depth in depths])
    return {
        "frames": len(depths),
        "measured": round(sum(int(valid_depth(depth).sum()) for depth in depths) / sum(d.size for d in depths), 3),
        "median_m": round(float(np.median(measured)), 3) if measured.size else None,
    }


def _way(positions: list[NDArray[np.float64]]) -> dict[str, Any]:
    """Extent of camera positions along x, y and z, metres."""
    if not positions:
        return {"extent_m": None}
    return {"extent_m": [round(float(side), 2) for side in np.ptp(np.stack(positions), axis=0)]}
