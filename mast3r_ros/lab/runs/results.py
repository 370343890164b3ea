"""Results as files and text that other programs read: strict JSON, and TUM trajectories."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import read_text
from mast3r_ros.lab.runs.localization import Evaluation, Record

Array = NDArray[np.float64]


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinity, which JSON does not have, become null; numpy values become numbers."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def pose_dict(map_T_camera: Array | None) -> dict[str, list[float]] | None:
    """(4, 4) -> ``{"translation": [x, y, z], "rotation_xyzw": [x, y, z, w]}``, metres; None stays None."""
    if map_T_camera is None:
        return None
    return {
        "translation": [float(v) for v in map_T_camera[:3, 3]],
        "rotation_xyzw": [float(v) for v in se3.quaternion(map_T_camera)],
    }


def record_dict(record: Record) -> dict[str, Any]:
    """One record as JSON: pose, covariance, verdict, evidence; errors where the truth is known."""
    document: dict[str, Any] = {
        "image": record.name,
        "stamp_ns": record.stamp_ns,
        "status": "localized" if record.accepted else "rejected",
        "reason": record.reason,
        "detail": record.detail,
        "map_T_camera": pose_dict(record.map_T_camera),
        "covariance": record.covariance,
        "inliers": int(record.evidence.get("inliers", 0)),
        "keyframes": list(record.keyframes),
        "confidence": record.confidence,
        "focal_px": record.focal_px,
        "evidence": record.evidence,
        "timings_ms": record.timings_ms,
    }
    if record.bounds:
        document["protection"] = record.bounds
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


def write_json(path: Path, value: Any) -> None:
    """Write a value as strict, indented JSON."""
    _write_text(path, to_json(value, indent=2) + "\n")


def write_records(path: Path, evaluation: Evaluation) -> None:
    """Write every record of an evaluation, one JSON object on each line."""
    _write_text(path, "".join(to_json(record_dict(record)) + "\n" for record in evaluation.records))


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


def write_tum(path: Path, poses: Iterable[tuple[int, Array]]) -> None:
    """Write stamped poses (nanoseconds, (4, 4)) as ``stamp tx ty tz qx qy qz qw``, the TUM trajectory format."""
    lines = ["# timestamp tx ty tz qx qy qz qw\n"]
    for stamp_ns, pose in poses:
        numbers = " ".join(f"{v:.9f}" for v in (*pose[:3, 3], *se3.quaternion(pose)))
        lines.append(f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d} {numbers}\n")
    _write_text(path, "".join(lines))


def accepted_poses(evaluation: Evaluation) -> list[tuple[int, Array]]:
    """Stamps and poses of the accepted records, for :func:`write_tum`."""
    return [(r.stamp_ns, r.map_T_camera) for r in evaluation.accepted if r.map_T_camera is not None]


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _pose(document: dict[str, list[float]] | None) -> Array | None:
    return None if document is None else se3.from_quaternion(document["translation"], document["rotation_xyzw"])


def _number(value: float | None) -> float:
    """JSON has no NaN: it was written as null."""
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
