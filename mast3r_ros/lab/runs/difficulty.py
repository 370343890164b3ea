"""Whether covariances hold for hard queries as well as for easy ones: calibration by quartile of difficulty.

Ellipsoids of 90 % that hold 90 % in the mean can hold 60 % of the errors in the hardest quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, rankdata

from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.record import Record

#: What makes a query hard, known when it is answered, and whether more of it is easier.
MEASURES = {"inliers": True, "spread": True, "viewpoint_gap_deg": False}
PARTS = 4


def calibration_by_quartile(accepted: Sequence[Record]) -> list[dict[str, Any]]:
    """Calibration of a quarter of the answers each, the easiest first.

    A query is the harder the fewer inliers its answer rests on, the less of the image they cover, and the further
    aside from the keyframes it was taken: answers are sorted by the mean of their ranks in these.

    Returns:
        a row for each quarter: ``answers``, means of the measures, ``calibration`` (share of the errors inside the 50,
        90 and 99 % ellipsoids), ``held_90_interval`` (Clopper-Pearson) and ``nees``; no rows for fewer answers with a
        truth than quarters.
    """
    known = [record for record in accepted if np.isfinite(record.normalised_error)]
    if len(known) < PARTS:
        return []
    order = np.argsort(_difficulty(known), kind="stable")
    return [_row(part + 1, [known[k] for k in rows]) for part, rows in enumerate(np.array_split(order, PARTS))]


def _difficulty(records: Sequence[Record]) -> NDArray[np.float64]:
    """Mean rank (N,) in what makes a query hard; what nobody measured ranks in the middle."""
    ranks = []
    for name, more_is_easier in MEASURES.items():
        values = np.array([record.evidence.get(name, np.nan) for record in records], dtype=np.float64)
        known = np.isfinite(values)
        values = np.where(known, values, np.median(values[known]) if known.any() else 0.0)
        ranks.append(rankdata(-values if more_is_easier else values))
    return np.asarray(np.mean(ranks, axis=0))


def _row(quartile: int, records: Sequence[Record]) -> dict[str, Any]:
    normalised = np.array([record.normalised_error for record in records])
    held = int(np.sum(normalised <= chi2.ppf(0.9, df=6)))
    means = {name: metrics.mean([record.evidence.get(name, np.nan) for record in records]) for name in MEASURES}
    return {
        "quartile": quartile,
        "answers": len(records),
        **means,
        "calibration": metrics.calibration(normalised),
        "held_90_interval": metrics.share_interval(held, len(records)),
        "nees": metrics.mean(normalised),
    }
