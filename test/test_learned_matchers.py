"""Learned matchers: the way from frames through a network to metric matches, without trained weights.

Exactness is tested with a network that knows the truth (oracle.py), batching and precision with random networks.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import CAMERA, HIGH, LOW, TINY, OracleNetwork, keyframe_poses, save_network, see
from test_matching import texture

from mast3r_ros.errors import CheckpointError, MatcherError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.localization import Localizer, PosePrior
from mast3r_ros.localization.cloud import localized_cloud
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.selection import KEEP_ALL
from mast3r_ros.matching import Matcher, create
from mast3r_ros.matching.base import KeyframeFeatures, capabilities, matches_pixels, predicts_depth
from mast3r_ros.matching.device_tokens import DeviceTokens, EncodedFeatures
from mast3r_ros.matching.hardware import device_named
from mast3r_ros.matching.learned import NetworkMatcher
from mast3r_ros.matching.network_view import view_of
from mast3r_ros.settings import LocalizerSettings

QUERY = se3.exp([0.1, 0.05, -0.7, 0.02, 0.1, 0.05])
PORTRAIT = Camera.pinhole(240, 320, 220, 220, 119.5, 159.5)
BARREL = Camera(320, 240, CAMERA.K, "plumb_bob", np.array([-0.25, 0.06, 0.001, -0.002, 0.0]))
FISHEYE = Camera(320, 240, CAMERA.K, "equidistant", np.array([0.02, -0.01, 0.0, 0.0]))


def oracle(name: str = "mast3r", **network: object) -> NetworkMatcher:
    matcher = create(name, checkpoint=OracleNetwork(**network), size=160, dtype="float32", device="cpu")  # type: ignore[arg-type]
    assert isinstance(matcher, NetworkMatcher)
    return matcher


def random_matcher(name: str = "mast3r", dtype: str = "float32") -> NetworkMatcher:
    network = random_network(TINY, seed=3)
    options = {"size": 96, "dtype": dtype, "device": "cpu", "min_confidence": 0.0}
    matcher = create(name, checkpoint=network, subsample=8 if name == "mast3r" else 1, **options)
    assert isinstance(matcher, NetworkMatcher)
    return matcher


def sparse(frame: Frame, every: int = 12) -> Frame:
    """The frame with depth in small squares only, as triangulation leaves it."""
    assert frame.depth is not None
    kept = np.zeros_like(frame.depth)
    for dy in range(3):
        for dx in range(3):
            kept[dy::every, dx::every] = frame.depth[dy::every, dx::every]
    return replace(frame, depth=kept)


def map_of(frames: list[Frame]) -> KeyframeMap:
    keyframe_map = KeyframeMap(image_format="png")
    for frame, pose in zip(frames, keyframe_poses()):
        keyframe_map.add(PosedFrame(frame, pose))
    return keyframe_map


class TestPoses:
    @pytest.mark.parametrize(
        "camera", [CAMERA, PORTRAIT, BARREL, FISHEYE], ids=["plain", "portrait", "barrel", "fisheye"]
    )
    def test_a_query_is_found_whatever_its_camera(self, camera: Camera) -> None:
        matcher = oracle()
        localizer = Localizer(map_of([see(pose) for pose in keyframe_poses()]), matcher)
        estimate = localizer.localize(replace(see(QUERY, camera), depth=None))
        assert estimate.localized, estimate.detail
        metres, degrees = se3.pose_error(estimate.map_T_camera, QUERY)
        assert metres < 0.03 and degrees < 0.6
        assert estimate.evidence.agreeing_keyframes == 3

    @pytest.mark.parametrize(
        "camera", [CAMERA, PORTRAIT, BARREL, FISHEYE], ids=["plain", "portrait", "barrel", "fisheye"]
    )
    def test_matches_are_pixels_of_the_raw_images_and_points_of_the_keyframe_camera(self, camera: Camera) -> None:
        matcher, pose = oracle(), keyframe_poses()[0]
        query, reference = see(QUERY, CAMERA), see(pose, camera)
        matches = matcher.match(matcher.describe(query), [matcher.describe(reference)])[0]
        assert len(matches) > 80
        seen_by_reference = camera.project(matches.points)
        np.testing.assert_allclose(seen_by_reference, matches.reference_xy, atol=1e-3)
        seen_by_query = CAMERA.project(se3.apply(se3.inverse(QUERY) @ pose, matches.points))
        inside = ((seen_by_query > 0) & (seen_by_query < [319, 239])).all(axis=1)
        error = (seen_by_query - matches.query_xy)[inside]
        assert np.median(np.linalg.norm(error, axis=1)) < 2.0  # network pixels are two pixels wide
        assert np.abs(np.median(error, axis=0)).max() < 0.35  # no shift by half a pixel
        assert ((matches.weights > 0) & (matches.weights <= 1)).all()

    def test_pixels_the_network_does_not_trust_are_no_matches(self) -> None:
        matcher = oracle()
        query, reference = see(QUERY), see(keyframe_poses()[0])
        query.image[:, :160] = 0  # the oracle's confidence is 0.5 there
        matches = matcher.match(matcher.describe(query), [matcher.describe(reference)])[0]
        assert len(matches) > 30 and matches.query_xy[:, 0].min() > 155


class TestCoarseToFine:
    @pytest.mark.parametrize("distorted", [False, True])
    def test_positions_are_as_exact_as_the_full_images(self, distorted: bool) -> None:
        large = Camera.pinhole(640, 480, 440, 440, 319.5, 239.5)
        if distorted:
            large = replace(large, model="plumb_bob", D=BARREL.D)
        pose, errors, stages = keyframe_poses()[1], [], []
        for fine in (False, True):
            network = OracleNetwork()
            options = {"size": 160, "dtype": "float32", "device": "cpu", "coarse_to_fine": fine}
            matcher = create("mast3r", checkpoint=network, **options)
            query, reference = (matcher.describe(see(at, large)) for at in (QUERY, pose))
            matches = matcher.match(query, [reference])[0]
            seen = large.project(se3.apply(se3.inverse(QUERY) @ pose, matches.points))
            assert len(matches) > 80
            errors.append(np.nanmedian(np.linalg.norm(seen - matches.query_xy, axis=1)))
            stages.append("fine" in matcher.stopwatch.ms)
        assert errors[0] > 1.2 and errors[1] < 0.5 * errors[0] and stages == [False, True]

    def test_images_no_larger_than_the_network_are_matched_once(self) -> None:
        small = CAMERA.resized(160, 112)
        matcher = create(
            "mast3r", checkpoint=OracleNetwork(), size=160, dtype="float32", device="cpu", coarse_to_fine=True
        )
        features = matcher.describe(see(QUERY, small))
        matches = matcher.match(features, [features])[0]
        assert len(matches) > 80 and np.allclose(matches.query_xy, np.rint(matches.query_xy))


class TestScale:
    def test_keyframes_with_depth_need_no_point_head(self) -> None:
        matcher, frame = oracle(), see(keyframe_poses()[0])
        features = matcher.describe(frame)
        dense = matcher.match(features, [features, features])
        assert matcher.network.points_run == []
        without = matcher.describe(replace(frame, depth=None))
        matcher.match(features, [features, without, features])
        assert matcher.network.points_run == [1]
        assert dense[0].note == "" and dense[0].scale is None

    @pytest.mark.parametrize("name", ["mast3r", "dust3r"])
    def test_a_wrong_scale_is_corrected_by_a_little_depth(self, name: str) -> None:
        pose = keyframe_poses()[0]
        matcher = oracle(name, camera_T_map=se3.inverse(pose), unit=1.7)
        query, frame = matcher.describe(see(QUERY)), see(pose)
        matches = matcher.match(query, [matcher.describe(sparse(frame))])[0]
        assert matches.scale is not None
        assert matches.scale.factor == pytest.approx(1 / 1.7, rel=0.01) and matches.scale.spread < 0.02
        seen = CAMERA.project(se3.apply(se3.inverse(QUERY) @ pose, matches.points))
        assert len(matches) > 80 and np.median(np.linalg.norm(seen - matches.query_xy, axis=1)) < 2.5

    def test_without_any_depth_the_networks_own_scale_is_said_to_be_that(self) -> None:
        pose = keyframe_poses()[0]
        matcher = oracle(camera_T_map=se3.inverse(pose), unit=1.7)
        frame = see(pose)
        matches = matcher.match(matcher.describe(see(QUERY)), [matcher.describe(replace(frame, depth=None))])[0]
        u, v = np.rint(matches.reference_xy).astype(int).T
        assert np.median(matches.points[:, 2] / frame.depth[v, u]) == pytest.approx(1.7, rel=0.02)
        assert "network's own" in matches.note and matches.scale is None

    def test_depth_that_the_network_contradicts_is_no_scale(self) -> None:
        pose = keyframe_poses()[0]
        matcher, frame = oracle(camera_T_map=se3.inverse(pose)), sparse(see(pose))
        noise = np.random.default_rng(0).uniform(0.3, 3.0, (20, 27)).astype(np.float32)
        wrong = replace(frame, depth=frame.depth * np.kron(noise, np.ones((12, 12), np.float32))[:240, :320])
        matches = matcher.match(matcher.describe(see(QUERY)), [matcher.describe(wrong)])[0]
        assert len(matches) == 0 and "does not fit" in matches.note

    def test_a_stray_point_or_two_are_no_scale(self) -> None:
        pose = keyframe_poses()[0]
        matcher, frame = oracle(camera_T_map=se3.inverse(pose)), see(pose)
        stray = np.zeros_like(frame.depth)
        stray[100:103, 100:103] = 9.0
        matches = matcher.match(matcher.describe(see(QUERY)), [matcher.describe(replace(frame, depth=stray))])[0]
        assert matches.scale is None and matches.scale_sigma > 0 and len(matches) > 80

    def test_dust3r_without_depth_refuses_and_the_localizer_says_why(self) -> None:
        matcher = oracle("dust3r", camera_T_map=se3.inverse(keyframe_poses()[0]))
        keyframe_map = map_of([replace(see(pose), depth=None) for pose in keyframe_poses()[:1]])
        estimate = Localizer(keyframe_map, matcher).localize(see(QUERY))
        assert not estimate.localized and estimate.reason.value == "too_few_matches"
        assert "no metric scale" in estimate.detail


class TestBatches:
    @pytest.mark.parametrize("name", ["mast3r", "dust3r"])
    def test_a_batch_of_pairs_gives_what_each_gives_alone(self, name: str) -> None:
        matcher = random_matcher(name)
        depth = np.full((240, 320), 2.0, np.float32)
        references = [matcher.describe(Frame(texture(i), CAMERA, depth=depth)) for i in range(3)]
        upright = Frame(np.ascontiguousarray(texture(7).transpose(1, 0, 2)), PORTRAIT, depth=depth.T.copy())
        references.insert(1, matcher.describe(upright))
        query = matcher.describe(Frame(texture(0), CAMERA))
        together = matcher.match(query, references)
        assert sum(map(len, together)) > 3
        for matches, reference in zip(together, references):
            alone = matcher.match(query, [reference])[0]
            same = _common(matches.query_xy, alone.query_xy, matches.reference_xy, alone.reference_xy)
            assert same >= 0.95 * max(len(matches), len(alone))  # but for ties in the last bit

    def test_matching_without_points_finds_the_same_pixels(self) -> None:
        matcher = oracle()
        query, reference = matcher.describe(see(QUERY)), matcher.describe(see(keyframe_poses()[0]))
        pixels = matcher.match_pixels(query, [reference])[0]
        matches = matcher.match(query, [reference])[0]
        # Those on depth edges are pixels without points.
        assert _common(pixels.query_xy, matches.query_xy, pixels.reference_xy, matches.reference_xy) == len(matches)
        assert len(matches) <= len(pixels.query_xy)

    def test_half_precision_tokens_of_the_cache_change_next_to_nothing(self) -> None:
        matcher = random_matcher()
        features = [matcher.describe(Frame(texture(i), CAMERA)) for i in range(2)]
        exact = []
        for i, described in enumerate(features):
            tokens = matcher.network.encode(view_of(Frame(texture(i), CAMERA), 96)[1]).features[0]
            exact.append({**described, "tokens": tokens.numpy()})
            assert described["tokens"].dtype == np.float16
        outputs = []
        for first, second in (exact, features):
            pairs = matcher._decoded(second, [first])
            outputs.append(matcher._descriptors(1, pairs).desc)
        assert (outputs[0] - outputs[1]).norm(dim=-1).max() < 5e-3  # descriptors have length one

    def test_heads_that_run_alone_give_what_the_whole_network_gives(self) -> None:
        matcher = random_matcher()
        frames = [Frame(texture(i), CAMERA) for i in range(2)]
        first, second = (matcher.describe(frame) for frame in frames)
        with torch.inference_mode():
            whole1, whole2 = matcher.network(*(view_of(frame, 96)[1] for frame in frames))
            pairs = matcher._decoded(second, [first])
            np.testing.assert_allclose(matcher._descriptors(2, pairs).desc, whole2.desc, atol=5e-3)
            own = matcher._own_points(first, second)
        np.testing.assert_allclose(own[..., :3], whole1.pts3d[0], atol=1e-2)

    def test_bfloat16_is_near_float32(self) -> None:
        outputs = []
        for dtype in ("float32", "bfloat16"):
            matcher = random_matcher(dtype=dtype)
            features = [matcher.describe(Frame(texture(i), CAMERA)) for i in range(2)]
            with torch.inference_mode():
                outputs.append(matcher._descriptors(1, matcher._decoded(features[1], [features[0]])).desc)
        difference = (outputs[0] - outputs[1]).norm(dim=-1)
        assert 0 < difference.median() < 0.05
        assert outputs[1].dtype is torch.float32


class TestShape:
    def test_depth_of_a_single_view_is_in_its_own_frame(self) -> None:
        matcher, frame = oracle(camera_T_map=se3.inverse(QUERY), unit=0.5), see(QUERY, BARREL)
        features = matcher.describe(replace(frame, depth=None))
        predicted = matcher.predict_depth(features, matcher.describe(see(keyframe_poses()[0])))
        u, v = np.rint(predicted.xy).astype(int).T
        ratio = predicted.depth / frame.depth[v.clip(0, 239), u.clip(0, 319)]
        assert len(ratio) > 10000 and np.median(ratio) == pytest.approx(0.5, rel=0.02)

    def test_the_focal_length_of_an_uncalibrated_photo_is_read_off_its_points(self) -> None:
        matcher = oracle(camera_T_map=se3.inverse(QUERY))
        assert matcher.estimate_focal(see(QUERY)) == pytest.approx(CAMERA.focal, rel=0.02)

    @pytest.mark.parametrize("calibrated", [True, False])
    def test_a_frame_without_depth_becomes_a_cloud_on_the_walls(self, calibrated: bool) -> None:
        matcher = oracle(camera_T_map=se3.inverse(QUERY), unit=0.4)
        localizer = Localizer(map_of([see(pose) for pose in keyframe_poses()]), matcher)
        frame = replace(see(QUERY), depth=None, camera=CAMERA if calibrated else None)
        estimate = localizer.localize(frame)
        assert estimate.localized and matcher.network.points_run == []  # not before somebody wants it
        points, colours, confidence = localized_cloud(localizer, frame, estimate, stride=4)
        to_wall = np.minimum(np.abs(points - LOW), np.abs(points - HIGH)).min(axis=1)
        assert 3000 < len(points) < 80 * 60 + 1 and np.percentile(to_wall, 95) < 0.06
        painted = (points - LOW) / (HIGH - LOW) * 250 + 5
        assert np.median(np.abs(painted - colours)) < 4 and ((confidence > 0) & (confidence <= 1)).all()
        assert matcher.network.points_run == [1]


class TestMapsWithoutDepth:
    @pytest.mark.parametrize("name", ["mast3r", "dust3r"])
    def test_keyframes_are_triangulated_by_the_networks_matches(self, name: str) -> None:
        frames = [replace(see(pose), depth=None) for pose in keyframe_poses()]
        posed = [PosedFrame(frame, pose) for frame, pose in zip(frames, keyframe_poses())]
        matcher = oracle(name)
        keyframe_map, report = build_map(posed, selection=KEEP_ALL, matcher=matcher, image_format="png")
        assert min(report.triangulated.values()) > 100  # smooth walls: SIFT finds nothing on them
        for keyframe, pose in zip(keyframe_map.keyframes, keyframe_poses()):
            depth = keyframe_map.frame(keyframe.id).depth
            known = depth > 0
            assert np.median(np.abs(depth[known] / see(pose).depth[known] - 1)) < 0.03

    def test_a_map_from_colour_images_alone_gives_metric_poses(self) -> None:
        # One keyframe sees its true shape at a wrong scale: the triangulated points put that right.
        pose = keyframe_poses()[0]
        matcher = oracle(camera_T_map=se3.inverse(pose), unit=3.0)
        posed = [PosedFrame(replace(see(pose), depth=None), pose) for pose in keyframe_poses()]
        keyframe_map, _ = build_map(posed, selection=KEEP_ALL, matcher=matcher, image_format="png")
        others = [keyframe.id for keyframe in keyframe_map.keyframes[1:]]
        estimate = Localizer(keyframe_map, matcher).localize(replace(see(QUERY), depth=None), exclude=others)
        assert estimate.localized, estimate.detail
        scale = estimate.matched[0].matches.scale
        assert scale is not None and scale.factor == pytest.approx(1 / 3, rel=0.03)
        metres, degrees = se3.pose_error(estimate.map_T_camera, QUERY)
        assert metres < 0.05 and degrees < 1


class TestContract:
    def test_the_matchers_keep_it(self) -> None:
        for name in ("mast3r", "dust3r"):
            matcher = random_matcher(name)
            assert isinstance(matcher, Matcher) and matches_pixels(matcher)
            assert predicts_depth(matcher) and capabilities(matcher).metric == (name == "mast3r")
        assert matches_pixels(create("sift")) and not predicts_depth(create("sift"))

    def test_features_survive_the_map_on_disk(self, tmp_path: Path) -> None:
        matcher = oracle()
        keyframe_map = map_of([see(pose) for pose in keyframe_poses()])
        keyframe_map.prepare(matcher)
        keyframe_map.save(tmp_path / "map")
        loaded = KeyframeMap.load(tmp_path / "map")
        assert list((tmp_path / "map" / "features" / matcher.signature).glob("*.safetensors"))
        for keyframe in loaded.keyframes:
            features = loaded.features(matcher, keyframe.id)
            for name, array in keyframe_map.features(matcher, keyframe.id).items():
                np.testing.assert_array_equal(features[name], array)
        assert loaded.retrieve(matcher, matcher.describe(see(keyframe_poses()[2])), 1) == ["000002"]

    def test_the_signature_names_the_weights_and_the_size(self) -> None:
        first = random_matcher().signature
        assert first == random_matcher().signature
        other = create("mast3r", checkpoint=random_network(TINY, seed=4), size=96, dtype="float32").signature
        larger = create("mast3r", checkpoint=random_network(TINY, seed=3), size=192, dtype="float32").signature
        assert len({first, other, larger}) == 3

    def test_every_stage_is_timed(self) -> None:
        matcher = random_matcher()
        features = matcher.describe(Frame(texture(), CAMERA))
        assert set(matcher.stopwatch.ms) == {"encode"}
        matcher.match(features, [features])
        assert set(matcher.stopwatch.ms) == {"decode", "heads", "match"} and min(matcher.stopwatch.ms.values()) > 0


class TestDeviceTokens:
    LIMIT = 2 * 4 * 8 * 4  # two keyframes in float32

    def keyframe(self, value: float, key: object = None) -> KeyframeFeatures:
        return KeyframeFeatures({"tokens": np.full((4, 8), value, np.float16)}, value if key is None else key)

    def test_keyframes_are_moved_once_and_the_least_used_are_dropped(self) -> None:
        keyframes = [self.keyframe(i) for i in range(3)]
        keep = DeviceTokens(torch.device("cpu"), torch.float32, self.LIMIT)
        first = keep._found(keyframes[0])
        assert first.dtype is torch.float32
        keep.fetch(keyframes[1:2])
        assert keep._found(keyframes[0]) is first
        keep.fetch(keyframes[2:])  # the second is the least recently used
        assert len(keep) == 2 and keep.nbytes == self.LIMIT and keep._found(keyframes[0]) is first
        stacked = keep.stacked(keyframes)
        assert stacked.shape == (3, 4, 8) and stacked[:, 0, 0].tolist() == [0, 1, 2]

    def test_a_keyframe_is_known_by_its_key_and_dies_with_its_features(self) -> None:
        keep = DeviceTokens(torch.device("cpu"), torch.float32, self.LIMIT)
        old, again = self.keyframe(1, "map a: 7"), self.keyframe(2, "map a: 7")
        assert keep._found(old) is keep._found(again) and float(keep._found(again)[0, 0]) == 1
        other = self.keyframe(3, "map b: 7")
        assert float(keep._found(other)[0, 0]) == 3 and len(keep) == 2
        del other
        assert len(keep) == 1
        del old, again
        assert len(keep) == keep.nbytes == 0

    def test_what_the_map_evicts_is_dropped_here(self) -> None:
        matcher, frames = random_matcher(), [see(pose) for pose in keyframe_poses()]
        size = sum(array.nbytes for array in matcher.describe(frames[0]).values())
        keyframe_map = KeyframeMap(image_format="png", feature_memory=2 * size)
        for frame, pose in zip(frames, keyframe_poses()):
            keyframe_map.add(PosedFrame(frame, pose))
        keep = DeviceTokens(torch.device("cpu"), torch.float32, 1 << 30)
        for keyframe in keyframe_map.keyframes:
            keep.fetch([keyframe_map.features(matcher, keyframe.id)])
        assert len(frames) == 3 and len(keep) == 2
        last = keyframe_map.features(matcher, keyframe_map.keyframes[-1].id)
        kept = keep._found(last)
        assert keep._found(keyframe_map.features(matcher, keyframe_map.keyframes[-1].id)) is kept

    def test_frames_without_a_map_are_moved_and_not_kept(self) -> None:
        keep = DeviceTokens(torch.device("cpu"), torch.float32, self.LIMIT)
        for value in range(50):  # arrays die at once, and their identities are used again
            assert float(keep.stacked([{"tokens": np.full((2, 2), value, np.float16)}])[0, 0, 0]) == value
        assert len(keep) == 0

    def test_tokens_of_a_frame_come_to_the_host_when_they_are_read(self) -> None:
        encoded = EncodedFeatures(torch.ones(3, 2, dtype=torch.float16), {"size": np.array([32, 48])})
        keep = DeviceTokens(torch.device("cpu"), torch.float32, self.LIMIT)
        assert keep.stacked([encoded]).shape == (1, 3, 2) and "tokens" not in encoded._arrays
        assert list(encoded) == ["tokens", "size"] and len(encoded) == 2
        for features in (dict(encoded), pickle.loads(pickle.dumps(encoded))):
            assert type(features) is dict and features["tokens"].dtype == np.float16 and features["tokens"].all()


class TestOptions:
    @pytest.mark.usefixtures("no_shipped_network")
    def test_auto_takes_what_the_checkpoint_is(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        mast3r = save_network(random_network(TINY), tmp_path / "m.safetensors")
        linear = replace(TINY, head_type="linear", desc_dim=0, two_confs=False)
        dust3r = save_network(random_network(linear), tmp_path / "d.safetensors")
        with caplog.at_level("INFO", "mast3r_ros.matching.registry"):
            assert create("auto", checkpoint=mast3r, feature="orb", device="cpu").name == "mast3r"
            assert create("auto", checkpoint=dust3r, device="cpu").name == "dust3r"
            assert create("auto", checkpoint="", feature="orb", device="auto").name == "sift"
        assert [record.getMessage().split(":")[0] for record in caplog.records] == [
            f"matcher auto takes {name}" for name in ("mast3r", "dust3r", "sift")
        ]

    def test_a_pickle_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        file = tmp_path / "official.pth"
        file.write_bytes(b"anything")
        for name in ("mast3r", "auto"):
            with pytest.raises(CheckpointError, match="mast3r_ros checkpoint convert"):
                create(name, checkpoint=file)

    @pytest.mark.usefixtures("no_shipped_network")
    def test_wrong_options_are_refused(self, tmp_path: Path) -> None:
        network = random_network(TINY)
        for options in ({"dtype": "int8"}, {"device": "tpu"}, {"size": 7}, {"subsample": 0}, {"feature": "orb"}):
            with pytest.raises(MatcherError, match=next(iter(options))):
                create("mast3r", checkpoint=network, **options)
        with pytest.raises(MatcherError, match="checkpoint download"):
            create("mast3r")
        linear = random_network(replace(TINY, head_type="linear", desc_dim=0, two_confs=False))
        with pytest.raises(MatcherError, match="dust3r"):
            create("mast3r", checkpoint=linear)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
    def test_a_gpu_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(MatcherError, match="no usable GPU"):
            create("mast3r", checkpoint=random_network(TINY), device="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
class TestOnAGpu:
    def test_tokens_that_do_not_fit_come_from_pinned_memory_unharmed(self) -> None:
        generator = np.random.default_rng(0)
        keyframes = [
            KeyframeFeatures({"tokens": generator.standard_normal((256, 256)).astype(np.float16)}, k) for k in range(8)
        ]
        sources = [torch.from_numpy(k["tokens"].copy()).cuda() for k in keyframes]
        keep = DeviceTokens(torch.device("cuda"), torch.float16, 3 * 256 * 256 * 2)
        for _ in range(50):
            rows = generator.integers(0, 8, 4).tolist()
            keep.fetch([keyframes[row] for row in generator.integers(0, 8, 2)])
            found = keep.stacked([keyframes[row] for row in rows])
            assert torch.equal(found, torch.stack([sources[row] for row in rows])) and len(keep) == 3
        assert sum(torch.from_numpy(k["tokens"]).is_pinned() for k in keyframes) >= 5

    @pytest.mark.parametrize("name", ["mast3r", "dust3r"])
    def test_it_finds_what_the_cpu_finds(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """With and without depth, for one keyframe and more, before and after its graphs are recorded."""
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        here = random_matcher(name)
        options = {"size": 96, "dtype": "float32", "device": "cuda", "min_confidence": 0.0}
        there = create(name, checkpoint=random_network(TINY, seed=3), subsample=here.subsample, **options)
        frames = [Frame(texture(i), CAMERA, depth=np.full((240, 320), 2.0, np.float32)) for i in range(4)]
        frames[3] = replace(frames[3], depth=None)
        described = [[matcher.describe(frame) for frame in frames] for matcher in (here, there)]
        for one, other in zip(*described, strict=True):
            np.testing.assert_allclose(one["tokens"].astype(np.float32), other["tokens"], atol=2e-3)
            np.testing.assert_allclose(here.local_descriptors(one), there.local_descriptors(other), atol=2e-3)
        for rows, ask in (([1], "match"), ([1, 2], "match"), ([2], "match"), ([3, 1, 2], "match_pixels")):
            found = [
                getattr(matcher, ask)(features[0], [features[row] for row in rows])
                for matcher, features in zip((here, there), described, strict=True)
            ]
            for one, other in zip(*found, strict=True):
                shared = _common(one.query_xy, other.query_xy, one.reference_xy, other.reference_xy)
                assert shared >= 0.9 * max(len(one), len(other)) > 0


class TestPrefetch:
    def test_keyframes_near_the_prior_are_on_their_way_before_anything_is_retrieved(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        matcher, called = oracle(), []
        keyframe_map = map_of([see(pose) for pose in keyframe_poses()])
        localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=1))
        localizer.localize(replace(see(QUERY), depth=None))  # describes and indexes the map
        monkeypatch.setattr(matcher, "prefetch", lambda references: called.append(list(references)))
        describe = matcher.local_descriptors
        monkeypatch.setattr(
            matcher, "local_descriptors", lambda features: called.append("retrieve") or describe(features)
        )
        near = keyframe_poses()[2]
        localizer.localize(replace(see(QUERY), depth=None), PosePrior(near))
        (id,) = keyframe_map.retrieve_near(near, 1)
        assert called[0][0] is keyframe_map.features(matcher, id) and called[1] == "retrieve"
        called.clear()
        localizer.localize(replace(see(QUERY), depth=None))
        assert called[0] == "retrieve"


class TestBrokenGpu:
    """A GPU that is there and does not work: the CPU takes over with one sentence, unless the GPU was asked for."""

    OLD = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update it."

    def driver(self, monkeypatch: pytest.MonkeyPatch, there: bool, message: str = "") -> None:
        def is_available() -> bool:
            if message:
                warnings.warn(message, stacklevel=2)
            return there

        monkeypatch.setattr(torch.cuda, "is_available", is_available)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
    def test_the_cpu_takes_over_and_says_why(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.driver(monkeypatch, False, self.OLD)
        with caplog.at_level("WARNING"):
            assert device_named("auto").type == "cpu"
        assert [r.getMessage() for r in caplog.records] == [
            "the GPU of this machine cannot be used, so the network runs on the CPU: "
            "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)"
        ]
        with pytest.raises(MatcherError, match=r"no usable GPU here \(CUDA initialization: .* use auto or cpu"):
            device_named("cuda")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
    def test_a_gpu_that_cannot_compute_is_none(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.driver(monkeypatch, True)
        with caplog.at_level("WARNING"):
            assert create("mast3r", checkpoint=random_network(TINY), device="auto").device.type == "cpu"
        (record,) = caplog.records
        assert record.getMessage().startswith("the GPU of this machine cannot be used")

    def test_no_gpu_is_nothing_to_talk_about(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.driver(monkeypatch, False)
        assert device_named("auto").type == "cpu" and not caplog.records


def _common(query1: np.ndarray, query2: np.ndarray, reference1: np.ndarray, reference2: np.ndarray) -> int:
    """How many matches two lists share, to a thousandth of a pixel."""
    first, second = (
        {tuple(row) for row in np.round(np.hstack([q, r]), 3)} for q, r in ((query1, reference1), (query2, reference2))
    )
    return len(first & second)
