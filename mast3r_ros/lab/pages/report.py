"""A report that opens anywhere: one HTML file with everything in it, for `evaluate`, `replay` and the demo alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.io.codec.picture_files import read_picture
from mast3r_ros.io.documents import write_json, write_tum
from mast3r_ros.lab.pages import plots
from mast3r_ros.lab.pages.page import (
    Bar,
    Tile,
    details,
    figure,
    gallery,
    header,
    image,
    label,
    section,
    table,
    tiles_of,
    with_interval,
    write_page,
)
from mast3r_ros.lab.pages.stanford import stanford
from mast3r_ros.lab.runs.gallery import Picture, length
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.results import accepted_poses, write_records
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.pictures.plan_view import DrawnPath, draw_plan_view

#: Estimates further apart in time than this are not joined by a line, seconds.
LONGEST_GAP_S = 1.0


def write_run(
    folder: Path,
    evaluation: Evaluation,
    keyframe_map: KeyframeMap | None,
    pictures: Sequence[Picture] = (),
    **report: Any,
) -> Path:
    """Write everything that a run leaves behind: report.html, summary.json, records.jsonl, trajectories.

    Args:
        keyframe_map: drawn in the report; None where a run has many.
        report: more arguments of :func:`write_report`.

    Returns:
        the path of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", evaluation.summary())
    write_records(folder / "records.jsonl", evaluation)
    write_tum(folder / "trajectory.tum", accepted_poses(evaluation))
    truth = [(record.stamp_ns, record.truth) for record in evaluation.records if record.truth is not None]
    if truth:
        write_tum(folder / "truth.tum", truth)
    write_report(folder / "report.html", evaluation, keyframe_map, pictures, **report)
    return folder / "report.html"


def write_report(
    path: Path,
    evaluation: Evaluation,
    keyframe_map: KeyframeMap | None = None,
    pictures: Sequence[Picture] = (),
    *,
    title: str = "",
    subtitle: str = "",
    tiles: Sequence[Tile] = (),
) -> None:
    """Write the report of a run as one HTML file without outside resources.

    Args:
        keyframe_map: drawn from above with the trajectories on it, where given.
        pictures: match pictures, see :class:`gallery.Gallery`.
        title, subtitle: head line; the evaluation's name by default.
        tiles: more figures for the head line.
    """
    summary = evaluation.summary()
    has_truth = any(record.judged for record in evaluation.records)
    parts = [
        header(title or evaluation.name, subtitle or _subtitle(evaluation)),
        tiles_of([*_headline(summary, has_truth), *tiles]),
    ]
    if keyframe_map is not None and len(keyframe_map):
        parts.append(section("From above", _plan_view(evaluation, keyframe_map), "Where the camera was found."))
    if has_truth:
        parts += _accuracy(evaluation, summary)
    parts += _matches(pictures)
    parts.append(section("Latency", plots.latency(evaluation.records)))
    parts.append(section("Rejections", _rejections(summary)))
    parts.append(section("All figures", details(summary)))
    write_page(path, title or evaluation.name, parts)


def _accuracy(evaluation: Evaluation, summary: dict[str, Any]) -> list[str]:
    """Sections that need a truth."""
    records = evaluation.records
    parts = [
        section(
            "Summary",
            summary_table(summary),
            "Intervals hold 95 %; neighbouring frames are alike, so true ones are wider.",
        )
    ]
    text = "Dotted: the limit beyond which an accepted pose counts as wrong. Ticks at the bottom: rejected frames."
    parts.append(section("Error over time", plots.errors_over_time(records), text))
    text = "Share of queries with a truth; dotted: the limits that recall is reported at."
    parts.append(section("How many are how good", plots.error_curve(records), text))
    text = (
        "Left: how often answers are wrong as ever less confident ones are let in. "
        "Right: how often errors are inside the ellipsoids of the covariances."
    )
    parts.append(section("Knowing when it is wrong", plots.trust(records), text))
    if (diagram := stanford(records)) is not None:
        text = (
            "Error against protection level, as shares of the alert limit (a Stanford diagram). Below the diagonal an "
            "error exceeded its bound; in the red field a pose that was off by more than can be borne was relied on."
        )
        parts.append(section("Errors and their bounds", diagram + _quartiles(summary), text))
    tables = "".join(_breakdown_table(name, rows) for name, rows in summary["breakdown"].items())
    if tables:
        parts.append(
            section(
                "Where it works",
                tables,
                "From each query to its nearest keyframe: between the centres, and between the rotations.",
            )
        )
    return parts


def _quartiles(summary: dict[str, Any]) -> str:
    """How often the 90 % ellipsoids hold the error, from the easiest quarter of the answers to the hardest."""
    rows = []
    for row in summary["calibration_by_quartile"]:
        held, between = with_interval(row["calibration"]["0.90"], row["held_90_interval"], "{:.0%}")
        inliers, spread = figure(row["inliers"], "{:.0f}"), figure(row["spread"], "{:.0%}")
        gap, nees = figure(row["viewpoint_gap_deg"], "{:.0f}°"), figure(row["nees"], "{:.1f}")
        rows.append((f"quarter {row['quartile']}", str(row["answers"]), inliers, spread, gap, held, between, nees))
    heads = ("by difficulty", "answers", "inliers", "spread", "viewpoint gap", "inside 90 %", "95 % interval", "NEES")
    return table(heads, rows) if rows else ""


def _matches(pictures: Sequence[Picture]) -> list[str]:
    """A section for each kind of picture, the worst ones first."""
    titles = {"worst": "The worst queries", "rejected": "Other rejections", "typical": "Typical answers"}
    found = {kind: [picture for picture in pictures if picture.kind == kind] for kind in titles}
    text = "Left the query, right its best keyframe."
    return [section(titles[kind], gallery(chosen), text) for kind, chosen in found.items() if chosen]


def summary_table(summary: dict[str, Any]) -> str:
    """The figures that matter, with their intervals."""
    return table(("", "figure", "95 % interval"), list(_figures(summary)))


def _figures(summary: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, value and interval of the figures that matter, as text."""
    percent = "{:.1%}"
    answered = f"answered: {summary['answered']} of {summary['queries']}"
    yield answered, *with_interval(summary["answered_fraction"], summary["answered_fraction_interval"], percent)
    for key, share in summary["recall"].items():
        yield (
            f"recall within {key.replace('_', ', ')}",
            *with_interval(share, summary["recall_interval"][key], percent),
        )
    metres, (low, high) = summary["median_translation_error_m"], summary["median_translation_error_interval_m"]
    yield "median translation error", length(metres), f"{length(low)} to {length(high)}" if math.isfinite(low) else ""
    degrees, bounds = summary["median_rotation_error_deg"], summary["median_rotation_error_interval_deg"]
    yield "median rotation error", *with_interval(degrees, bounds, "{:.3g}°")
    if trajectory := summary.get("trajectory"):
        yield from _trajectory_figures(trajectory)
    for key in ("false_accepts_per_1000", "false_accepts_per_1000_negatives"):
        if key in summary:
            yield label(key), *with_interval(summary[key], summary[f"{key}_interval"], "{:.3g}")
    area = "area under risk-coverage"
    yield area, *with_interval(summary["risk_coverage_area"], summary["risk_coverage_area_interval"], "{:.4f}")
    for share, inside in summary["calibration"].items():
        name = f"errors inside the {float(share):.0%} ellipsoid"
        yield name, *with_interval(inside, summary["calibration_interval"][share], percent)
    yield (
        "mean NEES (6 where covariances are right)",
        *with_interval(summary["nees"], summary["nees_interval"], "{:.2f}"),
    )


def _trajectory_figures(trajectory: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Absolute and relative errors of a whole way, with their intervals."""
    names = {"ate": "ATE (RMSE)", "rpe_frame": "RPE between frames (RMSE)", "rpe_second": "RPE in a second (RMSE)"}
    for key, name in names.items():
        if f"{key}_rmse_m" in trajectory:
            low, high = trajectory[f"{key}_rmse_interval_m"]
            turn, bounds = trajectory[f"{key}_rmse_deg"], trajectory[f"{key}_rmse_interval_deg"]
            degrees, between = with_interval(turn, bounds, "{:.2g}°")
            lengths = f"{length(low)} to {length(high)}, " if math.isfinite(low) else ""
            yield name, f"{length(trajectory[f'{key}_rmse_m'])}, {degrees}", lengths + between


def _breakdown_table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """One line for each bin or group, recall as a bar."""
    unit = {"viewpoint_distance_m": " m", "viewpoint_angle_deg": "°"}.get(name, "")
    lines = []
    for row in rows:
        share, between = with_interval(row["recall"], row["recall_interval"], "{:.0%}")
        span = row["group"] or "-" if "group" in row else _span(row["from"], row["to"], unit)
        figures = (
            span,
            str(row["queries"]),
            str(row["answered"]),
            str(row["wrong_accepted"]),
            length(row["median_translation_error_m"]),
            figure(row["median_rotation_error_deg"], "{:.2g}°"),
            share,
            f"({between})" if between else "",
        )
        lines.append((*figures, Bar(row["recall"], good=True)))
    heads = (
        label(name.rpartition("_")[0] or name),
        "queries",
        "answered",
        "wrong",
        "median",
        "",
        "within 10 cm, 5°",
        "",
        "",
    )
    return table(heads, lines)


def _span(low: float, high: float, unit: str) -> str:
    return f"over {low:g}{unit}" if math.isinf(high) else f"{low:g} to {high:g}{unit}"


def _subtitle(evaluation: Evaluation) -> str:
    settings = evaluation.settings
    words = [f"{len(evaluation.records)} frames"]
    if "map_keyframes" in settings:
        words.append(f"a map of {settings['map_keyframes']} keyframes")
    if "features" in settings:
        words.append(f"features {settings['features']}")
    return ", ".join(words)


def _headline(summary: dict[str, Any], has_truth: bool) -> list[Tile]:
    """The figures that matter most."""
    queries, answered = summary["queries"], summary["answered"]
    latency = summary["latency_ms"]
    share = f"{answered / queries:.1%}" if queries else "-"
    tiles: list[Tile] = [(share, f"localized: {answered} of {queries}", "")]
    if has_truth:
        wrong = summary["wrong_accepted"]
        most = figure(summary["false_accepts_per_1000_interval"][1], "{:.2g}")
        error = summary["median_translation_error_m"]
        tiles += [
            (length(error), "median position error", ""),
            (figure(summary["median_rotation_error_deg"], "{:.2f}°"), "median rotation error", ""),
            (figure(summary["recall"]["0.10m_5deg"], "{:.1%}"), "within 10 cm and 5°", ""),
            (str(wrong), f"wrong poses accepted; at most {most} in 1000", "bad" if wrong else "good"),
        ]
    return [*tiles, (figure(latency["p50"], "{:.0f} ms"), f"latency; p95 {figure(latency['p95'], '{:.0f} ms')}", "")]


def _plan_view(evaluation: Evaluation, keyframe_map: KeyframeMap) -> str:
    """The map from above with the true way, the accepted poses, and rejected frames where the truth is known."""
    records = evaluation.records
    truth = [(r.stamp_ns, r.truth) for r in records if r.truth is not None]
    found = [(r.stamp_ns, r.map_T_camera) for r in records if r.accepted and r.map_T_camera is not None]
    lost = [r.truth[:3, 3] for r in records if not r.accepted and r.truth is not None]
    ways = []
    if truth:
        ways.append(DrawnPath(_positions(truth), "truth", "#e0a030"))
    if found:
        ways.append(DrawnPath(np.array([pose[:3, 3] for _, pose in found]), "localized", "#00798c", points=True))
    if lost:
        ways.append(DrawnPath(np.array(lost), "rejected", "#d1495b", points=True))
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "plan.png"
        draw_plan_view(keyframe_map, picture, ways)
        rgb = read_picture(picture)
    return image(rgb, "map from above")


def _positions(poses: Sequence[tuple[int, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Camera centres (N, 3) in order of time, with a NaN row wherever the recording pauses."""
    rows: list[NDArray[np.float64]] = []
    last = None
    for stamp_ns, pose in sorted(poses, key=lambda item: item[0]):
        if last is not None and stamp_ns - last > LONGEST_GAP_S * 1e9:
            rows.append(np.full(3, np.nan))
        rows.append(pose[:3, 3])
        last = stamp_ns
    return np.array(rows).reshape(-1, 3)


def _rejections(summary: dict[str, Any]) -> str:
    rejected = summary["rejected"]
    if not rejected:
        return "<p>None: every frame was localized.</p>"
    most = max(rejected.values())
    return table(
        ("reason", "queries", ""),
        [(label(reason), str(count), Bar(count / most)) for reason, count in rejected.items()],
    )
