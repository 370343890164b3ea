"""The conformance suite: the package's own matchers pass it, each broken promise is found, and strangers get in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_learned_matchers import random_matcher

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.lab.conformance import check_by_name, check_matcher
from mast3r_ros.localization import Localizer
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import Matcher, available, create
from mast3r_ros.matching.base import Capabilities, Matches, PixelMatches, capabilities, keyframes_on_track, landmarks
from mast3r_ros.matching.fake import FakeMatcher
from mast3r_ros.matching.registry import matcher_options, provider
from mast3r_ros.matching.sift import SiftMatcher

EXAMPLE = "docs/examples/akaze_matcher"


def faults(matcher: Matcher, *others: Matcher) -> dict[str, str]:
    """The last fault that each check found."""
    return {f.name: f.sentence for f in check_matcher(matcher, others) if not f.passed}


class TestOwnMatchers:
    @pytest.mark.smoke
    def test_fake(self) -> None:
        assert faults(FakeMatcher()) == {}

    @pytest.mark.parametrize("feature", ["sift", "orb"])
    def test_local_features(self, feature: str) -> None:
        findings = check_by_name("sift", feature=feature)
        assert [f.sentence for f in findings if not f.passed] == [] and len(findings) == 17
        others = [SiftMatcher(feature, ratio=0.7), SiftMatcher("orb", 300)]
        assert [f.passed for f in check_matcher(SiftMatcher(feature), others, only=["options"])] == [True]

    @pytest.mark.parametrize("name", ["mast3r", "dust3r"])
    def test_networks_of_random_weights(self, name: str) -> None:
        assert faults(random_matcher(name)) == {}

    def test_the_network_of_the_package(self) -> None:
        assert faults(create("mast3r", dtype="float32"), create("mast3r", dtype="float32", size=160)) == {}


class Minimal:
    """The smallest matcher that CONTRIBUTING.md describes: five members, nothing declared."""

    name = "minimal"
    signature = "minimal-1"

    def __init__(self) -> None:
        self._sift = SiftMatcher()

    def describe(self, frame: Frame) -> dict:
        return dict(self._sift.describe(frame))

    def local_descriptors(self, features):
        return self._sift.local_descriptors(features)

    def match(self, query, references):
        return self._sift.match(query, references)


class TestStrangers:
    @pytest.mark.smoke
    def test_five_members_are_enough(self) -> None:
        matcher = Minimal()
        assert isinstance(matcher, Matcher) and capabilities(matcher) == Capabilities()
        assert faults(matcher) == {}
        assert keyframes_on_track(matcher) == 0 and landmarks(matcher, {}).shape == (0, 3)

    def test_they_localize(self) -> None:
        from test_mapping_session import view

        from mast3r_ros.geometry import se3

        wall = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
        keyframes = KeyframeMap()
        for x in (0.0, 0.1, 0.2):
            keyframes.add(view(wall, se3.make(np.eye(3), [x, 0, 0])))
        frame = keyframes.frame(keyframes.keyframes[1].id)
        estimate = Localizer(keyframes, Minimal()).localize(replace(frame, depth=None))
        assert estimate.map_T_camera is not None and abs(estimate.map_T_camera[0, 3] - 0.1) < 0.02


def broken(**methods: object) -> Matcher:
    """A sift matcher of which some members were replaced."""
    return type("Broken", (SiftMatcher,), methods)()


def matches_changed(change: Callable[[Matches], Matches]) -> Callable:
    return lambda self, query, references: [change(m) for m in SiftMatcher.match(self, query, references)]


def described(change: Callable[[dict], dict]) -> Callable:
    return lambda self, frame: change(dict(SiftMatcher.describe(self, frame)))


def noisy(features: dict) -> dict:
    return {**features, "xy": features["xy"] + np.random.default_rng().uniform(0, 0.01, 2).astype(np.float32)}


def written(self: SiftMatcher, query: dict, references: list) -> list[Matches]:
    found = SiftMatcher.match(self, query, references)
    for reference in references:
        reference["points"][:] = 0
    return found


def bare(self: SiftMatcher, frame: Frame) -> dict:
    assert frame.camera is not None, "no camera"
    return dict(SiftMatcher.describe(self, frame))


def hasty(self: SiftMatcher, frame: Frame) -> dict:
    features = dict(SiftMatcher.describe(self, frame))
    return {**features, "mean": features["xy"].max(axis=0)}


def apart(self: SiftMatcher, query: dict, references: list) -> list[PixelMatches]:
    return [PixelMatches(m.query_xy + 1000, m.reference_xy) for m in SiftMatcher.match_pixels(self, query, references)]


#: A fault, the check that must find it, and what its sentence must speak of.
FAULTS = {
    "nameless": ({"name": ""}, "members", "name"),
    "folder": ({"signature": "a/b"}, "signature", "folder"),
    "counting": (
        {"signature": property(lambda self: f"s-{id(object()) % 7}-{np.random.rand()}")},
        "signature",
        "changed",
    ),
    "strings": ({"describe": described(lambda f: {**f, "note": "text"})}, "features", "note"),
    "random": ({"describe": described(noisy)}, "deterministic", "xy"),
    "double": (
        {"local_descriptors": lambda self, f: np.float64(SiftMatcher.local_descriptors(self, f))},
        "descriptors",
        "float64",
    ),
    "one too few": ({"match": lambda self, q, r: SiftMatcher.match(self, q, r)[:1]}, "matches", "1 results"),
    "reversed": ({"match": lambda self, q, r: SiftMatcher.match(self, q, r)[::-1]}, "matches", "alone"),
    "silent": ({"match": lambda self, q, r: [Matches.empty() for _ in r]}, "matches", "itself"),
    "heavy": ({"match": matches_changed(lambda m: replace(m, weights=2 * m.weights))}, "matches", "weights"),
    "single": ({"match": matches_changed(lambda m: replace(m, points=np.float32(m.points)))}, "matches", "float32"),
    "behind": ({"match": matches_changed(lambda m: replace(m, points=-m.points))}, "points", "behind"),
    "elsewhere": (
        {"match": matches_changed(lambda m: replace(m, points=m.points + np.array([0.5, 0, 0])))},
        "points",
        "project",
    ),
    "millimetres": ({"match": matches_changed(lambda m: replace(m, points=1000 * m.points))}, "points", "metres"),
    "network pixels": ({"match": matches_changed(lambda m: replace(m, query_xy=3 * m.query_xy))}, "pixels", "query_xy"),
    "needs a camera": ({"describe": bare}, "unknowns", "without camera"),
    "needs features": ({"describe": hasty}, "odd images", "blank"),
    "writes": ({"match": written}, "inputs", "points"),
    "promises": ({"capabilities": Capabilities(focal=True)}, "capabilities", "estimate_focal"),
    "forgets": ({"capabilities": Capabilities()}, "capabilities", "match_pixels"),
    "no metres": (
        {"capabilities": replace(SiftMatcher().capabilities, metric=True)},
        "capabilities",
        "predicted_depth",
    ),
    "far landmarks": (
        {"landmarks": lambda self, f: 2 * SiftMatcher.landmarks(self, f)},
        "landmarks",
        "surface",
    ),
    "far pixels": ({"match_pixels": apart}, "pixel matches", "query_xy"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_broken_promise_is_found_and_said(fault: str) -> None:
    members, check, words = FAULTS[fault]
    found = {f.name: f.sentence for f in check_matcher(broken(**members), only=[check]) if not f.passed}
    assert check in found and words in found[check], found


def test_other_features_need_another_signature() -> None:
    few = type("Few", (SiftMatcher,), {"signature": "sift-1500-2"})(max_features=100)
    (finding,) = check_matcher(SiftMatcher(), [few], only=["options"])
    assert not finding.passed and "cache would mix" in finding.sentence


class TestEntryPoints:
    def test_the_example_package_is_installed_found_and_keeps_the_contract(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, target = tmp_path / "source", tmp_path / "site"
        shutil.copytree(repository / EXAMPLE, source)
        flags = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q")
        subprocess.run([sys.executable, "-m", "pip", "install", *flags, "--target", target, source], check=True)
        assert "akaze" not in available()
        monkeypatch.syspath_prepend(str(target))
        assert "akaze" in available() and "akaze_matcher" not in sys.modules, "listing must not load it"
        assert provider("akaze") == "akaze-matcher 1.0.0"
        assert [f.sentence for f in check_by_name("akaze") if not f.passed] == []
        assert matcher_options("akaze", {"ratio": 0.7, "checkpoint": "x"}) == {"ratio": 0.7}
        assert create("akaze", ratio=0.7).signature == "akaze-0.001-1"
        monkeypatch.delitem(sys.modules, "akaze_matcher")

    @pytest.fixture
    def broken_plugins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        info = tmp_path / "strange-2.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 2.1\n")
        points = (
            "torn = strange_torn:Torn\nmissing = strange_nowhere:A\nsick = strange_sick:Sick\nsift = strange_sick:Sick"
        )
        (info / "entry_points.txt").write_text(f"[mast3r_ros.matchers]\n{points}\nnumber = strange_sick:NUMBER\n")
        (tmp_path / "strange_torn.py").write_text("raise RuntimeError('no licence')\n")
        sick = "NUMBER = 5\nclass Sick:\n    def __init__(self):\n        raise OSError('no such device')\n"
        (tmp_path / "strange_sick.py").write_text(sick)
        monkeypatch.syspath_prepend(str(tmp_path))

    @pytest.mark.usefixtures("broken_plugins")
    def test_a_broken_one_is_one_sentence_and_harms_no_other(self) -> None:
        for name, why in (("torn", "no licence"), ("missing", "strange_nowhere"), ("sick", "no such device")):
            with pytest.raises(MatcherError, match=rf"'{name}' of strange 2\.1 .*{why}"):
                create(name)
        with pytest.raises(MatcherError, match="is int, not a class"):
            create("number")
        assert {"sift", "torn", "missing"} <= set(available())
        assert isinstance(create("sift"), SiftMatcher), "the package's own names are its own"
        assert provider("sift") == "mast3r_ros"
