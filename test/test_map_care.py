"""Maps merged, checked, pruned, aligned, imported and shown: rooms of two sessions, with exact truth."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import photo_worlds
import pytest
from command_line import separate_runner
from numpy.typing import NDArray

from mast3r_ros.cli.main import app
from mast3r_ros.errors import MapError, UserError
from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.similarity import Similarity, fit_poses
from mast3r_ros.localization.merge import write_merged
from mast3r_ros.localization.placement import place
from mast3r_ros.localization.prune import drop, find_redundant, write_pruned
from mast3r_ros.mapping.blob import Blob, decode_points
from mast3r_ros.mapping.export import export_colmap
from mast3r_ros.mapping.imported import find_hloc_model, import_colmap
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.reference_points import east_north_up
from mast3r_ros.mapping.rescale import UNKNOWN_SCALE, is_metric
from mast3r_ros.matching.sift import SiftMatcher

Array = NDArray[np.float64]

CAMERA = photo_worlds.CAMERA
#: Where the second session's frame lies in the first's.
A_T_B = se3.exp([1.0, -2.0, 0.3, 0.1, 0.2, 1.0])


def depth_of(map_T_camera: Array) -> NDArray[np.float32]:
    """(H, W) metres of what a camera in the box sees."""
    rays = np.concatenate([CAMERA.pixel_rays, np.ones((CAMERA.height, CAMERA.width, 1))], axis=-1)
    directions, origin, half = rays @ map_T_camera[:3, :3].T, map_T_camera[:3, 3], photo_worlds.HALF
    return (np.where(directions > 0, half - origin, -half - origin) / directions).min(axis=-1).astype(np.float32)


def write_map(
    path: Path,
    poses: list[Array],
    seed: int = 0,
    b_T_a: Array | None = None,
    unit: float = 1.0,
    repapered: Collection[int] = (),
) -> Path:
    """A map of the box as it is papered by the seed, in another frame and with other lengths where these are given.

    Args:
        repapered: keyframes that see it with other papers.
    """
    made = KeyframeMap(source=path.name)
    frame_T_box = np.eye(4) if b_T_a is None else b_T_a
    for number, pose in enumerate(poses):
        image = photo_worlds.see(pose, 3 if number in repapered else seed)
        frame = Frame(image, CAMERA, number * 10**9, unit * depth_of(pose))
        there = frame_T_box @ pose
        there[:3, 3] *= unit
        made.add(PosedFrame(frame, there))
    made.save(path)
    return path


def run(*words: object) -> dict[str, Any]:
    """What a command of `map` prints as JSON."""
    result = separate_runner().invoke(app, ["map", *map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def failing(*words: object) -> str:
    """The sentence that a command of `map` ends with."""
    with pytest.raises(UserError) as error:
        separate_runner().invoke(app, ["map", *map(str, words)], catch_exceptions=False)
    return str(error.value)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's map."""
    return write_map(tmp_path_factory.mktemp("first") / "a", photo_worlds.arc(7))


@pytest.fixture(scope="module")
def later() -> list[Array]:
    """Where the camera of a second session was: near the first, looking at the wall behind, and near again."""
    near = [pose @ se3.exp([0.06, 0.03, 0.05, 0.02, 0.05, 0]) for pose in photo_worlds.arc(5)]
    behind = [photo_worlds.look(np.array([0.1 * n, -0.5, 0]), np.array([-2.5, -1.0 + 0.2 * n, 0])) for n in range(2)]
    return [*near, *behind, near[2]]


@pytest.fixture(scope="module")
def merged(first: Path, later: list[Array]) -> tuple[Path, dict[str, Any]]:
    """Both sessions in one map."""
    second = write_map(first.parent / "b", later, b_T_a=se3.inverse(A_T_B), repapered=[7])
    return first.parent / "both", run("merge", first, second, "-o", first.parent / "both", "--matcher", "sift")


def test_two_sessions_become_one_map(merged: tuple[Path, dict[str, Any]], later: list[Array]) -> None:
    path, facts = merged
    both = KeyframeMap.load(path)
    assert len(both) == facts["keyframes"] == 15 and facts["renamed"] == 7
    for number, pose in enumerate(later):
        id = f"b_{number:06d}" if number < 7 else f"{number:06d}"
        metres, degrees = se3.pose_error(both[id].map_T_camera, pose)
        assert metres < 0.02 and degrees < 0.3
    assert "merged with" in both.provenance["history"] and is_metric(both)
    alignment = facts["alignment"]
    assert alignment["agreeing"] >= 5 and alignment["scale"] == 1.0
    low, high = alignment["scale_interval"]
    assert low < 1 < high


def test_what_the_second_session_adds_is_told(merged: tuple[Path, dict[str, Any]]) -> None:
    session = merged[1]["second_session"]
    assert set(session["seen_before"]) >= {f"{n:06d}" for n in range(5)} and not session["found_elsewhere"]
    assert set(session["new_views"]) == {"000005", "000006"} and session["looks_different"] == ["000007"]
    assert 0.1 < session["new_surface"] < 0.6


def test_other_metres_and_other_places_are_refused(first: Path, later: list[Array], tmp_path: Path) -> None:
    larger = write_map(tmp_path / "larger", later, b_T_a=se3.inverse(A_T_B), unit=1.25)
    sentence = failing("merge", first, larger, "-o", tmp_path / "out", "--matcher", "sift")
    assert "scales disagree" in sentence and "0.8" in sentence and not (tmp_path / "out").exists()
    strange = write_map(tmp_path / "strange", photo_worlds.arc(5), seed=7)
    assert "cannot be aligned" in failing("merge", first, strange, "-o", tmp_path / "out", "--matcher", "sift")


def unknown(path: Path) -> Path:
    """The same map, whose unit nobody knows."""
    keyframes = KeyframeMap.load(path)
    keyframes.provenance["scale"] = UNKNOWN_SCALE
    keyframes.save(path)
    return path


@pytest.mark.parametrize("metric", ["first", "second", "none"])
def test_the_unit_of_a_merged_map_is_the_metre_where_one_has_it(
    later: list[Array], tmp_path: Path, metric: str
) -> None:
    path = write_map(tmp_path / "a", photo_worlds.arc(4), unit=1.0 if metric == "first" else 0.4)
    other = write_map(tmp_path / "b", later[:4], b_T_a=se3.inverse(A_T_B), unit=1.0 if metric == "second" else 3.0)
    a = KeyframeMap.load(path if metric == "first" else unknown(path))
    b = KeyframeMap.load(other if metric == "second" else unknown(other))
    write_merged(a, b, place(a, b, SiftMatcher()), tmp_path / "out")
    both = KeyframeMap.load(tmp_path / "out")
    assert is_metric(both) == (metric != "none")
    expected = 0.4 if metric == "none" else 1.0
    for id, pose in (("000001", photo_worlds.arc(4)[1]), ("b_000002", later[2])):
        assert both.typical_depth([id]) == pytest.approx(expected * np.median(depth_of(pose)), rel=0.03)
    length = np.linalg.norm(both["000000"].map_T_camera[:3, 3] - both["b_000003"].map_T_camera[:3, 3])
    truth = np.linalg.norm(photo_worlds.arc(4)[0][:3, 3] - later[3][:3, 3])
    assert length == pytest.approx(expected * truth, rel=0.03)


def test_a_wrong_pose_and_a_place_that_looks_alike_are_named(tmp_path: Path) -> None:
    poses = photo_worlds.arc(9)
    given = [pose.copy() for pose in poses]
    given[3][:3, 3] += [0.0, 0.3, 0.1]
    given[6] = photo_worlds.look(np.array([0.0, 0.5, 0.0]), np.array([-2.5, -1.0, 0.0]))
    made = KeyframeMap()
    for pose, said in zip(poses, given, strict=True):
        made.add(PosedFrame(Frame(photo_worlds.see(pose), CAMERA, 0, depth_of(pose)), said))
    made.save(tmp_path / "map")
    facts = run("check", tmp_path / "map", "--matcher", "sift")
    assert facts["checked"] == 9 and facts["spread"]["itself"]["median_position"] < 0.03
    assert [odd["id"] for odd in facts["pose_disagrees"]] == ["000003"]
    assert facts["pose_disagrees"][0]["position"] == pytest.approx(0.316, abs=0.06)
    assert [(odd["id"], odd["also_here"]) for odd in facts["found_elsewhere"]] == [("000006", False)]


def test_what_others_show_is_left_out_and_still_found(tmp_path: Path) -> None:
    twice = [pose @ se3.exp([0.01 * k, 0, 0, 0, 0.01 * k, 0]) for pose in photo_worlds.arc(3) for k in range(3)]
    full = KeyframeMap.load(write_map(tmp_path / "map", twice))
    report = find_redundant(full, SiftMatcher(), 0.8)
    write_pruned(full, report, tmp_path / "small")
    small = KeyframeMap.load(tmp_path / "small")
    assert 3 <= len(small) == report.kept <= 6 and len(KeyframeMap.load(tmp_path / "map")) == 9
    assert all(set(shown) <= {k.id for k in small.keyframes} for shown in report.dropped.values())
    assert "pruned from 9" in small.provenance["history"]


def test_night_does_not_stand_in_for_day(tmp_path: Path) -> None:
    made = KeyframeMap()
    for seed in (0, 3):  # the same views of a room that looks entirely different
        for number, pose in enumerate(photo_worlds.arc(3)):
            frame = Frame(photo_worlds.see(pose, seed), CAMERA, 0, depth_of(pose))
            made.add(PosedFrame(frame, pose), f"{seed}_{number}")
    made.save(tmp_path / "map")
    dropped = find_redundant(made, SiftMatcher()).dropped
    assert all(id[0] == other[0] for id, others in dropped.items() for other in others) and len(dropped) <= 2


def test_a_named_keyframe_is_dropped(first: Path, tmp_path: Path) -> None:
    full = KeyframeMap.load(first)
    facts = run("prune", first, "-o", tmp_path / "less", "--drop", "000003", "--matcher", "sift")
    assert facts["keyframes"] == 7 and facts["kept"] == 6 and list(facts["dropped"]) == ["000003"]
    assert [k.id for k in KeyframeMap.load(tmp_path / "less").keyframes] == [f"{n:06d}" for n in (0, 1, 2, 4, 5, 6)]
    assert "no keyframe 'x'" in failing("prune", first, "-o", tmp_path / "less", "--drop", "x", "--matcher", "sift")
    with pytest.raises(MapError, match="no keyframe would be left"):
        drop(full, [keyframe.id for keyframe in full.keyframes])


class TestAlign:
    """`map align`."""

    def places(self, file: Path, poses: list[Array], target_T_map: Similarity, ids: list[str]) -> Path:
        rows = [f"{id} {' '.join(map(str, target_T_map.points(pose[:3, 3])))}" for id, pose in zip(ids, poses)]
        file.write_text("# keyframe x y z\n" + "\n".join(rows) + "\n")
        return file

    def test_to_places_and_what_keyframes_show(self, first: Path, tmp_path: Path) -> None:
        target = Similarity.rigid(se3.exp([10, 20, 1, 0, 0, 2.0]))
        poses = photo_worlds.arc(7)
        file = self.places(tmp_path / "places.txt", [poses[0], poses[6]], target, ["000000", "000006"])
        shown = se3.apply(poses[4], CAMERA.points(np.array([[40.0, 60.0]]), depth_of(poses[4])[60:61, 40])[0])
        with file.open("a") as lines:
            lines.write(f"000004:40:60 {' '.join(map(str, target.points(shown)))}\n")
        run("align", first, "--to", file, "-o", tmp_path / "out", "--frame-id", "hall")
        moved = KeyframeMap.load(tmp_path / "out")
        metres, degrees = se3.pose_error(moved["000002"].map_T_camera, target.pose(poses[2]))
        assert metres < 0.01 and degrees < 0.3 and moved.frame_id == "hall"
        assert "aligned to 3 places" in moved.provenance["history"]

    def test_metres_are_given_or_refused(self, tmp_path: Path) -> None:
        path = unknown(write_map(tmp_path / "map", photo_worlds.arc(6), unit=0.2))
        told = separate_runner().invoke(app, ["map", "info", str(path)], catch_exceptions=False).stdout
        assert "units of unknown length" in told and " m (camera" not in told
        ids = [f"{n:06d}" for n in range(6)]
        file = self.places(tmp_path / "places.txt", photo_worlds.arc(6), Similarity.rigid(np.eye(4)), ids)
        facts = run("align", path, "--to", file, "-o", tmp_path / "metric", "--matcher", "sift")
        assert facts["scale"] == pytest.approx(5, rel=1e-6) and is_metric(KeyframeMap.load(tmp_path / "metric"))
        wrong = write_map(tmp_path / "wrong", photo_worlds.arc(6), unit=0.2)
        assert "those of the places disagree" in failing("align", wrong, "--to", file, "-o", tmp_path / "x")

    def test_a_line_and_nonsense_are_refused(self, first: Path, tmp_path: Path) -> None:
        file = tmp_path / "places.txt"
        file.write_text("000000 0 0 0\n000004 1 0 0\n000006 2 0 0\n")
        assert "on one line" in failing("align", first, "--to", file, "-o", tmp_path / "x")
        file.write_text("000000 0 0 0\n000004 9 0 0\n000006 0 1 7\n")
        assert "do not fit" in failing("align", first, "--to", file, "-o", tmp_path / "x")
        file.write_text("000000 0 0 0\n")
        assert "3 or more" in failing("align", first, "--to", file, "-o", tmp_path / "x")

    def test_a_georeference_is_east_north_up(self, first: Path, tmp_path: Path) -> None:
        origin = (48.137, 11.575, 520.0)
        near = np.array([[48.137 + 1e-4, 11.575, 520.0], [48.137, 11.575 + 1e-4, 521.0]])
        north, east = east_north_up(near, origin)
        # Lengths of 1e-4 deg on the meridian and the parallel there, by Bessel's series.
        assert north[1] == pytest.approx(11.1207, abs=2e-3) and abs(north[0]) < 1e-6
        assert east[0] == pytest.approx(7.4423, abs=2e-3) and east[2] == pytest.approx(1.0, abs=1e-3)

    def test_to_another_map(self, first: Path, later: list[Array], tmp_path: Path) -> None:
        second = write_map(tmp_path / "b", later[:4], b_T_a=se3.inverse(A_T_B))
        run("align", second, "--to", first, "-o", tmp_path / "out", "--matcher", "sift")
        moved = KeyframeMap.load(tmp_path / "out")
        assert se3.pose_error(moved["000001"].map_T_camera, later[1])[0] < 0.02 and len(moved) == 4


def test_many_wrong_poses_do_not_decide() -> None:
    rng = np.random.default_rng(0)
    truth = Similarity(0.3, se3.exp([0, 0, 0, 1, 0.5, -0.2])[:3, :3], np.array([3.0, 1, 2]))
    b = np.array([se3.exp(np.r_[2 * rng.normal(size=3), rng.normal(size=3)]) for _ in range(30)])
    a = np.array([truth.pose(T) @ se3.exp(np.r_[0.005 * rng.normal(size=3), 0.01 * rng.normal(size=3)]) for T in b])
    a[:12] = [se3.exp(np.r_[rng.normal(size=3), rng.normal(size=3)]) for _ in range(12)]
    fit = fit_poses(a, b, 0.075, np.radians(5), np.full(30, np.nan), rigid=False)
    assert fit.agrees[12:].all() and not fit.agrees[:12].any() and fit.rival <= 2
    assert fit.a_T_b.scale == pytest.approx(0.3, rel=0.01) and np.linalg.norm(fit.a_T_b.t - truth.t) < 0.01
    assert abs(np.log(fit.a_T_b.scale / 0.3)) < 2 * fit.scale_sigma < 0.03
    still = np.tile(np.eye(4), (8, 1, 1))
    spun = np.array([truth.pose(T) for T in still])
    assert fit_poses(spun, still, 0.075, np.radians(5), np.full(8, np.nan), rigid=False).scale_sigma > 0.5


class TestOtherPrograms:
    """COLMAP and hloc."""

    def test_colmap_reads_what_is_exported(self, first: Path, tmp_path: Path) -> None:
        pycolmap = pytest.importorskip("pycolmap")
        keyframes = KeyframeMap.load(first)
        export_colmap(keyframes, tmp_path / "model", voxel_m=0.1)
        model = pycolmap.Reconstruction(str(tmp_path / "model"))
        assert model.num_reg_images() == 7 and model.num_points3D() > 500
        for image in model.images.values():
            expected = keyframes[Path(image.name).stem].map_T_camera
            pose = image.cam_from_world()
            camera_T_world = se3.make(pose.rotation.matrix(), pose.translation)
            assert np.allclose(se3.inverse(camera_T_world), expected, atol=1e-6)

    @pytest.mark.parametrize("kind", ["colmap", "hloc"])
    def test_a_model_is_imported_with_its_scale_unknown(self, first: Path, tmp_path: Path, kind: str) -> None:
        pycolmap = pytest.importorskip("pycolmap")
        truth = KeyframeMap.load(first)
        export_colmap(truth, tmp_path / "model", voxel_m=0.1)
        model = pycolmap.Reconstruction(str(tmp_path / "model"))
        outputs = tmp_path / "outputs" / "sfm_superpoint+superglue"
        outputs.mkdir(parents=True)
        model.write(str(outputs))
        (tmp_path / "outputs" / "feats-superpoint-n4096-r1024.h5").write_bytes(b"not read")
        source = tmp_path / "outputs" if kind == "hloc" else tmp_path / "model"
        if kind == "hloc":
            words = ("import", "hloc", tmp_path / "outputs", "-o", tmp_path / "map", "--matcher", "sift")
            assert "folder of the images by --images" in failing(*words)
        source = find_hloc_model(tmp_path / "outputs") if kind == "hloc" else tmp_path / "model"
        made = import_colmap(source, tmp_path / "model" / "images")
        assert not is_metric(made) and len(made) == 7 and made.provenance["source"] == str(source)
        for keyframe in truth.keyframes:
            assert np.allclose(made[keyframe.id].map_T_camera, keyframe.map_T_camera, atol=1e-6)
        twice = import_colmap(source, tmp_path / "model" / "images", 2.0)
        assert is_metric(twice)
        assert np.allclose(twice["000003"].map_T_camera[:3, 3], 2 * made["000003"].map_T_camera[:3, 3])

    def test_points_of_a_model_become_depth(self, tmp_path: Path) -> None:
        pycolmap = pytest.importorskip("pycolmap")
        names = photo_worlds.photograph(tmp_path / "images", photo_worlds.arc(4))
        made = pycolmap.Reconstruction()
        camera = pycolmap.Camera(model="PINHOLE", width=320, height=240, params=[260, 260, 160, 120], camera_id=1)
        made.add_camera_with_trivial_rig(camera)
        seen = dict[int, dict[int, int]]()
        points = np.array([[2.5, y, z] for y in (1.0, 1.4, 1.8) for z in (-0.4, 0.0, 0.4)])
        for number, (name, pose) in enumerate(names.items(), start=1):
            turned = se3.inverse(pose)
            xy, inside = CAMERA.seen(se3.apply(turned, points))
            image = pycolmap.Image(name=name, keypoints=xy[inside] + 0.5, camera_id=1, image_id=number)
            seen[number] = {int(row): place for place, row in enumerate(np.flatnonzero(inside))}
            made.add_image_with_trivial_frame(
                image, pycolmap.Rigid3d(pycolmap.Rotation3d(turned[:3, :3]), turned[:3, 3])
            )
        for row, point in enumerate(points):
            track = pycolmap.Track()
            for number in seen:
                if row in seen[number]:
                    track.add_element(number, seen[number][row])
            made.add_point3D(point, track, np.zeros(3, np.uint8))
        (tmp_path / "sparse").mkdir()
        made.write(str(tmp_path / "sparse"))
        facts = run("import", "colmap", tmp_path, "-o", tmp_path / "map", "--matcher", "sift")
        assert facts["scale"] == UNKNOWN_SCALE and facts["with_points"] == 4
        for id, pose in (("view_00", photo_worlds.arc(4)[0]), ("view_03", photo_worlds.arc(4)[3])):
            there = se3.apply(se3.inverse(pose), points)
            xy, inside = CAMERA.seen(there)
            found, depth = decode_points(
                Blob.of((tmp_path / f"map/points/{id}.safetensors").read_bytes(), "safetensors")
            )
            assert len(depth) == inside.sum() > 3
            assert np.allclose(found, xy[inside], atol=1e-3) and np.allclose(depth, there[inside, 2], atol=1e-4)

    def test_what_is_no_model_is_refused(self, tmp_path: Path) -> None:
        assert "no model of hloc" in failing("import", "hloc", tmp_path, "-o", tmp_path / "map", "--matcher", "sift")


def test_a_map_is_recorded_for_the_viewer(first: Path, tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun")
    check = tmp_path / "check.json"
    odd = {"id": "000002", "by": ["000005"]}
    check.write_text(json.dumps({"pose_disagrees": [], "found_elsewhere": [odd]}))
    scene = first.parent / "reconstruction.json"  # as beside a map of `reconstruct`
    scene.write_text(json.dumps({"rejected_pairs": [["000000.jpg", "000004.jpg"]]}))
    words = ["map", "view", str(first), "-o", str(tmp_path / "map.rrd"), "--check", str(check)]
    assert separate_runner().invoke(app, words, catch_exceptions=False).exit_code == 0
    recording = rerun.dataframe.load_recording(str(tmp_path / "map.rrd"))
    entities = {column.entity_path for column in recording.schema().component_columns()}
    assert {"/map/cloud", "/map/coverage", "/map/keyframes", "/map/found_elsewhere", "/keyframe/image"} <= entities
    assert "/map/rejected_pairs" in entities
    check.write_text("{}")
    with pytest.raises(MapError, match="map check --json"):
        separate_runner().invoke(app, words, catch_exceptions=False)


def test_a_mesh_needs_open3d_or_says_so(first: Path, tmp_path: Path) -> None:
    words = ["map", "export", str(first), "--mesh", "-o", str(tmp_path / "room.ply")]
    try:
        import open3d
    except ImportError:
        with pytest.raises(UserError, match=r"mast3r_ros\[mesh\]"):
            separate_runner().invoke(app, words, catch_exceptions=False)
        return
    assert separate_runner().invoke(app, words, catch_exceptions=False).exit_code == 0
    mesh = open3d.io.read_triangle_mesh(str(tmp_path / "room.ply"))
    points = np.asarray(mesh.vertices)
    off = np.abs(np.abs(points) - photo_worlds.HALF).min(axis=1)
    assert len(points) > 2000 and np.median(off) < 0.01 and np.percentile(off, 95) < 0.04
