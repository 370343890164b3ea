"""A report that opens anywhere: one HTML file with everything in it, for `evaluate`, `replay` and the demo alike."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.evaluation import plots
from mast3r_ros.evaluation.gallery import Picture
from mast3r_ros.evaluation.localization import Evaluation
from mast3r_ros.evaluation.results import accepted_poses, write_json, write_records, write_tum
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.plan_view import Trajectory, draw_plan_view

#: Longest side of pictures in the page, pixels.
PICTURE_SIDE = 1400
#: Estimates further apart in time than this are not joined by a line, seconds.
LONGEST_GAP_S = 1.0

#: A tile of the head line: figure, what it is, and "good", "bad" or "".
Tile = tuple[str, str, str]


def write_run(
    folder: Path, evaluation: Evaluation, keyframe_map: KeyframeMap, pictures: Sequence[Picture] = (), **report: Any
) -> Path:
    """Write everything that a run leaves behind: report.html, summary.json, records.jsonl, trajectories.

    Args:
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
    has_truth = any(record.truth is not None for record in evaluation.records)
    parts = [
        _header(title or evaluation.name, subtitle or _subtitle(evaluation)),
        _tiles([*_headline(summary, has_truth), *tiles]),
    ]
    if keyframe_map is not None and len(keyframe_map):
        parts.append(_section("From above", _plan_view(evaluation, keyframe_map), "Where the camera was found."))
    if has_truth:
        text = "Dotted: the limit beyond which an accepted pose counts as wrong. Ticks at the bottom: rejected frames."
        parts.append(_section("Error over time", plots.errors_over_time(evaluation.records), text))
        parts.append(_section("How many are how good", plots.error_curve(evaluation.records)))
    parts.append(_section("Latency", plots.latency(evaluation.records)))
    parts.append(_section("Rejections", _rejections(summary)))
    if pictures:
        parts.append(_section("Matches", _gallery(pictures), "Left the query, right its best keyframe."))
    parts.append(_section("All figures", _details(summary)))
    page = PAGE.replace("{title}", html.escape(title or evaluation.name)).replace("{body}", "\n".join(parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _header(title: str, subtitle: str) -> str:
    return f"<header><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p></header>"


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
        error = summary["median_translation_error_m"]
        tiles += [
            (f"{100 * error:.1f} cm" if math.isfinite(error) else "-", "median position error", ""),
            (_figure(summary["median_rotation_error_deg"], "{:.2f}°"), "median rotation error", ""),
            (_figure(summary["recall"]["0.10m_5deg"], "{:.1%}"), "within 10 cm and 5°", ""),
            (str(wrong), "wrong poses accepted", "bad" if wrong else "good"),
        ]
    return [*tiles, (_figure(latency["p50"], "{:.0f} ms"), f"latency; p95 {_figure(latency['p95'], '{:.0f} ms')}", "")]


def _figure(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "-"


def _tiles(tiles: Sequence[Tile]) -> str:
    cells = (
        f'<div class="tile {kind}"><b>{html.escape(figure)}</b><span>{html.escape(label)}</span></div>'
        for figure, label, kind in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _section(title: str, content: str, text: str = "") -> str:
    words = f"<p>{html.escape(text)}</p>" if text else ""
    return f"<section><h2>{html.escape(title)}</h2>{words}{content}</section>"


def _plan_view(evaluation: Evaluation, keyframe_map: KeyframeMap) -> str:
    """The map from above with the true way, the accepted poses, and rejected frames where the truth is known."""
    records = evaluation.records
    truth = [(r.stamp_ns, r.truth) for r in records if r.truth is not None]
    found = [(r.stamp_ns, r.map_T_camera) for r in records if r.accepted and r.map_T_camera is not None]
    lost = [r.truth[:3, 3] for r in records if not r.accepted and r.truth is not None]
    ways = []
    if truth:
        ways.append(Trajectory(_positions(truth), "truth", "#e0a030"))
    if found:
        ways.append(Trajectory(np.array([pose[:3, 3] for _, pose in found]), "localized", "#00798c", points=True))
    if lost:
        ways.append(Trajectory(np.array(lost), "rejected", "#d1495b", points=True))
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "plan.png"
        draw_plan_view(keyframe_map, picture, ways)
        image = np.asarray(cv2.imread(str(picture), cv2.IMREAD_COLOR), dtype=np.uint8)
    return _image(image[..., ::-1], "map from above")


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
    rows = "".join(
        f"<tr><th>{html.escape(reason.replace('_', ' '))}</th><td>{count}</td>"
        f'<td class="bar"><i style="width:{100 * count / most:.0f}%"></i></td></tr>'
        for reason, count in rejected.items()
    )
    return f"<table>{rows}</table>"


def _gallery(pictures: Sequence[Picture]) -> str:
    figures = (
        f'<figure class="{"" if picture.accepted else "no"}">{_image(picture.image, picture.title)}'
        f"<figcaption><b>{html.escape(picture.title)}</b> {html.escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )
    return f'<div class="gallery">{"".join(figures)}</div>'


def _image(rgb: NDArray[np.uint8], alt: str) -> str:
    """An image in the page itself; JPEG, because these are photographs with lines on them."""
    scale = min(1.0, PICTURE_SIDE / max(rgb.shape))
    if scale < 1:
        size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert ok
    text = base64.b64encode(data.tobytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{text}">'


def _details(summary: dict[str, Any]) -> str:
    """Every figure, setting and version, grouped."""
    groups: dict[str, dict[str, Any]] = {"results": {}}
    for name, value in summary.items():
        if isinstance(value, dict):
            groups[name] = value
        else:
            groups["results"][name] = value
    tables = (_table(name, values) for name, values in groups.items() if values)
    return f'<div class="details">{"".join(tables)}</div>'


def _table(name: str, values: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(_label(key))}</th><td>{html.escape(_text(value))}</td></tr>"
        for key, value in values.items()
    )
    return f"<table><caption>{html.escape(_label(name))}</caption>{rows}</table>"


def _label(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    if isinstance(value, (list, tuple)):
        return " to ".join(_text(item) for item in value)
    return str(value)


PAGE = (Path(__file__).with_name("report.html")).read_text(encoding="utf-8")
