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

from mast3r_ros.evaluation import metrics
from mast3r_ros.evaluation.localization import Record
from mast3r_ros.evaluation.summary import stage_medians

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
        _errors(above, times, 100 * errors[:, 0], accepted, wrong, (1, 5, 10, 25, 100), 100 * metrics.WRONG_M, "cm")
        _errors(below, times, errors[:, 1], accepted, wrong, (0.1, 1, 5, 10, 45), metrics.WRONG_DEG, "deg")
        _rejections(above, times, records)
        below.set_xlabel("time (s)")
        above.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=5)
        return _svg(figure)


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
        return _svg(figure)


def error_curve(records: Sequence[Record]) -> str:
    """Share of all queries with an accepted pose within a translation error (cumulative distribution)."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        known = sum(record.truth is not None for record in records)
        errors = np.array([record.error for record in records if record.accepted]).reshape(-1, 2)
        _cumulative(left, 100 * errors[:, 0], known, (0.05, 0.1, 0.25), 100, "translation error (cm)")
        _cumulative(right, errors[:, 1], known, (5, 10), 1, "rotation error (deg)")
        left.set_ylabel("share of queries")
        left.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        return _svg(figure)


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
    ticks: Sequence[float],
    limit: float,
    unit: str,
) -> None:
    """Errors on a logarithmic scale: a millimetre and a metre are both worth seeing."""
    values = np.maximum(values, ticks[0] / 3)
    good = accepted & ~wrong
    axes.scatter(times[good], values[good], s=13, color=ACCEPTED, linewidths=0, label="localized", zorder=3)
    if wrong.any():
        axes.scatter(times[wrong], values[wrong], s=40, color=WRONG, marker="X", label="localized wrongly", zorder=4)
    axes.axhline(limit, color=WRONG, linewidth=1, linestyle=":", zorder=1)
    axes.set_yscale("log")
    finite = values[accepted & np.isfinite(values)]
    top = max(float(finite.max()) if finite.size else 0.0, limit) * 1.5
    axes.set_ylim(ticks[0] / 3.5, top)
    axes.set_yticks([tick for tick in ticks if tick < top], [f"{tick:g}" for tick in ticks if tick < top])
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


def _cumulative(axes: Axes, errors: Array, queries: int, marks: Sequence[float], scale: float, label: str) -> None:
    errors = np.sort(metrics.finite(errors))
    end = max(marks) * scale * 1.2
    share = np.arange(1, len(errors) + 1) / max(queries, 1)
    axes.step(
        [0.0, *errors, max(end, *errors[-1:])], [0.0, *share, *(share[-1:] or [0.0])], where="post", color=ACCEPTED
    )
    for mark in marks:
        axes.axvline(mark * scale, color=INK, alpha=0.35, linewidth=1, linestyle=":")
    axes.set_xlim(0, end)
    axes.set_ylim(0, 1.03)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.7)
    axes.set_xlabel(label)


def _seconds(records: Sequence[Record]) -> Array:
    """Time since the first record; its number in the list where there are no stamps."""
    stamps = np.array([record.stamp_ns for record in records], dtype=np.int64)
    if len(stamps) == 0 or len(np.unique(stamps)) < 2:
        return np.arange(len(stamps), dtype=np.float64)
    return (stamps - stamps.min()) * 1e-9


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element without fixed size, text as text, in the colour of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
