"""The report: self-contained, strict about what it shows, and drawn with what really happened."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import walls

from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.pages.report import write_report, write_run
from mast3r_ros.lab.runs.gallery import Gallery, Picture
from mast3r_ros.lab.runs.localization import Evaluation, evaluate_localization
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.localization import Localizer
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create

#: Elements without an end tag.
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Collects tags and texts; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.fixture(scope="module")
def run() -> tuple[KeyframeMap, Evaluation, list[Picture]]:
    keyframe_map = KeyframeMap()
    for number in range(2):
        keyframe_map.add(walls.posed(number), f"wall{number}")
    gallery = Gallery(keyframe_map)
    localizer = Localizer(keyframe_map, create("sift"))
    queries = [walls.posed(number) for number in (0, 1, walls.UNKNOWN)]
    evaluation = evaluate_localization(localizer, queries, name="<walls> & more", watch=gallery.offer)
    return keyframe_map, evaluation, gallery.pictures()


@pytest.fixture(scope="module")
def written(run, tmp_path_factory) -> Path:
    """The report of the run."""
    keyframe_map, evaluation, pictures = run
    folder = tmp_path_factory.mktemp("report")
    return write_run(folder, evaluation, keyframe_map, pictures, tiles=[("42 Hz", "rate", "good")])


def test_the_report_needs_nothing_from_outside(written):
    page = Page(written.read_text())
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#|['\"]?#)", written.read_text())
    names = {file.name for file in written.parent.iterdir()}
    assert names == {"report.html", "summary.json", "records.jsonl", "trajectory.tum", "truth.tum"}


def test_the_report_says_what_happened(run, written):
    _, evaluation, _ = run
    page = Page(written.read_text())
    assert "<walls> & more" in page.text and "localized: 2 of 3" in page.text and "42 Hz" in page.text
    reason = evaluation.records[2].reason.replace("_", " ")
    assert f"wall99: rejected, {reason}" in page.text and "wall0: off by" in page.text
    # One plan view and a picture for each query.
    assert sum(tag == "img" for tag, _ in page.tags) == 4
    assert sum(tag == "svg" for tag, _ in page.tags) == 5


def test_a_run_without_truth_or_map_or_success_has_a_report(tmp_path):
    records = [Record(str(i), 0, False, "no_pose", timings_ms={"total": 5.0}) for i in range(3)]
    for evaluation in (Evaluation("nothing found", records), Evaluation("no frames")):
        write_report(tmp_path / "r.html", evaluation)
        page = Page((tmp_path / "r.html").read_text())
        assert "Error over time" not in page.text and "nan" not in page.text.lower().split()


def test_plots_take_the_colour_of_the_page(written):
    text = written.read_text()
    assert "currentColor" in text and "#010203" not in text
    assert re.search(r"<svg[^>]* viewBox", text) and not re.search(r'<svg[^>]* width="', text)


def test_the_gallery_keeps_the_worst_and_every_kind_of_rejection(run):
    keyframe_map = run[0]
    estimate = Localizer(keyframe_map, create("sift")).localize(walls.posed(0).frame)
    gallery = Gallery(keyframe_map, good=2, worst=1, rejected=1)
    for number in range(30):
        off = 0.3 if number == 17 else 0.001 * number
        truth = estimate.map_T_camera @ se3.make(np.eye(3), [off, 0, 0])
        record = Record.of(f"frame{number}", number, estimate, truth)
        if number in (5, 6, 20):
            record = Record(f"frame{number}", number, False, "no_pose" if number == 20 else "uncertain")
        gallery.offer(record, walls.posed(0).frame, estimate)
    titles = [picture.title for picture in gallery.pictures()]
    assert len(titles) == 5
    assert any(title.startswith("frame17: WRONG, off by 30") for title in titles)
    assert sum("uncertain" in title for title in titles) == 1 and sum("no pose" in title for title in titles) == 1


def test_wrong_poses_are_marked(run, tmp_path):
    keyframe_map = run[0]
    moved = PosedFrame(walls.posed(0).frame, walls.map_T_camera(0) @ se3.make(np.eye(3), [1, 0, 0]))
    evaluation = evaluate_localization(Localizer(keyframe_map, create("sift")), [moved])
    write_report(tmp_path / "r.html", evaluation)
    page = Page((tmp_path / "r.html").read_text())
    assert any(tag == "div" and attributes.get("class") == "tile bad" for tag, attributes in page.tags)
    assert "localized wrongly" in page.text


def test_the_worst_queries_are_wrong_answers_then_losses_and_large_errors(run):
    keyframe_map = run[0]
    estimate = Localizer(keyframe_map, create("sift")).localize(walls.posed(0).frame)
    gallery = Gallery(keyframe_map, good=1, worst=6, rejected=3)
    for number in range(20):
        off = {3: 0.4, 8: 0.9}.get(number, 0.001 * number)
        truth = estimate.map_T_camera @ se3.make(np.eye(3), [off, 0, 0])
        record = Record.of(f"f{number}", number, estimate, truth, negative=number == 12)
        if number in (5, 6, 13):
            record = Record(f"f{number}", number, False, "no_pose", negative=number == 13)
        gallery.offer(record, walls.posed(0).frame, estimate)
    pictures = gallery.pictures()
    worst = [picture.title.split(":")[0] for picture in pictures if picture.kind == "worst"]
    assert worst[:3] == ["f12", "f8", "f3"] and sorted(worst[3:5]) == ["f5", "f6"] and worst[5] == "f19"
    titles = {picture.title.split(":")[0]: picture for picture in pictures}
    assert "WRONG, answered though" in titles["f12"].title and not titles["f12"].accepted
    assert titles["f13"].kind == "rejected" and "rightly rejected" in titles["f13"].title and titles["f13"].accepted
