"""Knowing when the answer is wrong: risk against coverage, and false accepts per thousand queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mast3r_ros.lab.metrics.intervals import share_interval

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Risk of the answers as ever less confident ones are let in.

    Attributes:
        threshold: (M,) lowest confidence that is let in, falling; one point for each distinct confidence.
        coverage: (M,) share of all queries answered at this threshold, rising.
        risk: (M,) share of these answers that are wrong.
    """

    threshold: Array
    coverage: Array
    risk: Array

    @property
    def area(self) -> float:
        """Area under the curve over the coverage that is reached: the mean risk, 0 to 1; NaN without an answer.

        AURC of Geifman, Uziel and El-Yaniv, ICLR 2019, section 3: where all queries are answered and no two
        confidences are equal, the mean over k of the share of wrong ones among the k most confident answers.
        """
        if not self.coverage.size:
            return float("nan")
        return float(np.diff(self.coverage, prepend=0.0) @ self.risk / self.coverage[-1])

    def coverage_at(self, risk: float) -> float:
        """Largest coverage whose risk is at most this; 0 where none is."""
        return float(self.coverage[self.risk <= risk].max(initial=0.0))


def risk_coverage(confidence: ArrayLike, wrong: ArrayLike, queries: int | None = None) -> RiskCoverage:
    """The risk-coverage curve of selective prediction (Geifman and El-Yaniv, NIPS 2017, section 2).

    ``coverage(c) = answers with confidence >= c / queries`` and ``risk(c) = wrong ones among them / answers``.

    Args:
        confidence: (N,) of the answers; NaN ranks last. Equal confidences are let in together.
        wrong: (N,) whether each answer is wrong; every answer to a negative is.
        queries: of all queries, those without an answer included; None where all were answered.
    """
    confidence = np.nan_to_num(np.asarray(confidence, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], np.asarray(wrong, dtype=bool)[order]
    count = np.arange(1, confidence.size + 1)
    last_of_equals = np.append(confidence[1:] != confidence[:-1], True)[: confidence.size]
    risk = np.cumsum(wrong) / count
    total = confidence.size if queries is None else queries
    return RiskCoverage(confidence[last_of_equals], count[last_of_equals] / max(total, 1), risk[last_of_equals])


@dataclass(frozen=True)
class FalseAccepts:
    """False accepts of a run, with their exact interval.

    Attributes:
        count: queries answered with a wrong pose (all answers, where the queries are negatives).
        queries: how many were tried.
        per_1000: the rate; NaN where nothing was tried.
        low, high: Clopper-Pearson bounds of the rate.
    """

    count: int
    queries: int
    per_1000: float
    low: float
    high: float


def false_accepts(count: int, queries: int, confidence: float = 0.95) -> FalseAccepts:
    """Rate of false accepts per thousand queries, exact bounds included; see :func:`share_interval`.

    To state at most 1 per 1000 with 95 % confidence, none may occur in about 3000 tries ("rule of three").
    """
    low, high = share_interval(count, queries, confidence)
    rate = 1000 * count / queries if queries else float("nan")
    return FalseAccepts(int(count), int(queries), rate, 1000 * low, 1000 * high)
