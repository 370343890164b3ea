"""Many images by a network's pointmaps: graphs of similarities, both alignments, and what an interruption leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import oracle_pairs
import photo_worlds
import pytest
import torch
from command_line import separate_runner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.lab.datasets.ply import read_ply
from mast3r_ros.lab.metrics.trajectories import absolute_errors, align_trajectory
from mast3r_ros.lab.synthetic.pointmap_oracle import Hall, PointmapOracle
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features
from mast3r_ros.matching.pair_maps import PairMaps, ViewPoints
from mast3r_ros.multiview import pair_graph
from mast3r_ros.multiview.canonical import canonical_view
from mast3r_ros.multiview.dense_cloud import fused
from mast3r_ros.multiview.global_placing import chunks
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.pointmap_scene import PointmapInput, PointmapScene, reconstruct_pointmaps
from mast3r_ros.multiview.sim3_graph import SimilarityEdge, join_frames
from mast3r_ros.multiview.sparse_alignment import robust
from mast3r_ros.multiview.work_folder import DescribedImages, WorkFolder

#: The box of the other alignment's test, 7 m across.
SIZE = 2 * float(np.linalg.norm(oracle_pairs.HALF))


def box(count: int, width: int) -> Hall:
    """Cameras all over a box."""
    height = width * 3 // 4
    camera = Camera.pinhole(width, height, 0.81 * width, 0.81 * width, (width - 1) / 2, (height - 1) / 2)
    return Hall(photo_worlds.HALF, camera, np.array(oracle_pairs.places(count)))


def wanted_of(hall: Hall, neighbours: int) -> list[pair_graph.Pair]:
    """Every image with those that see most of what it sees."""
    alike = oracle_pairs.overlaps(list(hall.poses))
    return pair_graph.nearest(np.where(alike > 0.15, alike, -np.inf), neighbours)


def scene_of(
    folder: Path,
    oracle: PointmapOracle,
    method: str,
    calibrated: bool = True,
    memory: int = 1 << 30,
    known: int = 0,
    stereo: bool = False,
    neighbours: int = 5,
) -> PointmapScene:
    """What comes out of all images of the oracle's world."""
    hall = oracle.hall
    work = WorkFolder(folder, oracle.signature)
    described = DescribedImages(work)
    blank = np.zeros((hall.camera.height, hall.camera.width, 3), np.uint8)
    camera = hall.camera
    if not calibrated:
        camera = Camera.pinhole(camera.width, camera.height, 1.4 * camera.fx, 1.4 * camera.fy, camera.cx, camera.cy)
    photos = [
        Photo(f"{n}.png", folder / f"{n}.png", camera, calibrated, "lens", f"image {n}") for n in range(len(hall.poses))
    ]
    for n, photo in enumerate(photos):
        if not described.known(n, photo.digest):
            described.put(n, photo.digest, oracle.describe(Frame(blank, hall.camera, name=photo.name)))
    wanted = wanted_of(hall, neighbours)
    poses = {n: hall.poses[n] for n in range(known)}
    return reconstruct_pointmaps(PointmapInput(work, described, photos, wanted, poses, memory, stereo), oracle, method)


def errors(scene: PointmapScene, hall: Hall, alignment: str = "sim3") -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees of the largest component's cameras."""
    model = scene.models[0]
    found = np.array([model.world_T_camera[n] for n in model.images])
    true = hall.poses[model.images]
    return absolute_errors(align_trajectory(found, true, alignment), true)


def test_twenty_images_by_matches_although_a_tenth_of_the_pairs_is_wrong(tmp_path: Path) -> None:
    oracle = PointmapOracle(box(20, 288), noise=0.01, wrong=0.1, spacing=4)
    scene = scene_of(tmp_path, oracle, "sparse", neighbours=6)
    assert [len(model) for model in scene.models] == [20]
    wanted = wanted_of(oracle.hall, 6)
    lies = {pair for pair in wanted if oracle.lies(*pair)}
    assert len(lies) >= 5 and not lies & set(scene.pairs) and len(scene.pairs) >= len(wanted) - len(lies) - 2
    metres, degrees = errors(scene, oracle.hall)
    assert degrees.max() < 0.2 and metres.max() < 0.002 * SIZE
    metres_for_unit, spread = scene.models[0].metres or (0, 0)
    depth = scene.models[0].depth_of(0).depth * metres_for_unit
    true = se3.apply(se3.inverse(oracle.hall.poses[0]), oracle.hall.surface(0))[..., 2]
    assert np.median(np.abs(depth / true - 1)) < 0.01 and spread < 0.01


def test_focal_length_and_known_poses(tmp_path: Path) -> None:
    oracle = PointmapOracle(box(10, 96), noise=0.01)
    scene = scene_of(tmp_path / "a", oracle, "sparse", calibrated=False)
    model = scene.models[0]
    assert model.cameras[model.images[0]].focal == pytest.approx(oracle.hall.camera.focal, rel=0.02)
    posed = scene_of(tmp_path / "b", oracle, "sparse", known=4).models[0]
    for n in range(4):
        np.testing.assert_allclose(posed.world_T_camera[n], oracle.hall.poses[n], atol=1e-5)
    metres, degrees = absolute_errors(
        np.array([posed.world_T_camera[n] for n in posed.images]), oracle.hall.poses[posed.images]
    )
    assert metres.max() < 0.02 * SIZE and degrees.max() < 1.0


def test_chunks_that_share_images_are_joined(tmp_path: Path) -> None:
    oracle = PointmapOracle(box(12, 48), noise=0.01, metric=False, spacing=4)
    pieces = chunks(range(20), [(i, j) for i in range(20) for j in range(i + 1, min(i + 3, 20))], 8)
    assert len(pieces) > 2 and max(map(len, pieces)) == 8 and set().union(*pieces) == set(range(20))
    assert all(any(a & b for b in pieces if b is not a) for a in pieces)
    scene = scene_of(tmp_path, oracle, "global", memory=7 << 20)
    assert [len(model) for model in scene.models] == [12] and scene.models[0].metres is None
    metres, degrees = errors(scene, oracle.hall)
    assert metres.max() < 0.01 * SIZE and np.median(degrees) < 0.5


def test_stereo_triangulates_what_the_pointmaps_only_guess(tmp_path: Path) -> None:
    hall = replace(box(2, 96), poses=np.array(photo_worlds.arc(5)))
    oracle = PointmapOracle(hall, noise=0.05, spacing=2)
    scene = scene_of(tmp_path, oracle, "sparse", known=5, stereo=True)
    model = scene.models[0]
    off, covered = [], []
    for n in model.images:
        true = se3.apply(se3.inverse(oracle.hall.poses[n]), oracle.hall.surface(n))[..., 2]
        view = model.depth_of(n)
        known = view.depth > 0
        covered.append(known.mean())
        off.append(np.abs(view.depth[known] / true[known] - 1))
    assert np.median(np.concatenate(off)) < 0.02 and np.mean(covered) > 0.1


def test_clouds_are_averaged_without_what_stands_alone_and_have_normals() -> None:
    rng = np.random.default_rng(0)
    plane = np.c_[rng.uniform(-1, 1, (20_000, 2)), rng.normal(0, 0.01, 20_000)]
    alone = np.c_[rng.uniform(-1, 1, (10, 2)), rng.uniform(1, 2, 10)]
    points = np.concatenate([plane, alone])
    red = np.tile(np.array([200, 10, 10], np.uint8), (len(points), 1))
    cloud = fused([(points, red, np.ones(len(points)), np.array([0.0, 0, 5]))] * 2, voxel=0.1)
    assert 300 < len(cloud.points) < 1300 and np.abs(cloud.points[:, 2]).max() < 0.1
    assert (cloud.colours == [200, 10, 10]).all() and np.quantile(cloud.normals[:, 2], 0.05) > 0.95


class Interrupted(PointmapOracle):
    """Stops after so many pairs."""

    left = 10**9

    def predict_pairs(self, first: Features, others: Sequence[Features]) -> list[PairMaps]:
        self.left -= len(others)
        if self.left < 0:
            raise KeyboardInterrupt
        return super().predict_pairs(first, others)


def test_an_interrupted_reconstruction_goes_on(tmp_path: Path) -> None:
    oracle = Interrupted(box(10, 64), noise=0.01, spacing=4)
    oracle.left = 5
    with pytest.raises(KeyboardInterrupt):
        scene_of(tmp_path, oracle, "sparse")
    oracle.left = 10**9
    scene = scene_of(tmp_path, oracle, "sparse")
    predicted = 10**9 - oracle.left
    assert 0 < predicted < len(wanted_of(oracle.hall, 5))  # the others were on disk
    before = oracle.left
    again = scene_of(tmp_path, oracle, "sparse")
    assert oracle.left == before
    np.testing.assert_array_equal(scene.models[0].points, again.models[0].points)


@pytest.mark.smoke
def test_the_robust_loss_is_the_published_one() -> None:
    one = torch.tensor(3.0).sqrt()
    for gamma, expected in ((1.5, 2.91468), (0.5, 0.907853), (1.1, 1.932091)):
        assert float(robust(one, gamma)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.smoke
def test_a_graph_of_similarities_finds_the_frames_although_an_edge_is_wrong() -> None:
    rng = np.random.default_rng(0)
    s, T = np.exp(rng.normal(0, 0.3, 8)), [se3.exp(rng.normal(0, 1, 6)) for _ in range(8)]
    edges = []
    for a, b in [(n, (n + k) % 8) for n in range(8) for k in (1, 2, 3)]:
        R = T[b][:3, :3].T @ T[a][:3, :3]
        t = T[b][:3, :3].T @ (T[a][:3, 3] - T[b][:3, 3]) / s[b]
        edges.append(SimilarityEdge(a, b, Similarity(s[a] / s[b], R, t), 2.0))
    wrong = edges[5].b_T_a
    turned = wrong.R @ se3.exp([0, 0, 0, 0.5, 0.3, 0])[:3, :3]
    edges[5] = replace(edges[5], b_T_a=Similarity(2 * wrong.scale, turned, wrong.t + 1))
    frames = join_frames(8, edges)
    found = align_trajectory(
        np.array([se3.make(*both) for both in zip(frames.R, frames.t, strict=True)]), np.array(T), "sim3"
    )
    metres, degrees = absolute_errors(found, np.array(T))
    assert metres.max() < 0.02 and degrees.max() < 0.3
    np.testing.assert_allclose(frames.s / frames.s[0], s / s[0], rtol=0.01)
    assert frames.turn.argmax() == frames.scale.argmax() == 5
    with pytest.raises(ValueError, match="connect 8 of 9"):
        join_frames(9, edges)


@pytest.mark.smoke
def test_a_canonical_pointmap_is_the_same_in_whatever_unit_its_parts_come() -> None:
    hall = box(3, 64)
    local = se3.apply(se3.inverse(hall.poses[0]), hall.surface(0))
    rng = np.random.default_rng(0)
    views = [ViewPoints(unit * local, 2 + rng.random(local.shape[:2])) for unit in (0.5, 1.0, 2.0)]
    view = canonical_view(views)
    assert view is not None and view.maps == 3
    np.testing.assert_allclose(view.depth, local[..., 2], rtol=1e-4)
    # The principal point of the estimator is half a pixel off the camera's.
    assert view.focal == pytest.approx(hall.camera.focal, rel=0.01)
    y, x = np.mgrid[:48, :64]
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    depth = view.anchors[view.anchor_of(xy)] * view.ratio_of(xy)
    off = np.abs(depth / local[..., 2].ravel() - 1)
    assert np.median(off) < 1e-3 and np.quantile(off, 0.9) < 0.02
    assert canonical_view([ViewPoints(-local, np.ones(local.shape[:2]))]) is None


def test_the_command_takes_the_network_of_the_package(tmp_path: Path) -> None:
    photo_worlds.photograph(tmp_path / "images", photo_worlds.arc(12)[4:7])
    (tmp_path / "intrinsics.txt").write_text(photo_worlds.INTRINSICS)
    words = ["reconstruct", str(tmp_path / "images"), "-o", str(tmp_path / "scene"), "--matcher", "mast3r", "--json"]
    words += ["--intrinsics", str(tmp_path / "intrinsics.txt"), "--device", "cpu"]
    result = separate_runner().invoke(app, words, catch_exceptions=False)
    facts = json.loads(result.stdout)
    assert facts["registered"] == 3 and facts["components"] == 1
    # The small network's metres are not believed on photographs.
    assert facts["scale"] is None and "scale is unknown" in result.stderr
    assert len(read_ply(tmp_path / "scene" / "cloud.ply")) == facts["points"] > 1000
    with np.load(tmp_path / "scene" / "depth" / "view_00.jpg.npz") as depth:
        assert depth["depth"].shape == depth["confidence"].shape == depth["xy"].shape[:2] == (144, 192)
    assert len(KeyframeMap.load(tmp_path / "scene" / "map")) == 3
    assert not list(tmp_path.glob(".scene*"))
    refused = ["reconstruct", str(tmp_path / "images"), "-o", str(tmp_path / "other"), "--dense"]
    with pytest.raises(MatcherError, match="--matcher mast3r"):
        separate_runner().invoke(app, refused, catch_exceptions=False)


def test_depth_of_a_single_image(tmp_path: Path) -> None:
    photo_worlds.photograph(tmp_path, photo_worlds.arc(1))
    image, words = str(tmp_path / "view_00.jpg"), ["--mono", "--json", "-o"]
    result = separate_runner().invoke(app, ["predict", image, *words, str(tmp_path / "a.npz")], catch_exceptions=False)
    facts = json.loads(result.stdout)
    assert 0 < facts["depth_5"] < facts["depth_50"] < facts["depth_95"] and facts["size"] == [192, 144]
    with np.load(tmp_path / "a.npz") as found:
        assert found["points"].shape == (144, 192, 3)
        np.testing.assert_array_equal(found["depth"], found["points"][..., 2])
    assert separate_runner().invoke(app, ["predict", image, *words, str(tmp_path / "a.png")]).exit_code == 0
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (144, 384, 3) and np.abs(picture[:, :192].astype(int) - found_image(image)).mean() < 10
    assert separate_runner().invoke(app, ["predict", image, "-o", str(tmp_path / "b.npz")]).exit_code != 0


def found_image(path: str) -> np.ndarray:
    """The image at the network's size."""
    return cv2.resize(cv2.imread(path), (192, 144), interpolation=cv2.INTER_AREA).astype(int)
