"""The surface of a map as a coloured triangle mesh: depth keyframes fused into a truncated signed distance field.

Curless and Levoy, "A Volumetric Method for Building Complex Models from Range Images", SIGGRAPH 1996; Open3D's grid.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError, UserError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.cloud import DENSE, VOXEL
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.surface import smooth_depth

#: What meshes may be written as.
SUFFIXES = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off")
#: The field reaches this many voxels before and behind a surface; depth beyond this many scene depths is left out.
TRUNCATION, FARTHEST = 4.0, 4.0
#: Voxels along the side of a block of the sparse grid; keyframes that must have seen a piece of surface.
BLOCK, OBSERVED = 16, 2


def export_mesh(
    keyframe_map: KeyframeMap,
    path: str | Path,
    voxel_m: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int]:
    """Write the map's surface as a mesh of the kind that the file's name says; its vertices and triangles.

    Args:
        voxel_m: side of a voxel, metres; 0 takes what suits the distance of what is seen, 3 cm at 2.5 m.

    Raises:
        UserError: if Open3D is not installed.
        MapError: if no keyframe has dense depth, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MapError(f"{path}: a mesh is written as {', '.join(SUFFIXES)}")
    o3d = _open3d()
    ids = [keyframe.id for keyframe in keyframe_map.keyframes if keyframe.has_depth]
    voxel_m, farthest = voxel_m or VOXEL * keyframe_map.view_depth_m, FARTHEST * keyframe_map.view_depth_m
    single = o3d.core.float32
    # Not the older ScalableTSDFVolume: that of Open3D 0.20 stays empty.
    grid = o3d.t.geometry.VoxelBlockGrid(("tsdf", "weight", "color"), (single,) * 3, ((1), (1), (3)), voxel_m, BLOCK)
    used = 0
    for done, id in enumerate(ids, start=1):
        frame = keyframe_map.frame(id)
        if frame.depth is not None and float((frame.depth > 0).mean()) > DENSE:
            _integrate(o3d, grid, frame, keyframe_map[id].map_T_camera, farthest)
            used += 1
        progress(done, len(ids))
    if used == 0:
        raise MapError(
            "the map has no dense depth (no sensor's, only triangulated points or none), so there is no mesh: a cloud "
            "of what it knows is `map export --cloud`"
        )
    mesh = grid.extract_triangle_mesh(weight_threshold=min(OBSERVED, used) - 0.5).to_legacy()
    if len(mesh.triangles) == 0:
        raise MapError(
            "no surface comes out of the map's depth: its keyframes see none of it twice, or --voxel is too large"
        )
    mesh.vertex_colors = o3d.utility.Vector3dVector(np.clip(np.asarray(mesh.vertex_colors), 0, 1))
    mesh.compute_vertex_normals()
    _write(o3d, path, mesh)
    return len(mesh.vertices), len(mesh.triangles)


def _open3d() -> Any:
    try:
        import open3d
    except ImportError as error:
        raise UserError(
            f"a mesh needs Open3D, which is missing ({error}): `pip install 'mast3r_ros[mesh]'` brings it, 420 MB, and "
            "`apt install libusb-1.0-0 libgl1 libgomp1` what its wheel asks for"
        ) from error
    return open3d


def _integrate(o3d: Any, grid: Any, frame: Frame, map_T_camera: NDArray[np.float64], farthest_m: float) -> None:
    """Add one frame's depth, but for its edges, which float between two surfaces."""
    assert frame.camera is not None and frame.depth is not None
    camera = frame.camera
    depth = np.where(np.isfinite(smooth_depth(frame.depth)), frame.depth, np.float32(0))
    image, depth = rectified(frame.image, depth, camera)
    K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    lens, camera_T_map = (o3d.core.Tensor(matrix) for matrix in (K, se3.inverse(map_T_camera)))
    range_image, colours = (
        o3d.t.geometry.Image(o3d.core.Tensor(np.ascontiguousarray(pixels, dtype=np.float32)))
        for pixels in (depth, image / np.float32(255))
    )
    reach = 1.0, farthest_m, TRUNCATION  # units of depth for each metre, farthest depth, voxels of truncation
    blocks = grid.compute_unique_block_coordinates(range_image, lens, camera_T_map, *reach)
    grid.integrate(blocks, range_image, colours, lens, camera_T_map, *reach)


def rectified(
    image: NDArray[np.uint8], depth: NDArray[np.float32], camera: Camera
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Image (H, W, 3) and depth (H, W) as a pinhole camera with the same focal lengths and centre would have them."""
    if not camera.is_distorted and camera.K[0, 1] == 0:
        return image, depth
    pinhole = Camera.pinhole(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
    rays = np.concatenate([pinhole.pixel_rays, np.ones((camera.height, camera.width, 1))], axis=-1)
    xy = np.nan_to_num(camera.project(rays.reshape(-1, 3)), nan=-10.0).astype(np.float32)
    x, y = np.ascontiguousarray(xy.reshape(camera.height, camera.width, 2).transpose(2, 0, 1))
    straight = np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR), dtype=np.uint8)
    return straight, np.asarray(cv2.remap(depth, x, y, cv2.INTER_NEAREST), dtype=np.float32)


def _write(o3d: Any, path: Path, mesh: Any) -> None:
    """A whole mesh takes the place of what was there, or nothing does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        if not o3d.io.write_triangle_mesh(str(fresh), mesh):
            raise MapError(f"{path}: the mesh cannot be written there")
        os.replace(fresh, path)
    except OSError as error:
        raise MapError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        fresh.unlink(missing_ok=True)
