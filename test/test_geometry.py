"""Cameras, distortion, rigid motions, pose solvers."""

import numpy as np
import pytest

from mast3r_ros.errors import CalibrationError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import absolute_pose, reprojection, se3
from mast3r_ros.geometry.absolute_pose import SolverSettings, solve_pose
from mast3r_ros.geometry.spread import well_spread
from mast3r_ros.geometry.unknown_focal import solve_pose_and_focal
from mast3r_ros.registration import register_depth

K = np.array([[500.0, 0, 320], [0, 510.0, 240], [0, 0, 1]])
MODELS = {
    "none": [],
    "plumb_bob": [-0.28, 0.09, 0.001, -0.0005, -0.01],
    "rational_polynomial": [0.5, -0.1, 0.0003, -0.0001, 0.01, 0.8, -0.15, 0.02],
    "equidistant": [0.02, -0.01, 0.004, -0.001],
}


def scene(rng, count=300):
    """A random pose and points two to five metres in front of it, with their ideal image coordinates."""
    map_T_camera = se3.exp(rng.normal(size=6))
    in_camera = rng.uniform([-1.5, -1, 2], [1.5, 1, 5], size=(count, 3))
    return map_T_camera, se3.apply(map_T_camera, in_camera), in_camera[:, :2] / in_camera[:, 2:]


@pytest.mark.parametrize("model", MODELS)
def test_rays_invert_projection(model):
    camera = Camera(640, 480, K, model, np.array(MODELS[model]))
    xy = np.random.default_rng(0).uniform([0, 0], [639, 479], size=(500, 2))
    rays = camera.rays(xy)
    assert np.isfinite(rays).all()
    back = camera.project(np.concatenate([rays, np.ones((500, 1))], axis=1) * 2.5)
    np.testing.assert_allclose(back, xy, atol=1e-3)


def test_pixels_beyond_the_lens_have_no_ray():
    strong = Camera(
        640, 480, np.array([[250.0, 0, 320], [0, 250, 240], [0, 0, 1]]), "plumb_bob", np.array([-0.5, 0, 0, 0])
    )
    rays = strong.rays(np.array([[320.0, 240.0], [0.0, 0.0]]))
    assert np.isfinite(rays[0]).all() and np.isnan(rays[1]).all()


def test_zero_coefficients_mean_no_distortion_except_for_fisheyes():
    assert Camera(640, 480, K, "plumb_bob", np.zeros(5)).model == "none"
    assert Camera(640, 480, K, "equidistant", np.zeros(4)).model == "equidistant"


@pytest.mark.parametrize(
    ("model", "D", "K_bad", "names"),
    [
        ("double_sphere", [1.0], K, "double_sphere"),
        ("plumb_bob", [0.1, 0.2], K, "4 or 5"),
        ("none", [], np.full((3, 3), np.nan), "NaN"),
        ("none", [], np.zeros((3, 3)), "positive"),
    ],
)
def test_impossible_calibrations_are_refused(model, D, K_bad, names):
    with pytest.raises(CalibrationError, match=names):
        Camera(640, 480, K_bad, model, np.array(D))


def test_resizing_keeps_rays():
    camera = Camera(640, 480, K, "plumb_bob", np.array(MODELS["plumb_bob"]))
    half = camera.resized(320, 240)
    xy = np.array([[100.0, 50.0], [600.0, 400.0]])
    np.testing.assert_allclose(half.rays((xy + 0.5) / 2 - 0.5), camera.rays(xy), atol=1e-9)


def test_frames_refuse_what_does_not_belong_together():
    image = np.zeros((480, 640, 3), np.uint8)
    with pytest.raises(CalibrationError, match="320x240"):
        Frame(image, Camera(320, 240, K))
    with pytest.raises(CalibrationError, match="registered"):
        Frame(image, depth=np.ones((240, 320), np.float32))


def test_registered_depth_is_where_the_colour_camera_sees_it():
    depth_camera = Camera.pinhole(160, 120, 140, 140, 80, 60)
    colour = Camera.pinhole(160, 120, 120, 120, 80, 60)
    colour_T_depth = se3.make(np.eye(3), [-0.05, 0, 0])
    depth = np.full((120, 160), 2.0)
    depth[40:80, 60:100] = 1.0
    registered = register_depth(depth, depth_camera, colour, colour_T_depth)
    points = depth_camera.backproject(depth)[60, 80] + [-0.05, 0, 0]
    u, v = np.rint(colour.project(points[None])[0]).astype(int)
    assert registered[v, u] == pytest.approx(1.0)
    assert set(np.unique(registered)) == {0.0, 1.0, 2.0}


def test_rigid_motions_compose_and_invert():
    rng = np.random.default_rng(1)
    T = se3.exp(rng.normal(size=6))
    np.testing.assert_allclose(se3.inverse(T) @ T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(se3.exp(se3.log(T)), T, atol=1e-12)
    np.testing.assert_allclose(se3.from_quaternion(T[:3, 3], 3 * se3.quaternion(T)), T, atol=1e-12)
    np.testing.assert_allclose(se3.interpolate(np.eye(4), T, 1.0), T, atol=1e-12)
    assert se3.angle(se3.interpolate(np.eye(4), T, 0.25)) == pytest.approx(se3.angle(T) / 4)
    with pytest.raises(ValueError, match="zero"):
        se3.from_quaternion([0, 0, 0], [0, 0, 0, 0])


def test_pose_is_found_among_wrong_matches():
    rng = np.random.default_rng(2)
    truth, points, ideal = scene(rng)
    ideal[:120] += rng.normal(size=(120, 2))
    ideal += rng.normal(size=ideal.shape) / 500
    pose = solve_pose(ideal, points, np.ones(300), 500.0)
    metres, degrees = se3.pose_error(pose.map_T_camera, truth)
    assert metres < 0.01 and degrees < 0.2
    assert 160 <= pose.inlier.sum() <= 190


def test_the_same_matches_give_the_same_pose():
    rng = np.random.default_rng(3)
    _, points, ideal = scene(rng)
    ideal[:200] = rng.normal(size=(200, 2))
    first, second = (solve_pose(ideal, points, np.ones(300), 500.0) for _ in range(2))
    np.testing.assert_array_equal(first.camera_T_map, second.camera_T_map)


def cost_after(state, problem, pose, twist):
    """Half the cost where a twist of the camera in its own axes leads."""
    further = reprojection.moved(pose, reprojection.turned(pose, twist))
    return reprojection.residuals_at(further, problem, state.variance).cost / 2


def test_the_model_of_the_cost_matches_finite_differences():
    rng = np.random.default_rng(4)
    truth, points, ideal = scene(rng, 50)
    ideal += rng.normal(size=ideal.shape) / 500
    problem = reprojection.MatchedPoints.of(ideal, points, rng.uniform(0.2, 1, 50), 500.0, SolverSettings())
    state = reprojection.residuals_at(truth, problem)
    gradient = 500.0 * (state.pulls @ state.robust)
    rows, jacobian = [], []
    for axis in range(6):
        step = np.zeros(6)
        step[axis] = 1e-6
        rows.append((cost_after(state, problem, truth, step) - cost_after(state, problem, truth, -step)) / 2e-6)
        ahead, behind = (
            reprojection.residuals_at(reprojection.moved(truth, reprojection.turned(truth, s)), problem)
            for s in (step, -step)
        )
        jacobian.append(np.stack([ahead.u - behind.u, ahead.v - behind.v]) / 2e-6)
    np.testing.assert_allclose(gradient, rows, rtol=1e-4, atol=1e-4)
    expected = np.einsum("icn,jcn,n->ij", jacobian, jacobian, state.robust)
    hessian = reprojection.gauss_newton(state, 500.0)
    np.testing.assert_allclose(hessian, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    in_map = np.kron(np.eye(2), truth[:3, :3]) @ gradient
    pose = absolute_pose.pose_at(truth, ideal, points, problem.weights, 500.0, SolverSettings())
    np.testing.assert_allclose(pose.pulls.sum(axis=0), in_map, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("noise_px", [1.0, 6.0])
def test_few_rounds_find_the_least_cost_however_large_the_noise(noise_px):
    """Gauss and Newton's steps are too short where residuals are larger than assumed: 12 of them stop on the way."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        _, points, ideal = scene(rng, 400)
        ideal += noise_px * rng.normal(size=ideal.shape) / 500
        settings = SolverSettings(threshold_px=8.0, point_sigma_m=0.0)
        matches = ideal, points, np.ones(400), 500.0, settings
        pose = solve_pose(*matches)
        further = absolute_pose.refine_pose(pose.map_T_camera, *matches, iterations=100)
        for _ in range(5):
            further = absolute_pose.refine_pose(further.map_T_camera, *matches, iterations=100)
        assert pose.cost - further.cost < 0.7  # a standard deviation is 1


def test_a_point_beside_the_camera_spoils_nothing():
    rng = np.random.default_rng(8)
    truth, points, ideal = scene(rng, 100)
    ideal += rng.normal(size=ideal.shape) / 1000
    clean = absolute_pose.refine_pose(truth, ideal, points, np.ones(100), 500.0)
    beside = np.stack([truth[:3, 3], truth[:3, 3] + truth[:3, 0], truth[:3, 3] - truth[:3, 2]])
    with np.errstate(all="raise"):
        pose = absolute_pose.refine_pose(
            truth, np.r_[ideal, np.zeros((3, 2))], np.r_[points, beside], np.ones(103), 500.0
        )
    np.testing.assert_allclose(pose.camera_T_map, clean.camera_T_map, atol=1e-9)
    assert not pose.inlier[100:].any() and np.isinf(pose.residual_px[100:]).all()


@pytest.mark.parametrize("reach", [0.8, 8.0])  # 77 and 166 degrees
def test_the_most_trusted_of_every_part_come_first(reach):
    rng = np.random.default_rng(9)
    ideal, weights = rng.uniform(-reach, reach, (3000, 2)), rng.uniform(0.01, 1.8, 3000)
    rows = well_spread(ideal, weights, 96)
    bent = ideal / np.sqrt(1 + np.square(ideal).sum(axis=1, keepdims=True))
    part = ((bent - bent.min(axis=0)) / np.ptp(bent, axis=0) * [8, 6]).astype(int).clip(0, [7, 5]) @ [1, 8]
    there = len(set(part.tolist()))
    assert len(set(rows.tolist())) == 96 and len(set(part[rows[:there]].tolist())) == there
    for row in rows[:there]:
        assert weights[row] == weights[part == part[row]].max()
    np.testing.assert_array_equal(well_spread(ideal[:5], weights[:5], 96), np.argsort(-weights[:5]))


def test_few_right_matches_among_many_are_found():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth, points, ideal = scene(rng, 1500)
        ideal += rng.normal(size=ideal.shape) / 500
        wrong = rng.random(1500) < 0.8
        ideal[wrong] = rng.uniform(ideal.min(axis=0), ideal.max(axis=0), (int(wrong.sum()), 2))
        pose = solve_pose(ideal, points, np.ones(1500), 500.0)
        metres, degrees = se3.pose_error(pose.map_T_camera, truth)
        assert metres < 0.03 and degrees < 0.5, seed


def test_covariance_predicts_the_error_of_gaussian_noise():
    """200 noisy solutions of one scene: squared Mahalanobis errors average to six degrees of freedom."""
    rng = np.random.default_rng(5)
    truth, points, ideal = scene(rng, 150)
    settings = SolverSettings(pixel_sigma_px=1.0, point_sigma_m=0.0, threshold_px=20.0)
    squared = []
    for _ in range(200):
        noisy = ideal + rng.normal(size=ideal.shape) / 500
        pose = absolute_pose.refine_pose(truth, noisy, points, np.ones(150), 500.0, settings)
        step = np.r_[
            pose.map_T_camera[:3, 3] - truth[:3, 3],
            se3.log(se3.make(pose.map_T_camera[:3, :3] @ truth[:3, :3].T, np.zeros(3)))[3:],
        ]
        squared.append(step @ pose.information @ step)
    # Cauchy weights undervalue Gaussian residuals by a factor of about two, on the safe side.
    assert 2.0 < np.mean(squared) < 6.5


def test_too_few_or_impossible_matches_give_no_pose():
    rng = np.random.default_rng(6)
    _, points, ideal = scene(rng, 3)
    assert solve_pose(ideal, points, np.ones(3), 500.0) is None
    assert solve_pose(np.zeros((20, 2)), np.zeros((20, 3)), np.ones(20), 500.0) is None


@pytest.mark.parametrize("focal", [300.0, 525.0, 1400.0])
def test_unknown_focal_length_is_found(focal):
    rng = np.random.default_rng(7)
    truth = se3.exp(rng.normal(size=6))
    xy = rng.uniform([-320, -240], [320, 240], size=(200, 2))
    z = rng.uniform(2, 6, size=(200, 1))
    points = se3.apply(truth, np.concatenate([xy / focal * z, z], axis=1))
    noisy = xy + rng.normal(size=xy.shape) * 0.5
    noisy[:50] = rng.uniform([-320, -240], [320, 240], size=(50, 2))
    pose = solve_pose_and_focal(noisy, points, np.ones(200), 640)
    assert pose.focal_px == pytest.approx(focal, rel=0.04)  # a long lens sees little perspective
    assert se3.pose_error(pose.map_T_camera, truth)[0] < 0.04 * 4  # the focal error moves the camera along its axis
