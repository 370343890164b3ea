"""Submissions to the Map-free benchmark: a zip of one ``pose_<scene>.txt`` for each scene.

Lines ``seq1/frame_00005.jpg qw qx qy qz tx ty tz confidence``: world to camera, world being the reference's camera,
metres; the confidence is 0 or more and ranks the poses.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3
from mast3r_ros.lab.datasets.mapfree import NamedPose, by_number, parse_poses
from mast3r_ros.lab.runs.record import Record


@dataclass
class Submission:
    """What a zip holds.

    Attributes:
        poses: by scene, then by frame number.
        complaints: lines that are left out, and why.
    """

    poses: dict[str, dict[int, NamedPose]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


def read_submission(path: Path) -> Submission:
    """Read a submission. Lines that the benchmark ignores are left out and told.

    Raises:
        DatasetError: if the file is missing or no zip.
    """
    submission = Submission()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.startswith("pose_") and name.endswith(".txt"):
                    text = archive.read(name).decode(errors="replace")
                    poses, complaints = parse_poses(text, f"{path.name}: {name}", with_confidence=True)
                    submission.poses[name.removeprefix("pose_").removesuffix(".txt")] = by_number(poses)
                    submission.complaints += complaints
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(f"{path} is no submission ({reason}): expected a zip with pose_<scene>.txt files") from error
    return submission


def write_submission(path: Path, scenes: Mapping[str, Iterable[Record]], rejected: bool = False) -> None:
    """Write a submission in one step: afterwards the file is whole, or as it was before.

    A scene without a pose gets an empty file: without one the benchmark would count all of its frames as failures,
    not just every fifth.

    Args:
        scenes: records by scene; a record's name ends in its image's, ``.../seq1/frame_00005.jpg``.
        rejected: also write poses that were rejected, with confidence 0, below all others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for scene, records in scenes.items():
            lines = [_line(record) for record in records if record.accepted or rejected]
            archive.writestr(f"pose_{scene}.txt", "".join(lines))
    os.replace(partial, path)


def _line(record: Record) -> str:
    if record.map_T_camera is None:
        return ""
    camera_T_world = se3.inverse(record.map_T_camera)
    x, y, z, w = se3.quaternion(camera_T_world)
    confidence = record.confidence if record.accepted else 0.0
    values = " ".join(f"{value:.9f}" for value in (w, x, y, z, *camera_T_world[:3, 3], confidence))
    return f"{'/'.join(record.name.split('/')[-2:])} {values}\n"
