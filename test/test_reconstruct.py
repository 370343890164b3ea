"""`mast3r_ros reconstruct`: photos and videos of a box to cameras, points and maps; and what cannot be done."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import photo_worlds
import pytest
from command_line import separate_runner
from PIL import Image
from scipy.special import ndtri

from mast3r_ros.cli.main import app
from mast3r_ros.errors import MapError, UserError
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter
from mast3r_ros.io.datasets.colmap import Colmap
from mast3r_ros.lab.datasets.ply import read_ply
from mast3r_ros.lab.metrics.trajectories import absolute_errors, align_trajectory
from mast3r_ros.lab.speed.reconstruct_benchmark import ReconstructBenchmark, reconstruct_hall
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.rescale import is_metric
from mast3r_ros.matching.sift import SiftMatcher
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.scale import from_odometry
from mast3r_ros.pipeline import Relocalizer

NAMES = ("images", "registered", "components", "scale", "scale_interval", "seconds", "peak_memory_mib")


def run(*words: object) -> tuple[dict[str, Any], str]:
    """What the command prints as JSON, and what it tells people."""
    result = separate_runner().invoke(app, ["reconstruct", *map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert set(NAMES) <= set(facts)
    return facts, result.stderr


def failing(*words: object) -> str:
    """The sentence that the command ends with."""
    with pytest.raises(UserError) as error:
        separate_runner().invoke(app, ["reconstruct", *map(str, words)], catch_exceptions=False)
    return str(error.value)


def errors(model: Path, truth: dict[str, np.ndarray], alignment: str) -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees of a COLMAP model's cameras after alignment."""
    found = Colmap(model, images=model, use_depth=False).cameras_and_poses()
    estimate = np.array([pose for _, pose in found.values()])
    true = np.array([truth[name] for name in found])
    return absolute_errors(align_trajectory(estimate, true, alignment), true)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with images/, intrinsics.txt and poses.txt; and the poses."""
    folder = tmp_path_factory.mktemp("photos")
    truth = photo_worlds.photograph(folder / "images", photo_worlds.arc(6))
    (folder / "intrinsics.txt").write_text(photo_worlds.INTRINSICS)
    photo_worlds.write_poses(folder / "poses.txt", dict(list(truth.items())[::2]))
    return folder, truth


@pytest.fixture(scope="module")
def scene(photos: tuple[Path, dict[str, np.ndarray]]) -> tuple[Path, dict[str, Any], str]:
    """The reconstruction of these photos alone."""
    folder = photos[0]
    facts, told = run(folder / "images", "-o", folder / "scene", "--intrinsics", folder / "intrinsics.txt")
    return folder / "scene", facts, told


def test_photos_alone_give_cameras_up_to_scale(scene: Any, photos: Any) -> None:
    folder, facts, told = scene
    assert (facts["images"], facts["registered"], facts["components"]) == (6, 6, 1)
    assert facts["scale"] is None and facts["scale_interval"] is None and "scale is unknown" in told
    metres, degrees = errors(folder / "sparse" / "0", photos[1], "sim3")
    assert np.median(metres) < 0.01 and metres.max() < 0.03 and degrees.max() < 0.3
    assert len(read_ply(folder / "cloud.ply")) == facts["points"] > 200
    pictures = ["plan.png"] + ["recording.rrd"] * (find_spec("rerun") is not None)
    assert facts["pictures"] == pictures and all((folder / name).stat().st_size > 10_000 for name in pictures)
    keyframes = KeyframeMap.load(folder / "map")
    assert len(keyframes) == 6 and all(keyframe.has_depth for keyframe in keyframes.keyframes)


def test_a_map_without_a_scale_is_not_used_until_it_has_one(scene: Any, photos: Any, tmp_path: Path) -> None:
    keyframes = KeyframeMap.load(scene[0] / "map")
    assert not is_metric(keyframes)
    with pytest.raises(MapError, match="map scale"):
        Relocalizer(keyframes, SiftMatcher())
    shutil.copytree(scene[0] / "map", tmp_path / "map")
    length = np.linalg.norm(photos[1]["view_00.jpg"][:3, 3] - photos[1]["view_05.jpg"][:3, 3])
    words = ["map", "scale", str(tmp_path / "map"), "--known-length", "view_00", "view_05", f"{length:.6f}"]
    assert separate_runner().invoke(app, words, catch_exceptions=False).exit_code == 0
    scaled = KeyframeMap.load(tmp_path / "map")
    gap = scaled["view_00"].map_T_camera[:3, 3] - scaled["view_05"].map_T_camera[:3, 3]
    assert np.linalg.norm(gap) == pytest.approx(length, rel=1e-6) and is_metric(scaled)
    assert scaled.scene_depth_m == pytest.approx(2.5, abs=1.0)  # points were scaled as well
    answer = Relocalizer(scaled, SiftMatcher()).localize(
        photo_worlds.see(photo_worlds.arc(6)[3] @ se3.exp([0.05, 0, 0.05, 0, 0.03, 0])), photo_worlds.CAMERA
    )
    assert answer.map_T_camera is not None
    expected = scaled["view_03"].map_T_camera @ se3.exp([0.05, 0, 0.05, 0, 0.03, 0])
    assert se3.pose_error(answer.map_T_camera, expected)[0] < 0.02


def test_known_poses_give_scale_and_frame(photos: Any) -> None:
    folder, truth = photos
    calibration = ("--intrinsics", folder / "intrinsics.txt")
    facts, _ = run(folder / "images", "-o", folder / "posed", *calibration, "--poses", folder / "poses.txt")
    metres, degrees = errors(folder / "posed" / "sparse" / "0", truth, "none")
    assert metres.max() < 0.03 and degrees.max() < 0.3
    low, high = facts["scale_interval"]
    assert facts["scale"] == 1.0 and low <= 1.0 <= high and high - low < 0.1


def test_photos_whose_poses_are_known_are_reconstructed_without_them(photos: Any, tmp_path: Path) -> None:
    shutil.copytree(photos[0] / "images", tmp_path / "images")
    photo_worlds.write_poses(tmp_path / "poses.txt", photos[1])
    (tmp_path / "intrinsics.txt").write_text(photo_worlds.INTRINSICS)
    words = ["evaluate", "reconstruct", str(tmp_path), "--features", "1500", "--no-colmap", "--json"]
    result = separate_runner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["mast3r_ros"]
    assert found["registered"] == 6 and found["median_position_m"] < 0.02


def test_the_benchmark_of_reconstructions_prints_its_rows() -> None:
    words = ["benchmark", "reconstruct", "-n", "6", "--width", "32", "--neighbours", "5", "--wrong", "0", "--json"]
    result = separate_runner().invoke(app, words, catch_exceptions=False)
    (row,) = json.loads(result.stdout)
    assert row["images"] == row["registered"] == 6 and row["cpu_seconds"] > 0
    assert row["median_m"] < 0.05 * row["hall_m"]


def test_of_too_few_images_that_were_placed_no_error_is_known() -> None:
    row = reconstruct_hall(3, ReconstructBenchmark(width=32, neighbours=2))
    assert row["images"] == 3 and np.isfinite(row["median_m"]) == (row["registered"] > 2)


def test_without_calibration_the_focal_length_is_found(photos: Any, tmp_path: Path) -> None:
    folder, truth = photos
    facts, _ = run(folder / "images", "-o", tmp_path / "scene")
    assert facts["registered"] == 6
    camera = KeyframeMap.load(tmp_path / "scene" / "map").keyframes[0].camera
    assert camera.focal == pytest.approx(260, rel=0.03)  # guessed first: 384
    assert np.median(errors(tmp_path / "scene" / "sparse" / "0", truth, "sim3")[0]) < 0.03


def test_two_places_are_two_components_and_bad_files_are_named(photos: Any, tmp_path: Path) -> None:
    folder, _ = photos
    images = tmp_path / "images"
    shutil.copytree(folder / "images", images)
    other = photo_worlds.arc(5)
    photo_worlds.photograph(images, other, seed=7, prefix="other")
    (images / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    shutil.copy(images / "view_00.jpg", images / "view_00_copy.jpg")
    upright = Image.open(images / "view_01.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    upright.rotate(90, expand=True).save(images / "view_01.jpg", exif=exif, quality=95)
    half = Image.open(images / "view_02.jpg")
    half.resize((240, 180)).save(images / "view_02.jpg", quality=95)
    facts, told = run(images, "-o", tmp_path / "scene")
    assert facts["images"] == 13 and facts["components"] == 2
    first, second = facts["parts"]
    assert all(name.startswith("view") for name in first["images"])
    assert all(name.startswith("other") for name in second["images"]) and second["registered"] >= 4
    assert first["registered"] == 6, told
    assert set(facts["unregistered"]) >= {"broken.jpg", "view_00_copy.jpg"}
    assert "broken.jpg cannot be read" in told and "2 parts" in told
    assert len(KeyframeMap.load(tmp_path / "scene" / "map_1")) == second["registered"]


def test_what_cannot_be_reconstructed_says_why(tmp_path: Path) -> None:
    one = tmp_path / "one"
    photo_worlds.photograph(one, photo_worlds.arc(3)[:1])
    assert "1 of 1 images" in failing(one, "-o", tmp_path / "scene")
    shutil.copy(one / "view_00.jpg", one / "again.jpg")
    assert "same picture" in failing(one, "-o", tmp_path / "scene")
    turning = tmp_path / "turning"
    start = photo_worlds.arc(3)[1]
    photo_worlds.photograph(turning, [start @ se3.exp([0, 0, 0, 0, a, 0]) for a in np.linspace(-0.3, 0.3, 5)])
    (tmp_path / "intrinsics.txt").write_text(photo_worlds.INTRINSICS)
    calibration = ("--intrinsics", tmp_path / "intrinsics.txt")
    assert "turned on the spot" in failing(turning, "-o", tmp_path / "scene", *calibration)
    apart = tmp_path / "apart"
    photo_worlds.photograph(apart, photo_worlds.arc(3)[:1], seed=1, prefix="a")
    photo_worlds.photograph(apart, photo_worlds.arc(3)[:1], seed=2, prefix="b")
    assert "shows the same as another" in failing(apart, "-o", tmp_path / "scene")
    film = tmp_path / "film.mp4"
    film.write_bytes(b"nothing that moves" * 100)
    assert "no frame can be decoded" in failing(film, "-o", tmp_path / "scene")
    assert "is no folder" in failing(tmp_path / "missing", "-o", tmp_path / "scene")
    assert "no image 'nowhere.jpg'" in failing(
        turning, "-o", tmp_path / "scene", "--known-length", "view_00.jpg", "nowhere.jpg", 1
    )
    assert not (tmp_path / "scene").exists()
    assert "lies in" in failing(one, "-o", tmp_path / "one")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "reconstruction.json").write_text("{}")
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    assert "diary.txt" in failing(one, "-o", tmp_path / "notes")


def test_a_video_is_thinned_to_sharp_frames(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"  # MPEG-4: most frames hold only what differs from the one before
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"mp4v"), 30, (320, 240))
    for number, pose in enumerate(photo_worlds.arc(60)):
        image = photo_worlds.see(pose)
        writer.write(cv2.GaussianBlur(image, (0, 0), 4)[..., ::-1] if number % 3 else image[..., ::-1])
    writer.release()
    (tmp_path / "intrinsics.txt").write_text(photo_worlds.INTRINSICS)
    facts, _ = run(film, "-o", tmp_path / "scene", "--intrinsics", tmp_path / "intrinsics.txt")
    frames = sorted((tmp_path / "scene" / "images").iterdir())
    assert 6 <= len(frames) <= 30 and facts["registered"] == len(frames) == facts["images"]
    sharp = [int(frame.stem.split("_")[1]) % 3 == 0 for frame in frames]
    assert np.mean(sharp) > 0.8
    truth = {f"frame_{number:06d}.jpg": pose for number, pose in enumerate(photo_worlds.arc(60))}
    assert np.median(errors(tmp_path / "scene" / "sparse" / "0", truth, "sim3")[0]) < 0.02


def test_pycolmap_reads_the_model_and_can_map(scene: Any, photos: Any, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    read = pycolmap.Reconstruction(str(scene[0] / "sparse" / "0"))
    assert read.num_reg_images() == 6 and read.compute_mean_reprojection_error() < 1.0
    folder, truth = photos
    calibration = ("--intrinsics", folder / "intrinsics.txt")
    facts, _ = run(folder / "images", "-o", tmp_path / "scene", *calibration, "--mapper", "pycolmap")
    assert facts["registered"] == 6
    assert np.median(errors(tmp_path / "scene" / "sparse" / "0", truth, "sim3")[0]) < 0.02


def test_odometry_tells_the_scale_with_an_interval(tmp_path: Path) -> None:
    base_T_camera = se3.make([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0.2, 0.0, 0.5])
    poses = photo_worlds.arc(20)
    with BagWriter(tmp_path / "bag") as bag:
        bag.transform("base_link", "camera", base_T_camera, 0, static=True)
        for step, pose in enumerate(poses):
            drifting = se3.exp([0.1, 0.2, 0, 0, 0, 0.4 + 0.004 * step]) @ pose  # one tenth of a degree each
            stamp = (step + 1) * 10**8
            bag.transform("odom", "base_link", drifting @ se3.inverse(base_T_camera), stamp)
            bag.image("/camera/image_raw", photo_worlds.see(pose), stamp, "camera")
            bag.camera_info("/camera/camera_info", photo_worlds.CAMERA, stamp, "camera")
    facts, _ = run(tmp_path / "bag", "-o", tmp_path / "scene", "--odometry")
    truth = {f"frame_{number:06d}.jpg": pose for number, pose in enumerate(poses)}
    assert facts["registered"] == facts["images"] >= 6
    metres, _ = errors(tmp_path / "scene" / "sparse" / "0", truth, "se3")
    assert metres.max() < 0.05  # a scale that is wrong by 3 % would show: the bow is 1.8 m long
    low, high = facts["scale_interval"]
    assert facts["scale_origin"] == "odometry" and 0.9 < low < 0.98 and 1.02 < high < 1.1
    assert is_metric(KeyframeMap.load(tmp_path / "scene" / "map"))


def test_scales_from_odometry_hold_the_truth() -> None:
    outside, worst = 0, 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        path = np.cumsum(rng.normal(0.1, 0.05, (60, 3)) * [1, 1, 0.1], axis=0)
        true = {n: se3.make(np.eye(3), place) for n, place in enumerate(path)}
        # One per cent of error of the wheels, each part of the distribution once; and slip of every step.
        wheels, slip = 1 + 0.01 * ndtri((seed + 0.5) / 20), 1 + 0.02 * rng.standard_normal((59, 1))
        driven = np.concatenate([path[:1], path[0] + np.cumsum(np.diff(path, axis=0) * wheels * slip, axis=0)])
        odometry = {n: se3.make(np.eye(3), place) for n, place in enumerate(driven)}
        empty = np.zeros(0, np.int64)
        units = {n: se3.make(np.eye(3), pose[:3, 3] / 7) for n, pose in true.items()}
        model = Model({}, units, np.zeros((0, 3)), np.zeros(0), empty, empty, empty, np.zeros((0, 2)))
        scale = from_odometry(model, odometry, "odometry")
        assert scale is not None
        low, high = scale.interval
        outside += not low <= 7 <= high
        worst = max(worst, abs(scale.factor / 7 - 1))
    assert outside <= 1 and worst < 0.025
