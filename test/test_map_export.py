"""Maps for other programs and for people: clouds, COLMAP models, plan views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.export import export_colmap, export_ply
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.pictures.plan_view import DrawnPath, draw_plan_view, plan_rotation

CAMERA = Camera(
    160, 120, np.array([[100.0, 0, 79.5], [0, 101.0, 59.5], [0, 0, 1]]), "plumb_bob", np.array([0.05, 0, 0, 0, 0])
)
#: A camera that looks along the map's x axis with z up.
LEVEL = se3.make(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]]), [0, 0, 1.5])


def wall_map(poses: list[NDArray[np.float64]]) -> KeyframeMap:
    """Each camera sees a wall 2 m ahead whose left half is red and right half blue."""
    keyframe_map = KeyframeMap(image_format="png")
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :80, 0] = image[:, 80:, 2] = 200
    for pose in poses:
        keyframe_map.add(PosedFrame(Frame(image, CAMERA, 0, np.full((120, 160), 2.0, np.float32)), pose))
    return keyframe_map


@pytest.fixture
def room() -> KeyframeMap:
    return wall_map([LEVEL @ se3.exp([x, 0, 0, 0, 0, 0]) for x in (0.0, 0.2, 0.4)])


def test_the_cloud_lies_on_the_wall_in_its_colours(room: KeyframeMap) -> None:
    points, colours = map_cloud(room, 0.05)
    assert points.dtype == np.float32 and colours.dtype == np.uint8 and len(points) == len(colours) > 1000
    assert np.allclose(points[:, 0], 2.0, atol=1e-3)
    left = points[:, 1] > 0.1
    assert (colours[left, 0] > 150).all() and (colours[points[:, 1] < -0.5, 2] > 150).all()
    voxels = np.floor(points / 0.05).astype(int)
    assert len(np.unique(voxels[:, 1:], axis=0)) == len(points), "one point for each voxel"
    assert len(map_cloud(room, 0.05, max_points=100)[0]) == 100
    assert len(map_cloud(room, 0.2)[0]) < len(points) / 8


def test_depth_edges_leave_no_floating_points() -> None:
    depth = np.full((120, 160), 1.0, np.float32)
    depth[:, 80:] = 4.0
    depth[:, 79:81] = 2.5
    keyframe_map = KeyframeMap()
    keyframe_map.add(PosedFrame(Frame(np.zeros((120, 160, 3), np.uint8), CAMERA, 0, depth), np.eye(4)))
    z = map_cloud(keyframe_map, 0.02)[0][:, 2]
    assert {round(float(v), 1) for v in z} == {1.0, 4.0}


def test_a_map_without_depth_has_an_empty_cloud(tmp_path: Path) -> None:
    keyframe_map = KeyframeMap()
    keyframe_map.add(PosedFrame(Frame(np.zeros((120, 160, 3), np.uint8), CAMERA), np.eye(4)))
    assert [len(part) for part in map_cloud(keyframe_map)] == [0, 0]
    with pytest.raises(MapError, match="no keyframe has depth"):
        export_ply(keyframe_map, tmp_path / "cloud.ply")
    draw_plan_view(keyframe_map, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").exists()


def test_ply_holds_the_cloud(room: KeyframeMap, tmp_path: Path) -> None:
    count = export_ply(room, tmp_path / "cloud.ply", voxel_m=0.05)
    header, body = (tmp_path / "cloud.ply").read_bytes().split(b"end_header\n", 1)
    assert f"element vertex {count}".encode() in header
    rows = np.frombuffer(body, dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    points, colours = map_cloud(room, 0.05)
    assert np.array_equal(rows["xyz"], points) and np.array_equal(rows["rgb"], colours)
    with pytest.raises(MapError, match="cannot be written"):
        export_ply(room, "/proc/cloud.ply")


def test_colmap_holds_cameras_poses_and_points(room: KeyframeMap, tmp_path: Path) -> None:
    export_colmap(room, tmp_path / "model", voxel_m=0.1)
    rows = {
        name: [
            line.split() for line in (tmp_path / "model" / f"{name}.txt").read_text().splitlines() if line[:1] != "#"
        ]
        for name in ("cameras", "images", "points3D")
    }
    assert rows["cameras"] == [["1", "OPENCV", "160", "120", "100", "101", "80", "60", "0.05", "0", "0", "0"]]
    images = [row for row in rows["images"] if row]
    assert len(images) == 3
    for row, keyframe in zip(images, room.keyframes, strict=True):
        w, x, y, z, *t = map(float, row[1:8])
        world = se3.inverse(se3.make(Rotation.from_quat([x, y, z, w]).as_matrix(), t))
        assert np.allclose(world, keyframe.map_T_camera, atol=1e-9)
        picture = np.asarray(Image.open(tmp_path / "model" / "images" / row[9]))
        assert np.array_equal(picture, room.frame(keyframe.id).image)
    assert len(rows["points3D"]) == len(map_cloud(room, 0.1)[0])
    with pytest.raises(MapError, match="exists already"):
        export_colmap(room, tmp_path / "model")


@pytest.mark.parametrize(
    ("model", "D", "expected"),
    [
        ("none", [], "PINHOLE 160 120 100 101 80 60"),
        ("equidistant", [0.1, 0.2, 0.3, 0.4], "OPENCV_FISHEYE 160 120 100 101 80 60 0.1 0.2 0.3 0.4"),
        ("plumb_bob", [0.1, 0.2, 0.3, 0.4, 0.5], "FULL_OPENCV 160 120 100 101 80 60 0.1 0.2 0.3 0.4 0.5 0 0 0"),
    ],
)
def test_every_distortion_model_is_exported(tmp_path: Path, model: str, D: list[float], expected: str) -> None:
    camera = Camera(160, 120, CAMERA.K, model, np.array(D))
    keyframe_map = KeyframeMap()
    keyframe_map.add(PosedFrame(Frame(np.zeros((120, 160, 3), np.uint8), camera), np.eye(4)))
    export_colmap(keyframe_map, tmp_path / "model")
    assert f"1 {expected}\n" in (tmp_path / "model" / "cameras.txt").read_text()


def test_what_colmap_cannot_say_is_refused(tmp_path: Path) -> None:
    camera = Camera(160, 120, CAMERA.K, "rational_polynomial", np.full(12, 0.01))
    keyframe_map = KeyframeMap()
    keyframe_map.add(PosedFrame(Frame(np.zeros((120, 160, 3), np.uint8), camera), np.eye(4)))
    with pytest.raises(MapError, match="rectify"):
        export_colmap(keyframe_map, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_plan_view_shows_wall_and_way(room: KeyframeMap, tmp_path: Path) -> None:
    way = DrawnPath([[0, 0, 1.5], [1, 0.3, 1.5], [np.nan] * 3, [1, 1, 1.5]], "a walk", colour="#00ff00")
    draw_plan_view(room, tmp_path / "plan.png", [way], title="A room")
    picture = np.asarray(Image.open(tmp_path / "plan.png").convert("RGB")).astype(int)
    red = (picture[..., 0] > 120) & (picture[..., 1:].max(axis=2) < 80)
    blue = (picture[..., 2] > 120) & (picture[..., :2].max(axis=2) < 80)
    green = (picture[..., 1] > 200) & (picture[..., [0, 2]].max(axis=2) < 60)
    assert min(red.sum(), blue.sum(), green.sum()) > 100
    row = [np.flatnonzero(mask.any(axis=1)).mean() for mask in (red, blue)]
    assert row[0] < row[1], "the map's y axis points up the page, so the wall's left half lies above"
    with pytest.raises(MapError, match="cannot be written"):
        draw_plan_view(room, tmp_path / "no" / "plan.png")
    with pytest.raises(MapError, match="empty"):
        draw_plan_view(KeyframeMap(), tmp_path / "plan.png")


def test_up_is_found_where_the_map_frame_does_not_say_it() -> None:
    """A map whose frame is its first camera's, with every camera pitched down by 30 degrees."""
    pitched = [se3.exp([0, 0, 0, 0, yaw, 0]) @ se3.exp([0, 0, 0, -np.pi / 6, 0, 0]) for yaw in np.linspace(-1, 1, 9)]
    rotation = plan_rotation(wall_map(pitched))
    assert rotation[2] @ [0, -1, 0] > np.cos(np.radians(3))
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9) and np.linalg.det(rotation) > 0
    assert np.array_equal(plan_rotation(wall_map([LEVEL])), np.eye(3))
