"""Which matcher `auto` takes: by what was measured, on data of the same cameras for everybody."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching import create, from_settings, measured, registry
from mast3r_ros.matching.measured import Measured, choose, read_table, save_rows
from mast3r_ros.settings import MatcherSettings

HERE = {"sift": "", "aliked": "a", "mast3r": "m"}


def row(matcher: str, good: int, ms: float, **changes: object) -> Measured:
    """Of a hundred images of a kitchen."""
    plain = Measured(
        matcher, "kitchen", "cpu", True, 100, 95, good, 0, "0.1 m", ms, "a machine", "2026-01-01", "x", HERE[matcher]
    )
    return replace(plain, **changes)


SIFT = row("sift", 80, 100)


@pytest.mark.parametrize(
    ("table", "taken", "why"),
    [
        ([], "sift", "no matcher was measured on real images"),
        ([row("aliked", 99, 50)], "sift", "no matcher was measured"),
        (
            [SIFT, row("aliked", 99, 200)],
            "aliked",
            "aliked finds 99.0% in 200 ms of 100 real images on a machine; sift",
        ),
        (
            [SIFT, row("aliked", 99, 900)],
            "sift",
            "aliked finds 99.0% in 900 ms, which is more than max_latency_ms (250)",
        ),
        ([SIFT, row("aliked", 99, 200, wrong=1)], "sift", "aliked answered 1 of 100 wrongly on kitchen"),
        ([SIFT, row("aliked", 70, 20)], "sift", "aliked finds 70.0%"),
        ([SIFT, row("aliked", 80, 20)], "aliked", "sift finds 80.0% in 100 ms"),
        ([SIFT, row("aliked", 99, 20), row("mast3r", 99, 10)], "mast3r", "aliked finds 99.0% in 20 ms"),
        ([SIFT, row("aliked", 99, 20, weights="others")], "sift", "sift finds"),
        # A wall clock counts other work as well, the processor's does not; several threads make it the other way round.
        ([SIFT, row("aliked", 99, 900, processor_ms=200.0)], "aliked", "aliked finds 99.0% in 200 ms"),
        ([SIFT, row("aliked", 99, 200, processor_ms=900.0)], "aliked", "aliked finds 99.0% in 200 ms"),
        # Directions between two images say nothing of poses in a map.
        (
            [
                SIFT,
                row("aliked", 99, 20),
                *(replace(r, data="p", task="relative pose", wrong=9) for r in (SIFT, row("aliked", 9, 20))),
            ],
            "aliked",
            "of 100 real images",
        ),
        # Measured on less than the others, or only on pictures that nobody took.
        ([SIFT, replace(SIFT, data="office"), row("aliked", 99, 20)], "sift", "of 200 real images"),
        ([SIFT, row("aliked", 99, 20, real=False, data="worlds")], "sift", "sift finds"),
        # Generated data may be answered no more wrongly than the fallback does.
        (
            [
                SIFT,
                row("aliked", 99, 20),
                *(replace(r, real=False, data="worlds", wrong=w) for r, w in ((SIFT, 2), (row("aliked", 99, 20), 3))),
            ],
            "sift",
            "3 of 100 wrongly on worlds",
        ),
    ],
)
def test_the_best_that_answers_nothing_wrong_in_time(table: list[Measured], taken: str, why: str) -> None:
    choice = choose(table, HERE, "cpu", 250)
    assert choice.name == taken and why in choice.why


def test_time_counts_on_the_device_that_is_there() -> None:
    table = [SIFT, row("aliked", 99, 3000), row("aliked", 99, 30, device="cuda")]
    assert [choose(table, HERE, device, 250).name for device in ("cpu", "cuda")] == ["sift", "aliked"]
    assert choose(table, HERE, "cpu", 0).name == "aliked", "0 is any time"
    assert choose(table, {"sift": ""}, "cuda", 0).name == "sift", "what is not installed is not taken"


def test_auto_says_which_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measured, "TABLE", tmp_path / "measured.json")
    monkeypatch.setattr(registry, "usable_here", lambda: HERE)
    with caplog.at_level(logging.INFO, "mast3r_ros.matching.registry"):
        assert create("auto", device="cpu", feature="orb").name == "sift"
        save_rows([SIFT, row("mast3r", 99, 400)])
        assert from_settings(MatcherSettings(device="cpu")).name == "sift"
        assert from_settings(MatcherSettings(device="cpu", max_latency_ms=500)).name == "mast3r"
        save_rows([row("mast3r", 50, 400)])  # in place of the other one
        assert len(read_table()) == 2 and create("auto", max_latency_ms=500).name == "sift"
        measured.TABLE.write_text('[{"name": 1}]')
        assert create("auto").name == "sift"
    said = [record.getMessage() for record in caplog.records]
    assert said[2].startswith("matcher auto takes mast3r: mast3r finds 99.0% in 400 ms")
    assert "measure_matchers.py" in said[-1]
    with pytest.raises(MatcherError, match="damaged"):
        read_table()


def test_the_table_of_the_package_knows_real_images_of_these_weights() -> None:
    table = read_table()
    assert {r.data for r in table if r.matcher == "sift" and r.real} >= {"tum_fr1_rpy"}
    assert all(0 <= r.good <= r.answered <= r.queries and r.date and r.command.startswith("mast3r_ros") for r in table)
    usable = registry.usable_here()
    assert all(r.weights == usable[r.matcher] for r in table if r.matcher in usable)
    # A CPU without anything said gets what answers nothing wrong within a quarter of a second.
    assert choose(table, usable, "cpu", MatcherSettings.max_latency_ms).name == "sift"
