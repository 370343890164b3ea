"""Focal length, pose and scale from pointmaps: golden numbers, and cases whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_cases import COMPACT, SHARED, case, needs_shared
from scipy.spatial.transform import Rotation

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import SolverSettings, solve_pose
from mast3r_ros.geometry.pointmap import (
    estimate_focal,
    lower_median,
    points_from_depth,
    pose_and_focal_from_pointmap,
    pose_from_pointmap,
)
from mast3r_ros.geometry.scale import metric_scale_from_depth
from mast3r_ros.geometry.similarity import fit_similarity

FOLDERS = [COMPACT / "geometry", pytest.param(SHARED / "geometry", marks=needs_shared)]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("number", range(5))
def test_golden_focal(folder: Path, number: int) -> None:
    golden = case(folder / "focal.npz")
    prefix, rtol = f"set{number}_", 1e-3 if number == 3 else 1e-4
    for k, pts3d in enumerate(golden[f"{prefix}pts3d"]):
        for method in ("median", "weiszfeld"):
            off_centre = golden[f"{prefix}off_pp"][k]
            estimates = {
                method: estimate_focal(pts3d, method=method),
                f"{method}_off_pp": estimate_focal(pts3d, off_centre, method),
                f"{method}_clip": estimate_focal(pts3d, method=method, limits=(0.5, 1.5)),
            }
            for name, estimate in estimates.items():
                assert estimate == pytest.approx(golden[prefix + name][k], rel=rtol), (k, name)
    first = estimate_focal(golden[f"{prefix}pts3d"][0])
    assert first == pytest.approx(golden[f"{prefix}estimate_focal"][0], rel=rtol)


def errors(pose: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.array(se3.pose_error(pose, truth))


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("number", range(3))
def test_golden_pose(folder: Path, number: int) -> None:
    """Exact for the noise-free set; on noisy ones (random sampling) no worse than the golden result."""
    golden = {k.removeprefix(f"set{number}_"): v for k, v in case(folder / "pnp.npz").items() if f"set{number}_" in k}
    pts3d, valid, truth = golden["pts3d"], golden["mask"], golden["gt_cam2world"]
    focal, (height, width) = float(golden["focal"][0]), pts3d.shape[:2]
    known = pose_from_pointmap(pts3d, focal, valid=valid, rounds=10)
    off = pose_from_pointmap(pts3d, focal, (width / 2 + 0.5, height / 2 - 0.5), valid, rounds=100)
    strict = pose_from_pointmap(pts3d, focal, valid=valid, threshold_px=2, rounds=10_000)
    y, x = np.nonzero(valid)
    ideal = (np.stack([x, y], axis=-1) - [width / 2, height / 2]) / focal
    robust = solve_pose(ideal, pts3d[valid].astype(float), np.ones(len(x)), focal, SolverSettings(threshold_px=2))
    assert known and off and strict and robust
    found = {
        "known_focal": known.world_T_camera,
        "offpp": off.world_T_camera,
        "visloc_cv2": strict.world_T_camera,
        "visloc_poselib": robust.map_T_camera,
    }
    for name, pose in found.items():
        expected = golden[f"{name}_pose"].astype(np.float64)
        if number == 0:
            np.testing.assert_allclose(pose, expected, atol=1e-3, err_msg=name)
        else:
            limit = 1.5 * errors(se3.orthonormalised(expected), truth) + [2e-3, 0.05]
            assert (errors(pose, truth) <= limit).all(), (name, errors(pose, truth), limit)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("number", range(3))
def test_golden_unknown_focal(folder: Path, number: int) -> None:
    golden = case(folder / "pnp.npz")
    found = pose_and_focal_from_pointmap(golden[f"set{number}_pts3d"], valid=golden[f"set{number}_mask"])
    assert found is not None
    assert found.focal_px == pytest.approx(float(golden[f"set{number}_unknown_focal"][0]), rel=0.1)


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden_helpers(folder: Path) -> None:
    golden = case(folder / "helpers.npz")
    for k in range(3):
        points = points_from_depth(golden["depth"][k], 19)
        np.testing.assert_allclose(points, golden["dm_to_pts3d"][k], rtol=1e-4, atol=1e-6)
        points = points_from_depth(golden["depth"][k], (19, 20.9), golden["pp_used"][k])
        np.testing.assert_allclose(points, golden["dm_to_pts3d_pp"][k], rtol=1e-4, atol=1e-6)
        moved = se3.apply(golden["trf"][k].astype(np.float64), golden["a"][k])
        np.testing.assert_allclose(moved, golden["geotrf_a"][k], rtol=1e-4, atol=1e-5)
    K = golden["K"]
    in_camera = points_from_depth(golden["depth"][0], (K[0, 0], K[1, 1]), K[:2, 2])
    in_world = se3.apply(golden["trf"][0].astype(np.float64), in_camera)
    np.testing.assert_allclose(in_world, golden["dm_abs"], rtol=1e-4, atol=1e-5)
    fit = fit_similarity(golden["rigid_src"], golden["rigid_dst"], golden["rigid_conf"])
    assert fit.scale == pytest.approx(golden["rigid_s"][0], rel=1e-4)
    np.testing.assert_allclose(fit.R, golden["rigid_R"], atol=1e-4)
    np.testing.assert_allclose(fit.t, golden["rigid_T"], rtol=1e-4)


def seen_from(focal: float, world_T_camera: np.ndarray, height: int = 48, width: int = 64) -> np.ndarray:
    """A wavy surface as a pointmap in world coordinates, principal point (W / 2, H / 2)."""
    y, x = np.mgrid[:height, :width]
    depth = 3 + np.sin(x / 9) + np.cos(y / 7)
    return se3.apply(world_T_camera, points_from_depth(depth, focal, (width / 2, height / 2)))


def test_an_exact_pointmap_gives_its_focal_length() -> None:
    pts3d = seen_from(70, np.eye(4))
    assert estimate_focal(pts3d) == pytest.approx(70, rel=1e-6)
    assert estimate_focal(pts3d, method="median") == pytest.approx(70, rel=1e-9)
    assert estimate_focal(3 * pts3d, limits=(0, 0.5)) == pytest.approx(0.5 * 64 / 1.1547005, rel=1e-6)
    assert estimate_focal(np.zeros((4, 4, 3))) == 0
    with pytest.raises(ValueError, match="focal estimator 'mean'"):
        estimate_focal(pts3d, method="mean")


def test_an_exact_pointmap_gives_its_pose() -> None:
    truth = se3.make(Rotation.from_rotvec([0.3, -0.2, 0.1]).as_matrix(), [1, -2, 0.5])
    pts3d = seen_from(70, truth)
    found = pose_from_pointmap(pts3d, 70)
    assert found is not None and found.inliers == 48 * 64
    np.testing.assert_allclose(found.world_T_camera, truth, atol=1e-6)
    pts3d[0, 0] = np.nan
    again = pose_from_pointmap(pts3d, 70)
    assert again is not None and again.inliers == 48 * 64 - 1
    assert pose_from_pointmap(pts3d, 70, valid=np.zeros((48, 64), dtype=bool)) is None
    assert pose_and_focal_from_pointmap(np.full((8, 8, 3), np.nan)) is None


def test_lower_median() -> None:
    assert lower_median(np.array([4.0, np.nan, 1, 3, 2])) == 2
    assert lower_median(np.array([np.inf, 1, 2])) == 2
    assert np.isnan(lower_median(np.array([np.nan])))


def test_similarity_is_no_mirror_image() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(50, 3))
    fit = fit_similarity(source, source * [1, 1, -1])
    assert np.linalg.det(fit.R) == pytest.approx(1)
    truth = Rotation.from_rotvec([1, 2, 0.5]).as_matrix()
    fit = fit_similarity(source, 2.5 * source @ truth.T + [1, 2, 3])
    assert fit.scale == pytest.approx(2.5)
    np.testing.assert_allclose(fit.R, truth, atol=1e-12)
    np.testing.assert_allclose(fit.t, [1, 2, 3])


def test_scale_from_measured_depth() -> None:
    rng = np.random.default_rng(1)
    predicted = rng.uniform(1, 5, (40, 50))
    measured = predicted * 1.8 * rng.normal(1, 0.02, predicted.shape)
    measured[:5] = 0
    measured[5:12] = 30
    scale = metric_scale_from_depth(predicted, measured)
    assert scale is not None
    assert scale.factor == pytest.approx(1.8, rel=0.02)
    assert 0.01 < scale.spread < 0.04
    assert scale.count == 35 * 50
    trusted = metric_scale_from_depth(predicted, measured, (measured < 20).astype(float))
    assert trusted is not None and trusted.factor == pytest.approx(1.8, rel=0.002)
    assert metric_scale_from_depth(predicted, np.zeros_like(measured)) is None
