"""What a live run leaves behind: figures, a report, a result bag, a Rerun recording, pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.io.bags import open_bag
from mast3r_ros.io.codec.picture_files import read_picture
from mast3r_ros.io.documents import write_json
from mast3r_ros.lab.live.summary import Traffic, live_summary
from mast3r_ros.lab.pages.report import write_run
from mast3r_ros.lab.pages.rerun_recording import write_rerun
from mast3r_ros.lab.pages.scene_view import Way, draw_scene
from mast3r_ros.lab.runs.gallery import Gallery, Picture
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.replay import Replay, ReplaySettings, write_result_bag
from mast3r_ros.localization import Localizer
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher
from mast3r_ros.pictures.plan_view import DrawnPath, draw_plan_view

log = logging.getLogger(__name__)

#: Good poses shown in the report.
GOOD = 3
FOUND_COLOUR = "#00798c"


def write_live_output(
    folder: Path,
    replay: Replay,
    traffic: Traffic,
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    bag: Path,
    settings: ReplaySettings,
    *,
    title: str,
    stage_seconds: Mapping[str, float],
    matchers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write summary.json, report.html, records.jsonl, result.mcap, recording.rrd, trajectory.tum (and truth.tum).

    Args:
        matcher: draws the match pictures again, from the recorded frames.
        bag: the recording that was played.
        settings: its topics.
        matchers: what other matchers made of the recording, see :func:`side_by_side`, for the summary.

    Returns:
        the summary, see :func:`live_summary`.
    """
    replay.evaluation.settings |= {"map_keyframes": len(keyframe_map), "features": matcher.signature}
    pictures = match_pictures(replay, keyframe_map, matcher, bag)
    tiles = [(str(traffic.played - len(replay.evaluation.records)), f"of {traffic.played} images not looked at", "")]
    write_run(folder, replay.evaluation, keyframe_map, pictures, title=title, tiles=tiles)
    summary = {**live_summary(replay.evaluation, traffic, stage_seconds), "matchers": dict(matchers or {})}
    write_json(folder / "summary.json", summary)
    write_result_bag(folder / "result.mcap", replay, settings, keyframe_map.frame_id)
    try:
        write_rerun(folder / "recording.rrd", keyframe_map, replay, bag)
    except UserError as error:
        log.warning("%s", error)
    return summary


def match_pictures(replay: Replay, keyframe_map: KeyframeMap, matcher: Matcher, bag: Path) -> list[Picture]:
    """Pictures of the worst pose, of some good ones and of every kind of rejection.

    The node draws such pictures on ``~/matches`` for those who listen. Drawing costs time, so here it is done after
    the run, from the recorded frames.
    """
    records = {record.stamp_ns: record for record in _telling(replay.evaluation.records)}
    keyframe_map.prepare(matcher)
    localizer = Localizer(keyframe_map, matcher)
    gallery = Gallery(keyframe_map, good=GOOD, worst=1, rejected=1)
    with open_bag(bag) as reader:
        for frame in reader.frames(image_topic=replay.evaluation.settings.get("image")):
            if (record := records.pop(frame.stamp_ns, None)) is not None:
                gallery.offer(record, frame, localizer.localize(frame))
            if not records:
                break
    return gallery.pictures()


def _telling(records: list[Record]) -> list[Record]:
    """Few records that tell a lot: the worst, some evenly spread good ones, the first of each kind of rejection."""
    accepted = [record for record in records if record.accepted]
    chosen = [accepted[i] for i in np.linspace(0, len(accepted) - 1, GOOD + 2).astype(int)[1:-1]] if accepted else []
    known = [record for record in accepted if np.isfinite(record.error[0])]
    if known:
        chosen.append(max(known, key=lambda record: record.error[0]))
    first_of = {record.reason: record for record in reversed(records) if not record.accepted}
    return [*chosen, *first_of.values()]


def write_pictures(folder: Path, replay: Replay, keyframe_map: KeyframeMap, matcher: Matcher, bag: Path) -> list[Path]:
    """Write plan_view.jpg, scene.jpg and matches.jpg, small enough for a README.

    Raises:
        UserError: if nothing was localized.
    """
    records = replay.evaluation.records
    found = np.array([r.map_T_camera[:3, 3] for r in records if r.accepted and r.map_T_camera is not None])
    if not len(found):
        raise UserError("nothing was localized: there is nothing to make pictures of")
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "plan_view.png"
    truth = [r.truth[:3, 3] for r in records if r.truth is not None]
    ways = [DrawnPath(np.array(truth), "where the camera was", "#e0a030")] if truth else []
    draw_plan_view(keyframe_map, plan, [*ways, DrawnPath(found, "where it was localized", FOUND_COLOUR, points=True)])
    pictures = {"plan_view.jpg": read_picture(plan)}
    plan.unlink()
    line = np.array(truth) if truth else found
    pictures["scene.jpg"] = draw_scene(keyframe_map, [Way(line, (0, 121, 140))])
    good = [picture for picture in match_pictures(replay, keyframe_map, matcher, bag) if picture.accepted]
    pictures["matches.jpg"] = good[0].image
    return [_write_jpeg(folder / name, np.asarray(image, dtype=np.uint8)) for name, image in pictures.items()]


def _write_jpeg(path: Path, image: NDArray[np.uint8], width: int = 1200) -> Path:
    if image.shape[1] > width:
        size = (width, round(image.shape[0] * width / image.shape[1]))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if not cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82]):
        raise UserError(f"{path} cannot be written")
    return path
