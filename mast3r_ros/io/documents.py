"""Results as text that other programs read: strict JSON, and TUM trajectories."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: Prefixes of the values of an attempt's status that are figures behind the verdict, and milliseconds by stage.
EVIDENCE, LATENCY = "evidence ", "ms "


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


def answer_dict(
    *,
    image: str,
    stamp_ns: int,
    accepted: bool,
    reason: str,
    detail: str,
    map_T_camera: Array | None,
    covariance: Array | None,
    keyframes: Sequence[str],
    confidence: float,
    focal_px: float,
    evidence: Mapping[str, float],
    timings_ms: Mapping[str, float],
    bounds: Mapping[str, float],
) -> dict[str, Any]:
    """What became of one image, as `localize --json` and records.jsonl say it: pose (4, 4), covariance (6, 6)."""
    document: dict[str, Any] = {
        "image": image,
        "stamp_ns": stamp_ns,
        "status": "localized" if accepted else "rejected",
        "reason": reason,
        "detail": detail,
        "map_T_camera": pose_dict(map_T_camera),
        "covariance": covariance,
        "inliers": int(evidence.get("inliers", 0)),
        "keyframes": list(keyframes),
        "confidence": confidence,
        "focal_px": focal_px,
        "evidence": dict(evidence),
        "timings_ms": dict(timings_ms),
    }
    if bounds:
        document["protection"] = dict(bounds)
    return document


def status_values(
    *,
    reason: str,
    keyframes: Sequence[str],
    confidence: float,
    evidence: Mapping[str, float],
    timings_ms: Mapping[str, float],
    bounds: Mapping[str, float],
) -> dict[str, str]:
    """The values of an attempt's DiagnosticStatus on ``~/status``: verdict, bounds of the error, figures, times."""
    values = {"reason": reason, "keyframes": " ".join(keyframes), "confidence": f"{confidence:.4f}"}
    values |= {key: f"{value:.6g}" for key, value in bounds.items()}
    values |= {EVIDENCE + key: f"{value:.6g}" for key, value in evidence.items()}
    return values | {LATENCY + stage: f"{ms:.3f}" for stage, ms in timings_ms.items()}


def write_json(path: Path, value: Any) -> None:
    """Write a value as strict, indented JSON."""
    write_text(path, to_json(value, indent=2) + "\n")


def write_tum(path: Path, poses: Iterable[tuple[int, Array]]) -> None:
    """Write stamped poses (nanoseconds, (4, 4)) as ``stamp tx ty tz qx qy qz qw``, the TUM trajectory format."""
    lines = ["# timestamp tx ty tz qx qy qz qw\n"]
    for stamp_ns, pose in poses:
        numbers = " ".join(f"{v:.9f}" for v in (*pose[:3, 3], *se3.quaternion(pose)))
        lines.append(f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d} {numbers}\n")
    write_text(path, "".join(lines))


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


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
