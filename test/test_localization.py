"""Localizer, verification and tracking on a small map of textured walls with exact geometry."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.stats import chi2
from test_matching import CAMERA, texture

from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import solve_pose
from mast3r_ros.localization import (
    Gates,
    Localizer,
    LocalizerSettings,
    PosePrior,
    Reason,
    Tracker,
    TrackerSettings,
)
from mast3r_ros.localization.correspondences import Correspondences
from mast3r_ros.localization.estimate import Status, Track
from mast3r_ros.localization.map_noise import fit_noise
from mast3r_ros.localization.stretch import TRIALS, StretchCheck
from mast3r_ros.localization.support import Support
from mast3r_ros.localization.tracking import SAME_VIEW
from mast3r_ros.localization.uncertainty import map_covariance
from mast3r_ros.localization.verification import gather, verify
from mast3r_ros.localization.visibility import explained
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create
from mast3r_ros.matching.base import Matches
from mast3r_ros.matching.sift import SiftMatcher
from mast3r_ros.settings import SolverSettings


def slanted_depth(shift: float = 0.0) -> np.ndarray:
    """A wall that recedes to the right, so that a pose is well determined."""
    return np.tile(np.linspace(1.5 + shift, 3.5 + shift, 320, dtype=np.float32), (240, 1))


def keyframe(index: int) -> PosedFrame:
    """A wall of its own texture, seen from its own place."""
    pose = se3.exp([2.0 * index, 0.5, 0, 0, 0.2 * index, 0])
    return PosedFrame(Frame(texture(index), CAMERA, depth=slanted_depth(), name=f"wall{index}"), pose)


@pytest.fixture(scope="module")
def walls() -> KeyframeMap:
    keyframe_map = KeyframeMap()
    for index in range(4):
        keyframe_map.add(keyframe(index), id=f"wall{index}")
    keyframe_map.prepare(create("sift"))
    return keyframe_map


@pytest.fixture
def localizer(walls) -> Localizer:
    # Each wall is seen by one keyframe only.
    return Localizer(walls, create("sift"), LocalizerSettings(gates=Gates(min_agreeing_keyframes=1)))


def test_a_view_of_a_known_wall_is_localized(localizer):
    truth = keyframe(2).map_T_camera
    estimate = localizer.localize(Frame(texture(2), CAMERA, stamp_ns=7))
    assert estimate.localized and estimate.reason is Reason.NONE and estimate.stamp_ns == 7
    metres, degrees = se3.pose_error(estimate.map_T_camera, truth)
    assert metres < 0.01 and degrees < 0.2
    assert estimate.keyframes[0] == "wall2" and estimate.evidence.inliers > 100
    assert (np.linalg.eigvalsh(estimate.covariance) > 0).all()
    assert {"describe", "retrieve", "match", "solve", "verify", "total"} == set(estimate.timings_ms)


def test_the_focal_length_is_found_where_nothing_is_calibrated(localizer):
    estimate = localizer.localize(Frame(texture(1)))
    assert estimate.localized
    assert estimate.camera_focal_px == pytest.approx(300, rel=0.03)


def test_an_image_without_calibration_is_the_maps_cameras_only_where_that_explains_it(localizer):
    """The same picture, and the same enlarged by a fifth as a camera with a longer lens takes it."""
    import cv2

    assert localizer.localize(Frame(texture(1))).camera_focal_px == CAMERA.focal
    centre, size = np.array([CAMERA.cx, CAMERA.cy]), (CAMERA.width, CAMERA.height)
    enlarge = np.hstack([1.2 * np.eye(2), (-0.2 * centre)[:, None]])
    longer = localizer.localize(Frame(cv2.warpAffine(texture(1), enlarge, size)))
    assert longer.localized and longer.camera_focal_px == pytest.approx(1.2 * CAMERA.focal, rel=0.03)


def test_distorted_and_rectified_images_give_the_same_pose(walls, localizer):
    import cv2

    D = np.array([-0.2, 0.05, 0, 0, 0])
    bent = type(CAMERA)(320, 240, CAMERA.K, "plumb_bob", D)
    # What a camera with that lens sees: for each of its pixels, the ideal pixel on the same ray.
    ideal = bent.pixel_rays * 300 + [160, 120]
    image = cv2.remap(texture(3), ideal[..., 0].astype(np.float32), ideal[..., 1].astype(np.float32), cv2.INTER_LINEAR)
    estimate = localizer.localize(Frame(image, bent))
    assert estimate.localized
    metres, _ = se3.pose_error(estimate.map_T_camera, keyframe(3).map_T_camera)
    assert metres < 0.02


@pytest.mark.parametrize(
    ("frame", "reasons"),
    [
        (Frame(texture(99), CAMERA), {Reason.TOO_FEW_INLIERS, Reason.TOO_FEW_MATCHES, Reason.NO_POSE}),
        (Frame(np.zeros((240, 320, 3), np.uint8), CAMERA), {Reason.TOO_FEW_MATCHES, Reason.NOTHING_RETRIEVED}),
        (Frame(np.zeros((1, 1, 3), np.uint8)), {Reason.UNUSABLE_IMAGE}),
    ],
)
def test_what_is_not_in_the_map_is_refused_by_name(localizer, frame, reasons):
    estimate = localizer.localize(frame)
    assert not estimate.localized and estimate.reason in reasons and estimate.detail


class Counting(SiftMatcher):
    """Sift that notes how many keyframes it was asked to match, and which."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.matched: list[bytes] = []

    def match(self, query, references):
        self.asked.append(len(references))
        self.matched += [reference["descriptors"].tobytes() for reference in references]
        return super().match(query, references)


class TestOnTrack:
    @staticmethod
    def looks(walls, image, prior) -> tuple[list[int], bool]:
        """Keyframes of each attempt, and whether the image was localized."""
        matcher = Counting()
        settings = LocalizerSettings(
            keyframes=2, keyframes_on_track=1, second_look=4, gates=Gates(min_agreeing_keyframes=1)
        )
        estimate = Localizer(walls, matcher, settings).localize(Frame(image, CAMERA), prior)
        return matcher.asked, estimate.localized

    def test_few_keyframes_are_enough_while_they_agree_with_the_track(self, walls) -> None:
        near = se3.exp([0.05, 0.02, 0, 0, 0, 0]) @ keyframe(2).map_T_camera
        assert self.looks(walls, texture(2), PosePrior(near, 0.05, 0.02)) == ([1], True)

    def test_all_are_matched_where_they_do_not(self, walls) -> None:
        elsewhere = PosePrior(keyframe(0).map_T_camera, 0.05, 0.02)
        assert self.looks(walls, texture(2), elsewhere) == ([1, 1], True)  # the one of the first attempt is matched

    def test_all_are_matched_where_the_pose_is_hardly_known(self, walls) -> None:
        vague = PosePrior(keyframe(2).map_T_camera, 2.0, 0.02)
        assert self.looks(walls, texture(2), vague) == ([2], True)
        assert self.looks(walls, texture(2), None) == ([2], True)

    def test_a_frame_that_shows_nothing_costs_no_wide_look(self, walls) -> None:
        strange = texture(9)
        assert self.looks(walls, strange, PosePrior(keyframe(2).map_T_camera, 0.05, 0.02)) == ([1, 1], False)
        assert self.looks(walls, strange, None) == ([2, 2], False)

    @pytest.mark.smoke
    def test_no_keyframe_is_matched_twice_for_one_image(self, walls) -> None:
        """Neither by the wide attempt after the first one, nor by the first one after that on track."""
        matcher = Counting()
        settings = LocalizerSettings(keyframes=2, keyframes_on_track=1, second_look=4)
        localizer = Localizer(walls, matcher, settings)
        assert not localizer.localize(Frame(texture(9), CAMERA)).localized
        assert sorted(matcher.matched) == sorted(set(matcher.matched)) and len(matcher.matched) == len(walls)
        matcher.matched.clear()
        assert not localizer.localize(Frame(texture(9), CAMERA), PosePrior(np.eye(4), 0.05, 0.02)).localized
        assert len(matcher.matched) == len(set(matcher.matched)) == 2


def test_an_empty_map_says_so():
    estimate = Localizer(KeyframeMap(), create("sift")).localize(Frame(texture(0), CAMERA))
    assert estimate.reason is Reason.EMPTY_MAP


def test_sensor_depth_contradicts_a_pose(localizer):
    assert localizer.localize(Frame(texture(0), CAMERA, depth=slanted_depth())).localized
    wrong = localizer.localize(Frame(texture(0), CAMERA, depth=slanted_depth(1.0)))
    assert wrong.reason is Reason.DEPTH_DISAGREES and "%" in wrong.detail


# Verification on matches made by hand


def support(xy, depth, keyframes=2, noise_px=0.5, seed=0) -> Support:
    """Matches of a camera at the origin: pixels (N, 2) at the given depths, dealt out to keyframes."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([CAMERA.rays(xy) * depth[:, None], depth[:, None]], axis=1)
    noisy = xy + rng.normal(size=xy.shape) * noise_px
    pose = solve_pose(CAMERA.rays(noisy), points, np.ones(len(xy)), CAMERA.focal)
    assert pose is not None
    return Support(pose, noisy, points, np.arange(len(xy)) % keyframes, np.zeros((keyframes, 3)), 2.5)


def everywhere(count=120, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform([0, 0], [319, 239], size=(count, 2)), rng.uniform(1.5, 4, size=count)


FRAME = Frame(texture(0), CAMERA)


def test_spread_matches_are_accepted():
    verdict = verify(support(*everywhere()), FRAME)
    assert verdict.reason is Reason.NONE and verdict.evidence.agreeing_keyframes == 2


def test_many_inliers_on_one_patch_are_not_enough():
    rng = np.random.default_rng(1)
    patch = rng.uniform([100, 100], [140, 140], size=(160, 2))
    verdict = verify(support(patch, rng.uniform(1.5, 4, size=160)), FRAME)
    assert verdict.evidence.inliers > 100
    assert verdict.reason is Reason.INLIERS_ON_ONE_PATCH


@pytest.mark.parametrize(
    "found, reason",
    [
        ({"spread": 0.1, "explained": 0.85}, Reason.NONE),  # a strip of the image is all that the map knows
        ({"spread": 0.1, "explained": 0.6}, Reason.INLIERS_ON_ONE_PATCH),
        # A cupboard that was moved: it has hundreds of inliers in many keyframes, and nothing around it fits.
        ({"explained": 0.28, "inliers": 230, "agreeing_keyframes": 5}, Reason.EXPECTED_NOT_SEEN),
        ({"explained": 0.65, "agreeing_keyframes": 1}, Reason.NONE),
        ({"explained": 0.45, "agreeing_keyframes": 1}, Reason.KEYFRAMES_DISAGREE),  # a chair of another room's make
    ],
)
def test_what_the_map_expects_makes_up_for_other_evidence(found, reason):
    verdict = verify(support(*everywhere(), keyframes=3), FRAME, measure=lambda *seen: replace(gather(*seen), **found))
    assert verdict.reason is reason


def test_few_inliers_need_a_second_keyframe():
    weak = everywhere(24)
    assert verify(support(*weak, keyframes=2), FRAME).reason is Reason.NONE
    lonely = support(*weak, keyframes=2)
    lonely = replace(lonely, keyframe=np.zeros_like(lonely.keyframe))
    assert verify(lonely, FRAME).reason is Reason.KEYFRAMES_DISAGREE


def test_far_points_leave_the_position_uncertain():
    xy, depth = everywhere()
    verdict = verify(support(xy, depth * 400), FRAME)
    assert verdict.reason is Reason.UNCERTAIN and " m and " in verdict.detail


@pytest.mark.parametrize("squeezed", [3 / 4, 4 / 3], ids=["stretched", "squeezed"])
def test_a_stretched_picture_with_the_old_calibration_is_refused(localizer: Localizer, squeezed: float) -> None:
    """A driver's 16:9 as 4:3, and back: the calibration is of the picture before."""
    picture = texture(2)
    height, width = picture.shape[:2]
    stretched = cv2.resize(picture, (width, round(height / squeezed)))
    middle = max(stretched.shape[0] - height, 0) // 2
    shown = np.zeros_like(picture)
    rows = stretched[middle : middle + height]
    top = (height - len(rows)) // 2
    shown[top : top + len(rows)] = rows
    right = localizer.localize(Frame(picture, CAMERA))
    wrong = localizer.localize(Frame(shown, CAMERA))
    assert right.localized
    assert not wrong.localized
    if wrong.reason is Reason.CALIBRATION_DISAGREES:
        assert "stretched after the calibration" in wrong.detail


@pytest.mark.parametrize("factor", [0.6, 0.75, 1.3, 1.6])
def test_another_cameras_calibration_is_refused(factor: float) -> None:
    """Of a corner, which determines the lens: the pose that another calibration leaves is decimetres off."""
    depth = np.minimum(slanted_depth(), slanted_depth()[:, ::-1] + 0.4)
    room = KeyframeMap()
    room.add(PosedFrame(Frame(texture(5), CAMERA, depth=depth), np.eye(4)), id="corner")
    room.prepare(create("sift"))
    localizer = Localizer(room, create("sift"), LocalizerSettings(gates=Gates(min_agreeing_keyframes=1)))
    K = CAMERA.K.copy()
    K[[0, 1], [0, 1]] *= factor
    wrong = localizer.localize(Frame(texture(5), replace(CAMERA, K=K)))
    assert not wrong.localized
    assert wrong.reason is Reason.CALIBRATION_DISAGREES and "focal lengths look like" in wrong.detail
    assert localizer.localize(Frame(texture(5), CAMERA)).localized


def test_the_stretch_that_explains_more_is_named() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1, 2], [1, 1, 4], (200, 3))
    xy = CAMERA.project(points)
    centre = np.array([CAMERA.K[0, 2], CAMERA.K[1, 2]])
    stretched = centre + (xy - centre) * (1.0, 4 / 3)
    check, settings = StretchCheck(), SolverSettings(threshold_px=4.0)
    assert check.found(CAMERA, stretched, points, np.ones(200), 40, settings) == 4 / 3
    for _ in range(2 * TRIALS):
        assert check.found(CAMERA, xy, points, np.ones(200), 200, settings) is None
    # A camera that has passed is asked again only where a pose explains little.
    assert check.found(CAMERA, stretched, points, np.ones(200), 120, settings) is None
    assert check.found(CAMERA, stretched, points, np.ones(200), 40, settings) == 4 / 3


def test_what_would_be_seen_from_behind_is_a_mirror() -> None:
    """The keyframes stand behind the wall of points that the pose looks at: the picture was mirrored."""
    right = support(*everywhere())
    behind = replace(right, centres=np.array([[0.0, 0, 9.0], [0.3, 0, 9.0]]))
    verdict = verify(behind, FRAME)
    assert verdict.reason is Reason.SEEN_FROM_BEHIND and "100%" in verdict.detail
    beside = replace(right, centres=np.array([[1.5, 0, 0.5], [-1.5, 0, 0.5]]))
    assert verify(beside, FRAME).reason is Reason.NONE


def test_a_scale_that_nothing_confirms_is_told_from_an_uncertain_pose() -> None:
    right = support(*everywhere())
    guessed = verify(right, FRAME, scale_sigma_m=0.3)
    assert guessed.reason is Reason.SCALE_UNVERIFIED and "nothing confirms the scale" in guessed.detail
    assert guessed.protection.position_m > 0.9 and guessed.evidence.position_sigma_m > 0.3
    near = verify(right, FRAME, scale_sigma_m=0.01)
    assert near.reason is Reason.NONE and near.protection.position_m > verify(right, FRAME).protection.position_m


def test_covariance_covers_the_errors_of_keyframe_poses():
    """Five keyframes whose own poses are off by 1 cm and 0.3 deg: squared Mahalanobis errors stay near six."""
    rng = np.random.default_rng(3)
    squared = []
    for _ in range(100):
        xy, depth = everywhere(300, seed=int(rng.integers(1 << 30)))
        points = np.concatenate([CAMERA.rays(xy) * depth[:, None], depth[:, None]], axis=1)
        keyframe = np.arange(300) % 5
        for k in range(5):
            twist = rng.normal(size=6) * np.r_[[0.01] * 3, np.radians([0.3] * 3)]
            points[keyframe == k] = se3.apply(se3.exp(twist), points[keyframe == k])
        noisy = xy + rng.normal(size=xy.shape) * 0.7
        pose = solve_pose(CAMERA.rays(noisy), points, np.ones(300), CAMERA.focal)
        error = se3.log(pose.map_T_camera)
        covariance = verify(Support(pose, noisy, points, keyframe, np.zeros((5, 3)), 2.5), FRAME).covariance
        squared.append(error @ np.linalg.solve(covariance, error))
    assert 2 < np.mean(squared) < 14


# Tracking


#: Poses are told, so there are no frames to be solved together.
ALONE = TrackerSettings(joint_frames=1)


class Replayed:
    """Stands where a Localizer stands and returns the pose that was set: tracking is about poses only."""

    def __init__(self, sample):
        self.sample = sample
        self.map = SimpleNamespace(view_depth_m=2.5)
        self.pose = np.eye(4)
        self.priors: list[PosePrior | None] = []

    def localize(self, frame, prior=None):
        self.priors.append(prior)
        return replace(self.sample, map_T_camera=self.pose, stamp_ns=frame.stamp_ns)


@pytest.fixture(scope="module")
def sample(walls):
    localizer = Localizer(walls, create("sift"), LocalizerSettings(gates=Gates(min_agreeing_keyframes=1)))
    return localizer.localize(Frame(texture(2), CAMERA))


def at(seconds: float) -> Frame:
    """A frame of that time; no sensor gives the same picture twice."""
    image = texture(0).copy()
    image[0, :8, 0] = np.frombuffer(np.int64(seconds * 1e9).tobytes(), np.uint8)
    return Frame(image, CAMERA, stamp_ns=int(seconds * 1e9))


def test_odometry_rejects_a_jump_and_confirmation_overrules_it(sample):
    replayed = Replayed(sample)
    tracker = Tracker(replayed, replace(ALONE, confirmations=3, commit_views=1))
    assert tracker.map_T_odom is None
    odom = se3.make(np.eye(3), [1, 0, 0])
    assert tracker.localize(at(0), odom).localized
    np.testing.assert_allclose(tracker.map_T_odom, se3.inverse(odom))
    replayed.pose = se3.make(np.eye(3), [3, 0, 0])
    outcomes = [tracker.localize(at(1 + i), odom) for i in range(3)]
    assert [o.reason for o in outcomes] == [Reason.ODOMETRY_DISAGREES, Reason.ODOMETRY_DISAGREES, Reason.NONE]
    assert "3.00 m" in outcomes[0].detail
    np.testing.assert_allclose(tracker.map_T_odom, replayed.pose @ se3.inverse(odom))


def test_single_wrong_poses_never_add_up(sample):
    replayed = Replayed(sample)
    tracker = Tracker(replayed, ALONE)
    tracker.localize(at(0), np.eye(4))
    for i in range(6):
        replayed.pose = se3.make(np.eye(3), [3.0 * (i + 1), 0, 0])
        assert tracker.localize(at(1 + i), np.eye(4)).reason is Reason.ODOMETRY_DISAGREES


def test_the_prediction_moves_along_with_odometry(sample):
    replayed = Replayed(sample)
    tracker = Tracker(replayed, replace(ALONE, commit_views=1))
    tracker.localize(at(0), np.eye(4))
    moved = se3.exp([0.5, 0, 0, 0, 0, 0.3])
    replayed.pose = moved
    assert tracker.localize(at(1), moved).localized
    np.testing.assert_allclose(replayed.priors[1].map_T_camera, moved, atol=1e-12)


def test_without_odometry_a_camera_cannot_outrun_its_speed(sample):
    replayed = Replayed(sample)
    tracker = Tracker(replayed, ALONE)
    tracker.localize(at(0))
    replayed.pose = se3.make(np.eye(3), [5.0, 0, 0])
    assert tracker.localize(at(0.03)).reason is Reason.ODOMETRY_DISAGREES
    assert tracker.map_T_odom is None


def test_a_persons_estimate_guides_and_time_jumps_forget(sample):
    replayed = Replayed(sample)
    tracker = Tracker(replayed, ALONE)
    believed = se3.make(np.eye(3), [1, 2, 0])
    tracker.set_prior(PosePrior(believed), np.eye(4), stamp_ns=0)
    assert tracker.localize(at(1), np.eye(4)).localized
    np.testing.assert_allclose(replayed.priors[0].map_T_camera, believed)
    replayed.pose = se3.make(np.eye(3), [50.0, 0, 0])
    assert tracker.localize(at(0.5), np.eye(4)).localized, "time ran backwards: a new run"


def test_a_weak_start_can_be_made_to_wait_for_confirmation(sample):
    tracker = Tracker(Replayed(sample), replace(ALONE, first_confirmations=2))
    assert tracker.localize(at(0), np.eye(4)).reason is Reason.ODOMETRY_DISAGREES
    assert tracker.map_T_odom is None
    assert tracker.localize(at(0.1), np.eye(4)).localized


def test_a_frozen_camera_of_a_robot_that_moves_is_not_believed(sample):
    """A driver that repeats its last picture while the robot turns slowly: every pose agrees with the one before."""
    replayed = Replayed(sample)
    tracker = Tracker(replayed, replace(ALONE, confirmations=2, commit_views=1))
    assert tracker.localize(at(0), np.eye(4)).localized
    stuck = at(1)
    turned = [replace(stuck, stamp_ns=stuck.stamp_ns + k * 10**8) for k in range(30)]
    answers = [tracker.localize(frame, se3.exp([0, 0, 0, 0, np.radians(3.0 * k), 0])) for k, frame in enumerate(turned)]
    assert [answer.localized for answer in answers] == [True] * 2 + [False] * 28
    assert (
        answers[-1].reason is Reason.ODOMETRY_DISAGREES and "the same to the pixel as 2.9 s ago" in answers[-1].detail
    )
    np.testing.assert_allclose(tracker.map_T_odom, np.eye(4), atol=0.06)  # the track is what it was
    still = [
        tracker.localize(replace(stuck, stamp_ns=k * 10**9), turned_again)
        for k, turned_again in enumerate([se3.exp([0, 0, 0, 0, np.radians(87.0), 0])] * 2, start=5)
    ]
    assert not still[-1].localized
    replayed.pose = se3.exp([0, 0, 0, 0, np.radians(87.0), 0])
    assert tracker.localize(at(8), replayed.pose).localized, "a new picture counts at once"


def test_a_robot_that_stands_in_a_simulator_sees_the_same_and_is_found(sample):
    tracker = Tracker(Replayed(sample), replace(ALONE, commit_views=1))
    frame = at(0)
    assert all(tracker.localize(replace(frame, stamp_ns=k * 10**9), np.eye(4)).localized for k in range(5))


class TestCommitment:
    """Map -> odom waits until views that differ agree, and is withdrawn when the track is contradicted."""

    MAP_T_ODOM = se3.make(np.eye(3), [1.0, 2.0, 0.0])

    @pytest.fixture
    def replayed(self, sample) -> Replayed:
        replayed = Replayed(replace(sample, evidence=replace(sample.evidence, explained=0.8)))
        replayed.map.overlaps = lambda pose: {"k": 1.0}
        return replayed

    def drive(self, tracker: Tracker, number: int, found: bool = True, keyframe: str = "", metres: float | None = None):
        """Frame ``number``, each 0.3 m and one second after the last; ``found`` where odometry says, or refused."""
        odom = se3.make(np.eye(3), [0.3 * number if metres is None else metres, 0, 0])
        localizer = tracker.localizer
        localizer.pose = self.MAP_T_ODOM @ odom if found else se3.make(np.eye(3), [40.0, 0, 0])
        sample = replace(localizer.sample, keyframes=(keyframe or f"k{number}",))
        verdict = {} if found else {"status": Status.REJECTED, "reason": Reason.TOO_FEW_INLIERS}
        localizer.sample = (
            replace(sample, **verdict) if verdict else replace(sample, status=Status.LOCALIZED, reason=Reason.NONE)
        )
        return tracker.localize(at(number), odom)

    def test_four_different_views_commit_and_say_so_before(self, replayed) -> None:
        tracker = Tracker(replayed, ALONE)
        for number in range(3):
            answer = self.drive(tracker, number)
            assert answer.localized and answer.track is Track.TENTATIVE and tracker.map_T_odom is None
            assert f"{number + 1} of {number + 1} different views agree" in answer.track_detail
            assert "give an initial pose" in answer.track_detail
        assert replayed.priors == [None] * 3, "answers that confirm a track must not be led by it"
        assert self.drive(tracker, 3).track is Track.COMMITTED
        np.testing.assert_allclose(tracker.map_T_odom, self.MAP_T_ODOM, atol=1e-9)
        self.drive(tracker, 4)
        assert replayed.priors[-1] is not None

    def test_standing_still_is_one_view_and_one_keyframe_is_one_thing(self, replayed) -> None:
        tracker = Tracker(replayed, ALONE)
        for number in range(8):
            assert self.drive(tracker, number, metres=0.01 * number).track is Track.TENTATIVE
        tracker = Tracker(replayed, ALONE)
        for number in range(8):
            assert self.drive(tracker, number, keyframe="chair").track is Track.TENTATIVE

    def test_views_from_which_nothing_is_found_speak_against_a_track(self, replayed) -> None:
        tracker = Tracker(replayed, ALONE)
        found = [True, False, True, False, False, True, False, True]  # 4 x 0.2 - 4 x 0.2
        answers = [self.drive(tracker, number, f) for number, f in enumerate(found)]
        assert {a.track for a in answers} == {Track.TENTATIVE}
        tracks = [self.drive(tracker, 8 + k).track for k in range(3)]
        assert tracks == [Track.TENTATIVE, Track.TENTATIVE, Track.COMMITTED]

    def test_where_nobody_knows_what_should_be_seen_more_views_must_agree(self, replayed) -> None:
        replayed.sample = replace(replayed.sample, evidence=replace(replayed.sample.evidence, explained=float("nan")))
        tracker = Tracker(replayed, ALONE)
        tracks = [self.drive(tracker, number).track for number in range(5)]
        assert tracks == [Track.TENTATIVE] * 4 + [Track.COMMITTED]

    @pytest.mark.parametrize("explained", [0.5, 0.62])
    def test_a_place_that_shows_only_part_of_what_the_map_expects_is_not_believed(self, replayed, explained) -> None:
        """A twin room: every answer agrees, from every view, and half of what should be there never is."""
        replayed.sample = replace(replayed.sample, evidence=replace(replayed.sample.evidence, explained=explained))
        tracker = Tracker(replayed, ALONE)
        answers = [self.drive(tracker, number) for number in range(20)]
        assert all(a.localized and a.track is Track.TENTATIVE for a in answers) and tracker.map_T_odom is None

    def test_an_initial_pose_commits_the_first_answer_that_agrees_with_it(self, replayed) -> None:
        for aside_m, track in ((0.5, Track.COMMITTED), (9.0, Track.TENTATIVE)):
            tracker = Tracker(replayed, ALONE)
            told = se3.make(np.eye(3), [aside_m, 0, 0]) @ self.MAP_T_ODOM
            tracker.set_prior(PosePrior(told, 0.5, 0.26), np.eye(4), stamp_ns=0)
            assert self.drive(tracker, 0).track is track

    def test_a_robot_that_was_carried_away_loses_its_track_and_earns_another(self, replayed) -> None:
        tracker = Tracker(replayed, ALONE)
        for number in range(4):
            self.drive(tracker, number)
        self.MAP_T_ODOM = se3.make(np.eye(3), [7.0, 2.0, 0.0])
        answers = [self.drive(tracker, 4 + k) for k in range(4)]
        assert [a.localized for a in answers] == [False, False, True, True]
        assert [a.track for a in answers] == [Track.COMMITTED, Track.COMMITTED, Track.LOST, Track.COMMITTED]
        assert "6.00 m" in answers[2].track_detail and "3 of 3 different views agree" in answers[2].track_detail
        np.testing.assert_allclose(tracker.map_T_odom, self.MAP_T_ODOM, atol=1e-9)

    @pytest.mark.parametrize("overlap", [1.0, 0.1])
    def test_a_track_is_lost_when_nothing_is_seen_where_the_map_shows_something(self, replayed, overlap: float) -> None:
        replayed.map.overlaps = lambda pose: {"k": overlap}
        tracker = Tracker(replayed, ALONE)
        for number in range(4):
            self.drive(tracker, number)
        answers = [self.drive(tracker, 4 + k, found=False) for k in range(5)]
        assert [a.track for a in answers][:3] == [Track.COMMITTED] * 3
        if overlap < SAME_VIEW:
            assert answers[-1].track is Track.COMMITTED, "the map knows nothing there"
        else:
            assert answers[3].track is Track.LOST and "3.0 s" in answers[3].track_detail
            assert tracker.map_T_odom is None

    def test_a_track_that_leaves_the_map_in_doubt_is_lost(self, replayed) -> None:
        """Carried away, a robot is soon believed where nothing is mapped: that confirms nothing."""
        tracker = Tracker(replayed, ALONE)
        for number in range(4):
            self.drive(tracker, number)
        answers = [self.drive(tracker, 4 + k, found=False) for k in range(2)]
        replayed.map.overlaps = lambda pose: {"k": 0.0}
        self.MAP_T_ODOM = se3.make(np.eye(3), [7.0, 2.0, 0.0])
        answers += [self.drive(tracker, 6), self.drive(tracker, 7, found=False)]
        assert answers[2].reason is Reason.ODOMETRY_DISAGREES, "an answer elsewhere speaks against the track"
        assert [a.track for a in answers] == [Track.COMMITTED] * 3 + [Track.LOST]

    def test_frames_at_once_are_no_lasting_doubt(self, replayed) -> None:
        tracker = Tracker(replayed, ALONE)
        for number in range(4):
            self.drive(tracker, number)
        for k in range(5):
            self.drive(tracker, 4 + 0.05 * k, found=False)
        replayed.map.overlaps = lambda pose: {"k": 0.0}
        assert [self.drive(tracker, 5 + k, found=False).track for k in range(5)] == [Track.COMMITTED] * 5

    def test_in_doubt_every_other_attempt_looks_everywhere(self, replayed) -> None:
        tracker = Tracker(replayed, ALONE)
        for number in range(4):
            self.drive(tracker, number)
        for k in range(3):
            self.drive(tracker, 4 + k, found=False)
        assert [prior is None for prior in replayed.priors[4:]] == [False, True, False]

    def test_without_odometry_every_answer_stands_for_itself(self, replayed) -> None:
        tracker = Tracker(replayed, ALONE)
        answers = [tracker.localize(at(k)) for k in range(3)]
        assert all(a.localized and a.track is Track.NONE and not a.track_detail for a in answers)
        assert replayed.priors[1] is not None


class TestWhatTheMapExpects:
    """A wall of landmarks two metres ahead fills the image."""

    LANDMARKS = np.column_stack(
        [*(axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41)))]
    )
    WALL = np.column_stack([LANDMARKS, np.full(len(LANDMARKS), 2.0)])

    def explained(self, found_xy: np.ndarray, camera_T_map: np.ndarray = np.eye(4), camera: object = CAMERA) -> float:
        frame = Frame(np.zeros((240, 320, 3), np.uint8), camera)
        return explained(found_xy, camera_T_map, 300.0, frame, self.WALL)

    def test_everything_found_is_one_and_a_quarter_is_a_quarter(self) -> None:
        everywhere = np.stack(np.meshgrid(np.arange(2, 320, 5), np.arange(2, 240, 5)), axis=-1).reshape(-1, 2) * 1.0
        assert self.explained(everywhere) == 1
        assert self.explained(everywhere, camera=None) == 1
        corner = everywhere[(everywhere < [160, 120]).all(axis=1)]
        assert self.explained(corner) == pytest.approx(0.25)
        assert self.explained(np.zeros((0, 2))) == 0

    def test_where_the_map_promises_nothing_there_is_no_verdict(self) -> None:
        behind = se3.exp([0, 0, -5.0, 0, 0, 0])
        assert np.isnan(self.explained(np.array([[10.0, 10.0]]), behind))
        aside = se3.exp([10.0, 0, 0, 0, 0, 0])
        assert np.isnan(self.explained(np.array([[300.0, 100.0]]), aside))

    def test_a_copy_in_another_room_is_not_accepted(self, walls) -> None:
        """A poster of the map on a wall of another room: exact geometry, many inliers, and nothing around it."""
        image = texture(77)
        image[60:200, 60:220] = texture(2)[60:200, 60:220]
        lenient = Gates(min_agreeing_keyframes=1, min_explained=0.0)
        fooled = Localizer(walls, create("sift"), LocalizerSettings(gates=lenient)).localize(Frame(image, CAMERA))
        assert fooled.localized
        gates = Gates(min_agreeing_keyframes=1, min_explained=0.6)
        estimate = Localizer(walls, create("sift"), LocalizerSettings(gates=gates)).localize(Frame(image, CAMERA))
        assert estimate.reason is Reason.EXPECTED_NOT_SEEN and "60% needed" in estimate.detail


class TestAmbiguousMaps:
    def test_a_map_that_mistakes_its_places_needs_a_belief(self, walls) -> None:
        frame, truth = Frame(texture(2), CAMERA), keyframe(2).map_T_camera
        localizer = Localizer(walls, create("sift"), LocalizerSettings(gates=Gates(min_agreeing_keyframes=1)))
        walls.pose_noise = PoseNoise(0.01, 0.01, found_elsewhere=0.5)
        try:
            alone = localizer.localize(frame)
            assert alone.reason is Reason.AMBIGUOUS_MAP and "50% of the map's own keyframes" in alone.detail
            assert localizer.localize(frame, PosePrior(truth)).localized
            assert localizer.localize(frame, PosePrior(truth, 0.0, 0.0)).localized  # no pose is found that exactly
            elsewhere = PosePrior(se3.exp([5.0, 0, 0, 0, 0, 0]) @ truth)
            assert localizer.localize(frame, elsewhere).reason is Reason.AMBIGUOUS_MAP
        finally:
            walls.pose_noise = None


class TestNoiseOfAMap:
    """The fit finds what errors were drawn from."""

    @staticmethod
    def drawn(count: int, scale: float, position: float, rotation: float) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(5)
        sizes = np.exp(rng.normal(0, 0.7, count))
        of_matches = np.stack([size**2 * np.diag([2.5e-5] * 3 + [1.6e-5] * 3) for size in sizes])
        covariance = scale * of_matches + np.diag([position**2] * 3 + [rotation**2] * 3)
        return np.stack([rng.multivariate_normal(np.zeros(6), C) for C in covariance]), of_matches

    @pytest.mark.parametrize(
        ("scale", "position", "rotation"), [(1.0, 0.02, 0.01), (0.5, 1e-4, 1e-4), (4.0, 0.001, 0.001)]
    )
    def test_errors_fill_the_ellipsoids(self, scale: float, position: float, rotation: float) -> None:
        noise = fit_noise(*self.drawn(40, scale, position, rotation), 2.5)
        errors, of_matches = self.drawn(1000, scale, position, rotation)
        covariance = noise.match_scale * of_matches + map_covariance(noise)
        normalised = np.einsum("ni,ni->n", errors, np.linalg.solve(covariance, errors[..., None])[..., 0])
        assert 0.8 < np.mean(normalised <= chi2.ppf(0.9, 6)) < 0.98

    def test_shared_noise_is_told_from_that_of_matches(self) -> None:
        shared = fit_noise(*self.drawn(400, 0.2, 0.03, 0.02), 2.5)
        assert shared.position_m == pytest.approx(0.03, rel=0.2) and shared.rotation_rad == pytest.approx(0.02, rel=0.2)
        alone = fit_noise(*self.drawn(400, 3.0, 1e-5, 1e-5), 2.5)
        assert alone.match_scale == pytest.approx(3.0, rel=0.3) and alone.position_m < 0.003


def test_what_a_lens_draws_together_is_trusted_less() -> None:
    fisheye = replace(CAMERA, model="equidistant", D=np.zeros(4))
    xy = fisheye.project(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
    xy[2] = 4000.0  # beyond half a turn: no ray
    found = Correspondences(
        ("k",), (Matches(xy, xy, np.ones((3, 3)), np.ones(3)),), xy, np.ones((3, 3)), np.ones(3), np.zeros(3, np.int64)
    )
    ideal, seen = found.seen_by(fisheye)
    np.testing.assert_allclose(ideal, [[0, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(seen.weights, [1, 0.5 * np.pi / 4], rtol=1e-3)  # cos^2 t * t / tan t at 45 degrees
    assert len(seen.matches[0]) == 2 and (found.seen_by(CAMERA)[1].weights == 1).all()
