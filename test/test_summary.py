"""The figures of every run: negatives, intervals, trust, breakdowns, and how the report shows them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from test_report import Page

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.pages import plots
from mast3r_ros.lab.pages.report import write_report
from mast3r_ros.lab.runs.bins import binned
from mast3r_ros.lab.runs.gallery import Picture
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.viewpoint import Viewpoints
from mast3r_ros.mapping.keyframe_map import KeyframeMap


def answer(name: str, off_m: float, confidence: float = 0.9, viewpoint_m: float = 0.3, **more: object) -> Record:
    """An accepted pose that is ``off_m`` away from the truth, with a standard deviation of 1 cm."""
    pose = se3.exp([off_m, 0, 0, 0, 0, 0])
    covariance = np.diag([1e-4] * 3 + [1e-4] * 3)
    more = {"confidence": confidence, "viewpoint_m": viewpoint_m, "viewpoint_deg": 15.0, **more}
    return Record(name, 0, True, map_T_camera=pose, truth=np.eye(4), covariance=covariance, **more)  # type: ignore[arg-type]


def lost(name: str, **more: object) -> Record:
    more = {"viewpoint_m": 3.0, "viewpoint_deg": 70.0, **more}
    return Record(name, 0, False, "too_few_inliers", truth=np.eye(4), **more)  # type: ignore[arg-type]


def negative(name: str, accepted: bool, confidence: float = 0.5) -> Record:
    reason = "" if accepted else "too_few_matches"
    pose = np.eye(4) if accepted else None
    return Record(
        name, 0, accepted, reason, map_T_camera=pose, truth=np.eye(4), confidence=confidence, group="n", negative=True
    )


@pytest.fixture
def mixed() -> Evaluation:
    """Five good answers, a wrong one, two lost queries, and four negatives, one of them answered."""
    good = [answer(f"g{k}", 0.01 * k, 0.9 - 0.01 * k) for k in range(5)]
    wrong = [answer("w", 0.5, 0.6, viewpoint_m=1.5)]
    negatives = [negative(f"n{k}", k == 0) for k in range(4)]
    return Evaluation("mixed", good + wrong + [lost("l0"), lost("l1")] + negatives)


@pytest.mark.smoke
def test_an_accepted_negative_is_a_false_accept_and_no_miss(mixed):
    summary = mixed.summary()
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (12, 7, 2)
    assert (summary["negatives"], summary["negatives_accepted"]) == (4, 1)
    # Over the eight positives; the negative that was "answered" has a pose at its supposed truth, which counts nothing.
    assert summary["recall"]["0.05m_5deg"] == pytest.approx(5 / 8)
    assert summary["recall"]["0.50m_5deg"] == pytest.approx(6 / 8)
    assert summary["median_translation_error_m"] == pytest.approx(0.025)
    assert summary["false_accepts_per_1000"] == pytest.approx(2000 / 12)
    assert summary["false_accepts_per_1000_negatives"] == pytest.approx(250)
    assert summary["answered_fraction"] == pytest.approx(7 / 12)


def test_every_headline_figure_lies_in_its_interval(mixed):
    summary = mixed.summary()
    pairs = [
        (summary["answered_fraction"], summary["answered_fraction_interval"]),
        (summary["false_accepts_per_1000"], summary["false_accepts_per_1000_interval"]),
        (summary["risk_coverage_area"], summary["risk_coverage_area_interval"]),
        (summary["median_translation_error_m"], summary["median_translation_error_interval_m"]),
        (summary["nees"], summary["nees_interval"]),
        *((share, summary["recall_interval"][name]) for name, share in summary["recall"].items()),
        *((share, summary["calibration_interval"][name]) for name, share in summary["calibration"].items()),
    ]
    for value, (low, high) in pairs:
        assert low <= value <= high and low < high
    assert set(summary["recall"]) >= {"0.25m_2deg", "0.50m_5deg", "5.00m_10deg"}


def test_trust_by_hand(mixed):
    """Answers by confidence: five right, then a wrong one, then the negative. Squared errors over variance: 0, 1, 4,
    9, 16 and 2500 where the limits of the ellipsoids are 5.35, 10.64 and 16.81."""
    summary = mixed.summary()
    assert summary["risk_coverage_area"] == pytest.approx((1 / 6 + 2 / 7) / 7)
    assert summary["calibration"] == pytest.approx({"0.50": 3 / 6, "0.90": 4 / 6, "0.99": 5 / 6})
    assert summary["nees"] == pytest.approx((1 + 4 + 9 + 16 + 2500) / 6)


def test_nothing_wrong_is_no_certainty():
    summary = Evaluation("e", [answer(str(k), 0.01) for k in range(30)]).summary()
    assert summary["false_accepts_per_1000"] == 0
    assert summary["false_accepts_per_1000_interval"][1] == pytest.approx(1000 * (1 - 0.025 ** (1 / 30)))
    assert summary["risk_coverage_area"] == 0 and math.isnan(summary["risk_coverage_area_interval"][0])


def test_a_run_without_truth_claims_nothing():
    records = [Record(str(k), k, True, map_T_camera=np.eye(4)) for k in range(5)]
    summary = Evaluation("e", records).summary()
    assert math.isnan(summary["false_accepts_per_1000"]) and math.isnan(summary["recall"]["0.10m_5deg"])
    assert summary["breakdown"] == {} and summary["answered_fraction"] == 1
    empty = Evaluation("nothing").summary()
    assert empty["queries"] == 0 and math.isnan(empty["answered_fraction"]) and math.isnan(empty["nees"])


def test_breakdown_by_distance_angle_and_group(mixed):
    found = mixed.summary()["breakdown"]
    rows = [(row["from"], row["to"], row["queries"], row["wrong_accepted"]) for row in found["viewpoint_distance_m"]]
    assert rows == [(0.25, 0.5, 5, 0), (1.0, 2.0, 1, 1), (2.0, math.inf, 2, 0)]
    assert [(row["from"], row["queries"], row["recall"]) for row in found["viewpoint_angle_deg"]] == [
        (10.0, 6, pytest.approx(5 / 6)),
        (60.0, 2, 0),
    ]
    groups = {row["group"]: row for row in found["group"]}
    assert groups["n"]["negatives"] == 4 and groups["n"]["wrong_accepted"] == 1 and math.isnan(groups["n"]["recall"])


def test_the_nearest_keyframe_is_one_that_looks_the_same_way():
    keyframe_map = KeyframeMap()
    image, depth = np.full((48, 64, 3), 90, np.uint8), np.full((48, 64), 2.5, np.float32)
    frame = Frame(image, Camera.pinhole(64, 48, 50, 50, 32, 24), depth=depth)
    for name, twist in (("here, facing away", [0, 0, 0, 0, np.pi, 0]), ("beside", [0.4, 0, 0, 0, 0.1, 0])):
        keyframe_map.add(PosedFrame(frame, se3.exp(twist)), name.split(",")[0])
    viewpoints = Viewpoints(keyframe_map)
    nearest = viewpoints.nearest(np.eye(4))
    assert (nearest.metres, nearest.degrees) == pytest.approx((0.4, np.degrees(0.1)))
    assert 0.4 < nearest.overlap < 1
    # From far away nothing is seen: the nearest centre it is.
    assert viewpoints.nearest(se3.exp([0, 50, 0, 0, np.pi / 2, 0]))[0] == pytest.approx(50)
    assert all(math.isnan(value) for value in viewpoints.nearest(None))
    same = Viewpoints(keyframe_map).fingerprint
    keyframe_map.add(PosedFrame(frame, np.eye(4)), "more")
    assert viewpoints.fingerprint == same != Viewpoints(keyframe_map).fingerprint


def test_small_errors_are_drawn_where_they_are():
    """Errors of 0.02 and 20 mm are three decades apart, in the picture too."""
    heights = {}
    for off in (2e-5, 2e-2):
        records = [answer("a", off), answer("b", 0.1)]
        svg = plots.errors_over_time(records)
        axes = svg[svg.index('id="PathCollection_1"') :]
        (first, second) = re.findall(r'<use [^>]*y="([\d.]+)"', axes)[:2]
        heights[off] = float(first) - float(second)
    assert heights[2e-5] > 1.5 * heights[2e-2] > 0


def test_the_report_shows_trust_and_the_worst(mixed, tmp_path):
    picture = np.zeros((20, 30, 3), np.uint8)
    pictures = [Picture(picture, f"{kind} one", kind=kind) for kind in ("typical", "worst", "worst", "rejected")]
    write_report(tmp_path / "r.html", mixed, pictures=pictures)
    page = Page((tmp_path / "r.html").read_text())
    for text in ("Knowing when it is wrong", "Where it works", "The worst queries", "2 of 7 wrong", "over 2 m"):
        assert text in page.text, text
    assert page.text.index("worst one") < page.text.index("rejected one") < page.text.index("typical one")
    assert "false accepts per 1000 negatives" in page.text and "errors inside the 90% ellipsoid" in page.text


def test_breakdown_by_overlap_of_views():
    records = [
        answer(f"q{k}", 0.01, 0.6, viewpoint_m=0.5, view_overlap=overlap) for k, overlap in enumerate((0.1, 0.8))
    ]
    found = Evaluation("e", records).summary()["breakdown"]["view_overlap"]
    assert [(row["from"], row["to"], row["queries"], row["recall"]) for row in found] == [
        (0.0, 0.25, 1, 1),
        (0.75, 0.9, 1, 1),
    ]


def test_bins_close_at_their_edges_hold_what_lies_outside_and_no_nan():
    values = [-1.0, 0.0, 1.0, 1.5, 9.0, math.nan]
    assert list(binned("abcdef", values, (0.0, 1.0, 2.0))) == [(0.0, 1.0, ["a", "b", "c"]), (1.0, 2.0, ["d", "e"])]
    assert list(binned("", [], (0.0, 1.0))) == []
