"""Maps for other programs: PLY clouds and COLMAP text models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.atomic import replacing, write_replacing
from mast3r_ros.mapping.blob import encode_image
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap


def export_ply(keyframe_map: KeyframeMap, path: str | Path, voxel_m: float = 0.0) -> int:
    """Write the map's surface as a binary PLY cloud; returns the number of points.

    Raises:
        MapError: if the map has no depth, or the file cannot be written.
    """
    points, colours = map_cloud(keyframe_map, voxel_m, max_points=20_000_000)
    if len(points) == 0:
        raise MapError("the map knows no surface (no keyframe has depth), so there is no cloud to export")
    write_ply(Path(path), points, colours)
    return len(points)


def write_ply(path: Path, points: NDArray[np.float32], colours: NDArray[np.uint8]) -> None:
    """Points (N, 3) in metres and colours (N, 3) RGB as a binary PLY file.

    Raises:
        MapError: if the file cannot be written.
    """
    rows = np.empty(len(points), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colours
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {colour}" for colour in ("red", "green", "blue")] + ["end_header", ""]
    try:
        write_replacing(path, "\n".join(header).encode() + rows.tobytes())
    except OSError as error:
        raise MapError(f"{path}: cannot be written ({error.strerror})") from error


def export_colmap(keyframe_map: KeyframeMap, folder: str | Path, voxel_m: float = 0.0) -> None:
    """Write cameras.txt, images.txt, points3D.txt and the images in COLMAP's text format.

    Raises:
        MapError: if a camera has no COLMAP model, or the folder exists already or cannot be written.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MapError(f"{folder}: exists already: choose another place for the COLMAP model")
    numbers: dict[int, int] = {}
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    for number, keyframe in enumerate(keyframe_map.keyframes, start=1):
        if id(keyframe.camera) not in numbers:
            numbers[id(keyframe.camera)] = len(numbers) + 1
            cameras.append(f"{len(numbers)} {colmap_camera(keyframe.camera)}")
        camera_T_map = se3.inverse(keyframe.map_T_camera)
        x, y, z, w = se3.quaternion(camera_T_map)
        pose = " ".join(f"{value:.12g}" for value in (w, x, y, z, *camera_T_map[:3, 3]))
        images += [f"{number} {pose} {numbers[id(keyframe.camera)]} {keyframe.id}.png", ""]
    points, colours = map_cloud(keyframe_map, voxel_m)
    rows = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for number, (point, colour) in enumerate(zip(points.tolist(), colours.tolist(), strict=True), start=1):
        rows.append(f"{number} {point[0]:.5f} {point[1]:.5f} {point[2]:.5f} {colour[0]} {colour[1]} {colour[2]} 0")
    try:
        with replacing(folder) as fresh:
            for name, lines in (("cameras", cameras), ("images", images), ("points3D", rows)):
                (fresh / f"{name}.txt").write_text("\n".join(lines) + "\n")
            (fresh / "images").mkdir()
            for keyframe in keyframe_map.keyframes:
                image = encode_image(keyframe_map.frame(keyframe.id).image, "png")
                (fresh / "images" / f"{keyframe.id}.png").write_bytes(image.read())
    except OSError as error:
        raise MapError(f"{folder}: cannot be written ({error.strerror})") from error


def colmap_camera(camera: Camera) -> str:
    """``MODEL WIDTH HEIGHT PARAMS``; COLMAP counts pixels from the corner of the first one, we from its centre.

    Raises:
        MapError: where COLMAP has no model for the camera.
    """
    if abs(camera.K[0, 1]) > 1e-9:
        raise MapError("COLMAP has no camera model with skew: rectify the images first")
    params = [camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5]
    D = camera.D.tolist()
    if camera.model == "none":
        model = "PINHOLE"
    elif camera.model == "equidistant":
        model, params = "OPENCV_FISHEYE", params + D
    elif camera.model == "plumb_bob" and not any(D[4:]):
        model, params = "OPENCV", params + D[:4]
    elif not any(D[8:]):
        model, params = "FULL_OPENCV", params + (D + [0.0] * 3)[:8]
    else:
        raise MapError(f"COLMAP has no model for {camera.model} with {len(D)} coefficients: rectify the images first")
    return " ".join([model, str(camera.width), str(camera.height), *(f"{value:.12g}" for value in params)])
