"""Stanford diagram: errors against their protection levels, the usual picture of integrity in satellite navigation.

Below the diagonal an error exceeded the bound that was promised (misleading); where it exceeded the alert limit as well
and the bound did not, the pose was relied on (hazardously misleading). ESA Navipedia, "The Stanford - ESA Integrity
Diagram"; Tossaint et al., ION GNSS 2006.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from mast3r_ros.lab.pages.plots import ACCEPTED, INK, OTHER_COLOUR, PLAIN, STYLE, WRONG, svg
from mast3r_ros.lab.runs.record import Record

Array = NDArray[np.float64]

#: Errors smaller than this share of their limit are drawn as this.
LEAST = 1e-4


def stanford(records: Sequence[Record]) -> str | None:
    """Error against protection level, both as shares of the alert limit; None where no pose has a truth and a level.

    Left the position, right the rotation. Refused poses count too, as those that nobody was told.
    """
    known = [r for r in records if r.truth is not None and not r.negative and np.isfinite(_of(r)).all()]
    if not known:
        return None
    values = np.array([_of(record) for record in known])
    answered = np.array([record.accepted for record in known], dtype=bool)
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        _diagram(left, values[:, 0], values[:, 1], answered, "position")
        _diagram(right, values[:, 2], values[:, 3], answered, "rotation")
        left.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=3)
        return svg(figure)


def _of(record: Record) -> tuple[float, float, float, float]:
    """Error and level of the position, error and level of the rotation, as shares of their limits."""
    metres, degrees = record.error
    bounds = record.bounds
    limit_m, limit_deg = bounds.get("alert_limit_m", np.nan), bounds.get("alert_limit_deg", np.nan)
    level_m, level_deg = bounds.get("protection_m", np.nan), bounds.get("protection_deg", np.nan)
    return metres / limit_m, level_m / limit_m, degrees / limit_deg, level_deg / limit_deg


def _diagram(axes: Axes, errors: Array, levels: Array, answered: NDArray[np.bool_], what: str) -> None:
    errors, levels = np.maximum(errors, LEAST), np.maximum(levels, LEAST)
    beyond = errors > levels
    kinds = (
        (~answered, OTHER_COLOUR, ".", "refused"),
        (answered & ~beyond, ACCEPTED, "o", "answered"),
        (answered & beyond, WRONG, "X", "answered, beyond its level"),
    )
    for rows, colour, marker, label in kinds:
        size = 34 if marker == "X" else 12
        name = f"{label} ({int(rows.sum())})"
        axes.scatter(errors[rows], levels[rows], s=size, color=colour, marker=marker, linewidths=0, label=name)
    low = min(errors.min(), levels.min(), 0.1) / 1.5
    high = max(np.quantile(errors, 0.98), levels.max(), 1.0) * 2
    axes.plot([low, high], [low, high], color=INK, alpha=0.6, linewidth=1)
    axes.axhline(1, color=INK, alpha=0.6, linewidth=1, linestyle=":")
    axes.axvline(1, color=INK, alpha=0.6, linewidth=1, linestyle=":")
    # Told that it may be relied on, and off by more than can be borne.
    axes.fill_between([1, high], low, 1, color=WRONG, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel(f"error of the {what} / alert limit")
    axes.set_ylabel("protection level / alert limit")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())
