"""Plots for reports, as SVG text that takes the page's own text colour and so fits light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from scipy.stats import binom

from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.localization import Record
from mast3r_ros.lab.runs.summary import errors_of, stage_medians

Array = NDArray[np.float64]

#: Stands for the page's text colour in what matplotlib draws; replaced by ``currentColor``.
INK = "#010203"
ACCEPTED, WRONG, SECOND = "#2a9d8f", "#d1495b", "#e9a23b"
#: One colour for each reason of rejection, in order of first appearance.
REASON_COLOURS = ("#d1495b", "#8e6bbf", "#5b8fd6", "#b0803a", "#7a7f87", "#c2569b", "#4f9d4f")
STAGE_COLOURS = {
    "describe": "#3d6fb6",
    "retrieve": "#62a5c9",
    "match": "#2a9d8f",
    "solve": "#e9a23b",
    "verify": "#d1495b",
}
OTHER_COLOUR = "#8a8f98"
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g}%")
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
#: Smaller errors (cm, degrees) are drawn as this: a logarithm of zero has no place.
LEAST = 1e-3
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mast3r_ros",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


def errors_over_time(records: Sequence[Record]) -> str:
    """Translation and rotation errors of accepted poses over time; rejected frames as ticks, coloured by reason."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.3), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        times = _seconds(records)
        errors = np.array([record.error for record in records]).reshape(-1, 2)
        accepted = np.array([record.accepted for record in records], dtype=bool)
        wrong = np.array([record.wrong for record in records], dtype=bool)
        _errors(above, times, 100 * errors[:, 0], accepted, wrong, 100 * metrics.WRONG_M, "cm")
        _errors(below, times, errors[:, 1], accepted, wrong, metrics.WRONG_DEG, "deg")
        _rejections(above, times, records)
        below.set_xlabel("time (s)")
        above.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=5)
        return svg(figure)


def latency(records: Sequence[Record]) -> str:
    """Left: how long queries took in all. Right: where the time goes, median by stage."""
    totals = metrics.finite([record.timings_ms.get("total", np.nan) for record in records])
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (3, 2)})
        if totals.size:
            top = float(np.percentile(totals, 99.5)) * 1.05
            left.hist(np.clip(totals, None, top), bins=np.linspace(0, top, 36), color=ACCEPTED, rwidth=0.88)
            for rank, style in ((50, "-"), (95, "--")):
                value = float(np.percentile(totals, rank))
                left.axvline(value, color=INK, linewidth=1, linestyle=style, label=f"p{rank}  {value:.0f} ms")
            left.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=2)
        left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        left.set_xlabel("latency (ms)")
        left.set_ylabel("queries")
        _stage_bars(right, {k: v for k, v in stage_medians(records).items() if k != "total"})
        return svg(figure)


def error_curve(records: Sequence[Record], other: Sequence[Record] = (), labels: tuple[str, str] = ("", "")) -> str:
    """Share of all queries with an accepted pose within an error (cumulative distribution); of two runs to compare."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        runs = [(records, ACCEPTED, labels[0]), *([(other, SECOND, labels[1])] if other else [])]
        for run, colour, label in runs:
            known = [record for record in run if record.truth is not None and not record.negative]
            metres, degrees = errors_of(record for record in known if record.accepted)
            _cumulative(left, 100 * metres, len(known), colour, label)
            _cumulative(right, degrees, len(known), colour, label)
        _error_axis(left, [100 * metres for metres, _ in metrics.THRESHOLDS], "translation error (cm)")
        _error_axis(right, [degrees for _, degrees in metrics.THRESHOLDS], "rotation error (deg)")
        left.set_ylabel("share of queries")
        left.yaxis.set_major_formatter(PERCENT)
        if other:
            left.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=2)
        return svg(figure)


def trust(records: Sequence[Record]) -> str:
    """Left: risk against coverage. Right: how often ellipsoids hold the truth, against how often they claim to."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _risk_coverage(left, [record for record in records if record.judged])
        _calibration(right, metrics.finite([record.normalised_error for record in records if record.accepted]))
        return svg(figure)


def reason_colours(records: Sequence[Record]) -> dict[str, str]:
    """A colour for each reason of rejection that occurs."""
    reasons = dict.fromkeys(record.reason for record in records if not record.accepted)
    return {reason: REASON_COLOURS[i % len(REASON_COLOURS)] for i, reason in enumerate(reasons)}


def _errors(
    axes: Axes,
    times: Array,
    values: Array,
    accepted: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    limit: float,
    unit: str,
) -> None:
    """Errors on a logarithmic scale: a millimetre and a metre are both worth seeing."""
    values = np.maximum(values, LEAST)
    good = accepted & ~wrong
    axes.scatter(times[good], values[good], s=13, color=ACCEPTED, linewidths=0, label="localized", zorder=3)
    if wrong.any():
        axes.scatter(times[wrong], values[wrong], s=40, color=WRONG, marker="X", label="localized wrongly", zorder=4)
    axes.axhline(limit, color=WRONG, linewidth=1, linestyle=":", zorder=1)
    finite = values[accepted & np.isfinite(values)]
    axes.set_yscale("log")
    # Room below the smallest error for the ticks of rejected frames.
    axes.set_ylim(min([*finite, limit / 5]) / 3, max([*finite, limit]) * 1.5)
    axes.yaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.7)
    axes.set_ylabel(f"error ({unit})")


def _rejections(axes: Axes, times: Array, records: Sequence[Record]) -> None:
    for reason, colour in reason_colours(records).items():
        at = [
            time for time, record in zip(times, records, strict=True) if not record.accepted and record.reason == reason
        ]
        label = f"{reason.replace('_', ' ')} ({len(at)})"
        axes.scatter(
            at,
            np.full(len(at), 0.03),
            marker="|",
            s=90,
            color=colour,
            label=label,
            transform=axes.get_xaxis_transform(),
        )


def _stage_bars(axes: Axes, medians: dict[str, float]) -> None:
    names = list(medians)[::-1]
    values = [medians[name] for name in names]
    axes.barh(names, values, color=[STAGE_COLOURS.get(name, OTHER_COLOUR) for name in names], height=0.62)
    for row, value in enumerate(values):
        axes.text(value, row, f" {value:.1f}", va="center", fontsize=9.5)
    axes.set_xlim(0, max(values, default=1.0) * 1.2)
    axes.set_xlabel("median by stage (ms)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _cumulative(axes: Axes, errors: Array, queries: int, colour: str, label: str) -> None:
    errors = np.maximum(np.sort(metrics.finite(errors)), LEAST)
    share = np.arange(1, len(errors) + 1) / max(queries, 1)
    rising = [0.0, *share]
    axes.step([LEAST / 10, *errors, 1e9], [*rising, rising[-1]], where="post", color=colour, label=label)


def _error_axis(axes: Axes, marks: Sequence[float], label: str) -> None:
    """A logarithmic axis over all the errors that are drawn, and over the limits that recall is reported at."""
    drawn = np.concatenate([np.asarray(line.get_xdata(), dtype=np.float64)[1:-1] for line in axes.get_lines()])
    for mark in sorted(set(marks)):
        axes.axvline(mark, color=INK, alpha=0.35, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(min([*drawn, *marks]) / 1.5, max([*drawn, *marks]) * 1.5)
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1.03)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.7)
    axes.set_xlabel(label)


def _risk_coverage(axes: Axes, records: Sequence[Record]) -> None:
    """The curve of the accepted answers, and beyond them what there would be without the gates."""
    answers = [record for record in records if record.accepted]
    wrong = sum(record.wrong for record in answers)
    coverage = len(answers) / max(len(records), 1)
    bounds = metrics.share_interval(wrong, len(answers))
    top = bounds[1] if answers else 1.0
    ungated = [record for record in records if record.map_T_camera is not None]
    if len(ungated) > len(answers):
        # Rejected poses rank behind accepted ones, whatever their confidence.
        rank = [record.confidence + record.accepted for record in ungated]
        is_wrong = [record.negative or bool(metrics.is_wrong(*record.error)) for record in ungated]
        curve = metrics.risk_coverage(rank, is_wrong, len(records))
        axes.step(
            curve.coverage, curve.risk, where="post", color=INK, alpha=0.45, linestyle="--", label="without gates"
        )
        top = max(top, float(curve.risk.max()))
    curve = metrics.risk_coverage([r.confidence for r in answers], [r.wrong for r in answers], len(records))
    axes.step(curve.coverage, curve.risk, where="post", color=ACCEPTED, label="accepted answers")
    if answers:
        axes.plot([coverage] * 2, bounds, color=ACCEPTED, linewidth=1.2)
        axes.plot(
            [coverage], [wrong / len(answers)], "o", color=ACCEPTED, label=f"{wrong} of {len(answers)} wrong (95 %)"
        )
    axes.set_xlim(0, 1.02)
    # A little below zero, so that a curve at zero is seen.
    axes.set_ylim(-0.02 * max(top, 0.01), max(1.1 * top, 0.01))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PERCENT)
    axes.set_xlabel("coverage: share of queries answered")
    axes.set_ylabel("risk: share of answers wrong")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=3, columnspacing=1.0, handlelength=1.4)


def _calibration(axes: Axes, normalised: Array) -> None:
    """Reliability of the covariances: on the diagonal they keep their promise, above it they promise too little."""
    claimed = np.linspace(0, 1, 201)[1:-1]
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.45, linewidth=1, linestyle=":")
    if normalised.size:
        band = binom.ppf(np.array([[0.025], [0.975]]), normalised.size, claimed) / normalised.size
        axes.fill_between(claimed, *band, color=INK, alpha=0.1, linewidth=0, label="right covariances (95 %)")
        axes.plot(claimed, [metrics.coverage(normalised, share) for share in claimed], color=ACCEPTED, label="errors")
        bounds = metrics.calibration_intervals(normalised)
        for share, inside in metrics.calibration(normalised).items():
            axes.plot([float(share)] * 2, bounds[share], color=ACCEPTED, linewidth=1.2)
            axes.plot([float(share)], [inside], "o", color=ACCEPTED, markersize=5)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=2)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PERCENT)
    axes.set_xlabel("claimed by the ellipsoid")
    axes.set_ylabel("errors inside it")


def _seconds(records: Sequence[Record]) -> Array:
    """Time since the first record; its number in the list where there are no stamps."""
    stamps = np.array([record.stamp_ns for record in records], dtype=np.int64)
    if len(stamps) == 0 or len(np.unique(stamps)) < 2:
        return np.arange(len(stamps), dtype=np.float64)
    return (stamps - stamps.min()) * 1e-9


def svg(figure: Figure) -> str:
    """The figure as an <svg> element without fixed size, text as text, in the colour of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
