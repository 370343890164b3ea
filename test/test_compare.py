"""Two runs side by side: pairing, significance, and saying when they cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import separate_runner
from test_report import Page

from mast3r_ros.cli.main import app
from mast3r_ros.errors import UserError
from mast3r_ros.geometry import se3
from mast3r_ros.io.documents import to_json, write_json
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.compare import ComparedRun, compare, load_run
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.paired import disagreements, mcnemar, measured
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.results import read_records, write_records

COUNT = 120


def records(shift_m: float = 0.0, scatter_m: float = 0.002, lost: int = 0, seed: int = 1) -> list[Record]:
    """Queries of very different difficulty: errors from 1 to 10 cm, ``shift_m`` more, the last ones lost."""
    difficulty = np.random.default_rng(0).uniform(0.01, 0.10, COUNT)
    noise = np.random.default_rng(seed).normal(0, scatter_m, COUNT)
    found = []
    for number in range(COUNT):
        truth = se3.exp([0.1 * number, 0.2, 0, 0, 0.1, 0])
        off = abs(difficulty[number] + shift_m + noise[number])
        pose, accepted = se3.exp([off, 0, 0, 0, 0, 0]) @ truth, number < COUNT - lost
        reason = "" if accepted else "uncertain"
        found.append(
            Record(
                f"frame{number}",
                number * 10**9,
                accepted,
                reason,
                map_T_camera=pose,
                truth=truth,
                covariance=np.diag([0.04**2] * 3 + [0.01**2] * 3),
                confidence=1 - off,
                timings_ms={"total": 20.0 + number % 7},
                viewpoint_m=0.3,
                viewpoint_deg=5.0,
            )
        )
    return found


def save(folder: Path, found: list[Record], map_fingerprint: str = "m1", **settings: object) -> Path:
    evaluation = Evaluation(
        "run", found, {"map": "here", "map_keyframes": 9, **settings}, map_fingerprint=map_fingerprint
    )
    write_json(folder / "summary.json", evaluation.summary())
    write_records(folder / "records.jsonl", evaluation)
    return folder


def figures(a: Path, b: Path) -> dict[str, dict]:
    return {figure["figure"]: figure for figure in compare(load_run(a), load_run(b))["figures"]}


@pytest.mark.smoke
def test_pairs_show_what_intervals_alone_do_not(tmp_path):
    """Half a centimetre is far less than the scatter of the queries, but it is there in each of them."""
    a, b = save(tmp_path / "a", records()), save(tmp_path / "b", records(shift_m=-0.005, seed=2))
    paired = figures(a, b)["median_translation_error_m"]
    assert paired["verdict"] == "b" and paired["interval"][0] < -0.005 < paired["interval"][1]
    without = [ComparedRun(path, json.loads((path / "summary.json").read_text())) for path in (a, b)]
    comparison = compare(*without)
    alone = {figure["figure"]: figure for figure in comparison["figures"]}["median_translation_error_m"]
    assert not comparison["paired"] and comparison["comparable"] and alone["verdict"] == ""
    assert alone["difference"] == pytest.approx(paired["difference"])
    assert alone["interval"][1] - alone["interval"][0] > 2 * (paired["interval"][1] - paired["interval"][0])


def test_the_same_run_twice_shows_no_difference(tmp_path):
    a = save(tmp_path / "a", records())
    comparison = compare(load_run(a), load_run(a))
    assert comparison["comparable"] and comparison["paired"] and comparison["common_queries"] == COUNT
    for figure in comparison["figures"]:
        assert figure["verdict"] == "" and figure["difference"] == 0, figure["figure"]
    # Nothing differed in 120 queries: that does not prove that nothing ever does.
    recall = {figure["figure"]: figure for figure in comparison["figures"]}["recall 0.10m_5deg"]
    assert recall["interval"][1] == pytest.approx(1 - 0.025 ** (1 / COUNT), rel=1e-6)


@pytest.mark.parametrize(("lost", "verdict"), [(3, ""), (30, "a")])
def test_shares_count_the_queries_that_differ(tmp_path, lost, verdict):
    a, b = save(tmp_path / "a", records()), save(tmp_path / "b", records(lost=lost, seed=1))
    answered = figures(a, b)["answered_fraction"]
    assert (answered["only_a"], answered["only_b"], answered["verdict"]) == (lost, 0, verdict)
    assert answered["p_mcnemar"] == pytest.approx(2 * 0.5**lost)
    assert answered["difference"] == pytest.approx(-lost / COUNT)


def test_chance_is_called_a_difference_no_more_often_than_it_may_be():
    """Runs that differ by noise alone, over and over."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(40):
        difficulty = rng.uniform(0.01, 0.10, 60)
        a, b = (difficulty + rng.normal(0, 0.01, 60) for _ in range(2))
        called += measured("median", metrics.median, a, b, -1).verdict != ""
    assert called <= 6


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1 and mcnemar(5, 5) == 1
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)


def test_negatives_are_paired_and_judged(tmp_path):
    def mixed(accepted: int) -> list[Record]:
        found = records()
        for k in range(20):
            reason = "" if k < accepted else "uncertain"
            found.insert(7 * k, Record(f"n{k}", 0, not reason, reason, map_T_camera=np.eye(4), negative=True))
        return found

    a, b = save(tmp_path / "a", mixed(0)), save(tmp_path / "b", mixed(12))
    found = figures(a, b)
    wrong = found["wrong_accepted_fraction"]
    assert (wrong["only_a"], wrong["only_b"], wrong["verdict"]) == (0, 12, "a")
    assert found["recall 0.10m_5deg"]["difference"] == 0
    names = disagreements(load_run(a).records, load_run(b).records)
    assert names["only B wrong"] == [f"n{k}" for k in range(12)] and names["only A wrong"] == []


def test_it_says_why_runs_are_not_comparable(tmp_path):
    a = save(tmp_path / "a", records())
    other_map = compare(load_run(a), load_run(save(tmp_path / "b", records(), map_fingerprint="m2")))
    assert not other_map["comparable"] and "other maps" in other_map["reasons"][0] and other_map["paired"]

    half = compare(load_run(a), load_run(save(tmp_path / "c", records()[::2])))
    assert "other queries: 120, and 60; 60 are the same" in half["reasons"][0] and half["common_queries"] == 60

    moved = records()
    for number, record in enumerate(moved):
        moved[number] = Record(**{**vars(record), "truth": se3.exp([0, 1, 0, 0, 0, 0]) @ record.truth})
    truth = compare(load_run(a), load_run(save(tmp_path / "d", moved)))
    assert not truth["paired"] and "another truth" in truth["reasons"][0]

    (tmp_path / "old.json").write_text(json.dumps({"evaluation": "old", "recall": {}}))
    assert "does not say which queries" in compare(load_run(a), load_run(tmp_path / "old.json"))["reasons"][0]


def test_settings_that_differ_are_listed(tmp_path):
    a, b = save(tmp_path / "a", records(), keyframes=5), save(tmp_path / "b", records(), keyframes=10)
    differing = compare(load_run(a), load_run(b))["differing"]
    assert differing["settings"] == {"keyframes": [5, 10]} and differing["versions"] == {}


def test_records_come_back_as_they_were(tmp_path):
    found = records(lost=2)
    found.append(Record("dark", 7, False, "unusable_image", "too dark", group="night", negative=True))
    write_records(tmp_path / "records.jsonl", Evaluation("e", found))
    back = read_records(tmp_path / "records.jsonl")
    assert len(back) == COUNT + 1
    for record, original in zip(back, found, strict=True):
        assert record.error == pytest.approx(original.error, abs=1e-9, nan_ok=True)
        assert record.normalised_error == pytest.approx(original.normalised_error, nan_ok=True)
        plain, was = (vars(r) | dict.fromkeys(("map_T_camera", "truth", "covariance")) for r in (record, original))
        assert to_json(plain) == to_json(was)
    (tmp_path / "records.jsonl").write_text('{"image": "x"}\n')
    with pytest.raises(UserError, match="records.jsonl, line 1: this is no record"):
        read_records(tmp_path / "records.jsonl")


@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"a": 1}'])
def test_what_is_no_run_is_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json is no run"):
        load_run(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"summary\.json cannot be read"):
        load_run(tmp_path)


def test_the_command_prints_and_writes(tmp_path):
    a, b = save(tmp_path / "a", records()), save(tmp_path / "b", records(shift_m=0.02, lost=30))
    arguments = ["evaluate", "compare", str(a), str(b / "summary.json"), "--report", str(tmp_path / "out")]
    shown = separate_runner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0 and "A is better" in shown.output and "median translation error m" in shown.output
    printed = separate_runner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout
    assert json.loads(printed) == json.loads((tmp_path / "out" / "comparison.json").read_text())
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "A against B" in page.text and "McNemar" in page.text and "frame95" in page.text
    assert any(tag == "td" and attributes.get("class") == "better" for tag, attributes in page.tags)
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)
