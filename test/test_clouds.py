"""PLY files and the evaluation of clouds, with distances that can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mast3r_ros.errors import DatasetError
from mast3r_ros.lab.datasets.ply import read_ply
from mast3r_ros.lab.runs.cloud import ObservedVolume, cloud_summary, compare_clouds, read_plane, thinned
from mast3r_ros.mapping.export import write_ply

POINTS = np.random.default_rng(0).normal(size=(50, 3))
CODES = {"float": "f4", "double": "f8"}


def ply(path: Path, form: str, kind: str, points: np.ndarray = POINTS) -> Path:
    """A cloud between two other elements: cameras before it, faces after it, a colour and a normal in it."""
    header = ["ply", f"format {form} 1.0", "comment by hand", "element camera 2", "property float view"]
    header += [f"element vertex {len(points)}", "property uchar red", *(f"property {kind} {a}" for a in "xyz")]
    header += ["property float nx", "element face 1", "property list uchar int vertex_indices", "end_header", ""]
    if form == "ascii":
        lines = ["0.5", "1.5", *(" ".join(map(repr, (7, *map(float, p), 0.0))) for p in points), "3 0 1 2"]
        path.write_bytes(("\n".join(header) + "\n".join(lines) + "\n").encode())
        return path
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}[form]
    rows = np.zeros(len(points), [("red", "u1"), ("xyz", order + CODES[kind], 3), ("nx", order + "f4")])
    rows["xyz"] = points
    cameras, face = np.array([0.5, 1.5], order + "f4").tobytes(), b"\3" + np.arange(3, dtype=order + "i4").tobytes()
    path.write_bytes("\n".join(header).encode() + cameras + rows.tobytes() + face)
    return path


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_points_of_any_ply_file(tmp_path, form, kind):
    np.testing.assert_allclose(read_ply(ply(tmp_path / "a.ply", form, kind)), POINTS, atol=1e-6)


def test_our_own_clouds_are_read_and_holes_left_out(tmp_path):
    points = POINTS.astype(np.float32)
    points[3] = np.nan
    write_ply(tmp_path / "own.ply", points, np.zeros((50, 3), np.uint8))
    assert len(read_ply(tmp_path / "own.ply")) == 49


def test_a_damaged_ply_is_named(tmp_path):
    good = ply(tmp_path / "a.ply", "binary_little_endian", "float").read_bytes()
    text = ply(tmp_path / "t.ply", "ascii", "float").read_text()
    for data, match in (
        (b"obj\n", r"bad\.ply is no PLY file: expected 'ply'"),
        (good[:-400], r"bad\.ply is truncated: its header promises 50 vertices"),
        (good.replace(b"binary_little_endian", b"zip"), r"bad\.ply, line 2: 'format zip 1\.0' does not belong"),
        (good.replace(b"property float x", b"property half x"), r"line 8: 'property half x'"),
        (good.replace(b"float y", b"float w"), "expected 'element vertex' with properties x, y and z"),
        (good.replace(b"format binary_little_endian 1.0\n", b""), "names no format"),
        (good.replace(b"float view", b"list uchar int view"), "'camera' holds lists and comes before the vertices"),
        (text.replace("0.0\n3 0", "far\n3 0").encode(), r"a vertex is not 5 numbers"),
        ("\n".join(text.splitlines()[:-3]).encode(), "is truncated"),
    ):
        (tmp_path / "bad.ply").write_bytes(data)
        with pytest.raises(DatasetError, match=match):
            read_ply(tmp_path / "bad.ply")
    with pytest.raises(DatasetError, match=r"none\.ply cannot be read"):
        read_ply(tmp_path / "none.ply")


def grid(z: float) -> np.ndarray:
    """(100, 3) a square of ten by ten points, one unit apart."""
    x, y = np.meshgrid(np.arange(10.0), np.arange(10.0))
    return np.stack([x.ravel(), y.ravel(), np.full(100, z)], axis=1)


def test_figures_of_two_squares():
    truth = grid(0)
    estimate = np.concatenate([grid(0.5)[:50], [[4.0, 4.0, 90.0]]])  # half of it, half a unit above, and a stray point
    distances, judged, asked = compare_clouds(estimate, truth, max_distance=20)
    summary = cloud_summary(distances, judged, asked, threshold=0.6)
    assert summary["accuracy"] == pytest.approx(0.5) and summary["left_out"] == pytest.approx(1 / 51)
    beyond = np.hypot(0.5, np.arange(1, 6))  # rows 5 to 9 of the truth
    assert summary["completeness"] == pytest.approx((50 * 0.5 + 10 * beyond.sum()) / 100)
    assert summary["chamfer"] == pytest.approx((summary["accuracy"] + summary["completeness"]) / 2)
    assert summary["precision"] == pytest.approx(50 / 51) and summary["recall"] == pytest.approx(0.5)
    for name in ("completeness", "chamfer", "recall", "f_score"):
        low, high = summary[f"{name}_interval"]
        assert low < summary[name] < high
    assert summary["accuracy_interval"] == pytest.approx((0.5, 0.5))


def write_dtu(folder: Path) -> tuple[Path, Path]:
    """A mask of the lower half of the square, and a table at y = 2.5, below which nothing is asked for."""
    mask = np.zeros((10, 10, 3), np.uint8)
    mask[:, :5] = 1
    savemat(folder / "ObsMask1_10.mat", {"ObsMask": mask, "BB": [[0.0, 0, 0], [9, 9, 2]], "Res": 1.0})
    savemat(folder / "Plane1.mat", {"P": [[0.0], [1.0], [0.0], [-2.5]]})
    return folder / "ObsMask1_10.mat", folder / "Plane1.mat"


def test_dtu_masks_say_what_counts(tmp_path):
    mask, plane = write_dtu(tmp_path)
    estimate = np.concatenate([grid(1), [[-3.0, 0, 0], [50.0, 0, 0]]])
    _, judged, asked = compare_clouds(estimate, grid(0), observed=ObservedVolume.read(mask), plane=read_plane(plane))
    assert len(judged) == 50 and judged[:, 1].max() == 4
    assert len(asked) == 70 and asked[:, 1].min() == 3
    savemat(tmp_path / "other.mat", {"Q": 1})
    for read in (ObservedVolume.read, read_plane):
        with pytest.raises(DatasetError, match=r"other\.mat: expected the variables .*; it lacks"):
            read(tmp_path / "other.mat")
        with pytest.raises(DatasetError, match=r"a\.txt is no readable MATLAB file"):
            (tmp_path / "a.txt").write_text("no")
            read(tmp_path / "a.txt")


def test_thinning_keeps_one_point_in_each_cube():
    points = np.array([[0.1, 0, 0], [0.15, 0, 0], [0.25, 0, 0], [-0.1, 0, 0]])
    np.testing.assert_array_equal(thinned(points, 0.2), points[[0, 2, 3]])


def test_evaluate_cloud(tmp_path, run):
    mask, plane = write_dtu(tmp_path)
    ply(tmp_path / "truth.ply", "ascii", "double", grid(0))
    ply(tmp_path / "estimate.ply", "binary_little_endian", "float", grid(0.25))

    command = ("evaluate", "cloud", tmp_path / "estimate.ply", tmp_path / "truth.ply")
    options = ("--threshold", 0.3, "--max-distance", 20, "--spacing", 0.2, "--mask", mask, "--plane", plane)
    code, out, error = run(*command, *options, "--json", "-o", tmp_path / "errors.ply")
    assert code == 0, error
    summary = json.loads(out, parse_constant=pytest.fail)
    assert summary["accuracy"] == summary["completeness"] == summary["chamfer"] == 0.25 and summary["f_score"] == 1
    assert (summary["points"], summary["true_points"]) == (50, 70)
    assert len(read_ply(tmp_path / "errors.ply")) == 50
    code, out, _ = run(*command)
    assert code == 0 and "chamfer" in out and "0.25" in out
    ply(tmp_path / "estimate.ply", "ascii", "float", np.full((2, 3), np.nan))
    code, _, error = run(*command)
    assert code == 1 and "estimate.ply holds no finite point" in error
