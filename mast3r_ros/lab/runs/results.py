"""The records of a run as files, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import read_text
from mast3r_ros.io.documents import answer_dict, pose_dict, to_json, write_text
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.record import Record

Array = NDArray[np.float64]


def record_dict(record: Record) -> dict[str, Any]:
    """One record as JSON: pose, covariance, verdict, evidence; errors where the truth is known."""
    document = answer_dict(
        image=record.name,
        stamp_ns=record.stamp_ns,
        accepted=record.accepted,
        reason=record.reason,
        detail=record.detail,
        map_T_camera=record.map_T_camera,
        covariance=record.covariance,
        keyframes=record.keyframes,
        confidence=record.confidence,
        focal_px=record.focal_px,
        evidence=record.evidence,
        timings_ms=record.timings_ms,
        bounds=record.bounds,
    )
    if record.group:
        document["group"] = record.group
    if record.negative:
        document["negative"] = True
    if record.unit_m != 1:
        document["unit_m"] = record.unit_m
    if record.truth is not None:
        document["translation_error_m"], document["rotation_error_deg"] = record.error
        document["true_map_T_camera"] = pose_dict(record.truth)
        document["viewpoint_m"], document["viewpoint_deg"] = record.viewpoint_m, record.viewpoint_deg
        document["view_overlap"] = record.view_overlap
    return document


def record_of(document: dict[str, Any]) -> Record:
    """The record that :func:`record_dict` made a document of. Raises KeyError, TypeError or ValueError."""
    covariance = document.get("covariance")
    return Record(
        document["image"],
        int(document["stamp_ns"]),
        document["status"] == "localized",
        document["reason"],
        document["detail"],
        _pose(document["map_T_camera"]),
        _pose(document.get("true_map_T_camera")),
        None if covariance is None else np.array(covariance, dtype=np.float64).reshape(6, 6),
        tuple(document["keyframes"]),
        {name: _number(value) for name, value in document["evidence"].items()},
        _number(document["confidence"]),
        _number(document["focal_px"]),
        {stage: _number(value) for stage, value in document["timings_ms"].items()},
        document.get("group", ""),
        bool(document.get("negative", False)),
        _number(document.get("viewpoint_m")),
        _number(document.get("viewpoint_deg")),
        _number(document.get("view_overlap")),
        float(document.get("unit_m", 1.0)),
        {name: _number(value) for name, value in document.get("protection", {}).items()},
    )


def write_records(path: Path, evaluation: Evaluation) -> None:
    """Write every record of an evaluation, one JSON object on each line."""
    write_text(path, "".join(to_json(record_dict(record)) + "\n" for record in evaluation.records))


def read_records(path: Path) -> list[Record]:
    """What :func:`write_records` has written.

    Raises:
        DatasetError: for a file that is missing or malformed, naming the line.
    """
    records = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            records.append(record_of(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path}, line {number}: this is no record of a run ({error!r})") from error
    return records


def accepted_poses(evaluation: Evaluation) -> list[tuple[int, Array]]:
    """Stamps and poses of the accepted records, for :func:`write_tum`."""
    return [(r.stamp_ns, r.map_T_camera) for r in evaluation.accepted if r.map_T_camera is not None]


def _pose(document: dict[str, list[float]] | None) -> Array | None:
    return None if document is None else se3.from_quaternion(document["translation"], document["rotation_xyzw"])


def _number(value: float | None) -> float:
    """JSON has no NaN: it was written as null."""
    return math.nan if value is None else float(value)
