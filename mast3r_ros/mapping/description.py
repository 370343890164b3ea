"""What is in a map, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mast3r_ros.mapping.keyframe_map import KeyframeMap


def describe_map(keyframe_map: KeyframeMap) -> dict[str, Any]:
    """Keyframes, extent, cameras, caches, size and origin of a saved map; representable in JSON."""
    assert keyframe_map.path is not None
    folder, keyframes = keyframe_map.path, keyframe_map.keyframes
    centres = np.array([keyframe.map_T_camera[:3, 3] for keyframe in keyframes]).reshape(-1, 3)
    extent = np.ptp(centres, axis=0).tolist() if len(centres) else [0.0, 0.0, 0.0]
    counts = Counter(id(keyframe.camera) for keyframe in keyframes)
    cameras = {id(keyframe.camera): keyframe.camera for keyframe in keyframes}
    return {
        "path": str(folder),
        "frame_id": keyframe_map.frame_id,
        "keyframes": len(keyframes),
        "with_depth": sum(keyframe.has_depth for keyframe in keyframes),
        "extent_m": extent,
        "cameras": [
            {
                "width": camera.width,
                "height": camera.height,
                "fx": camera.fx,
                "fy": camera.fy,
                "cx": camera.cx,
                "cy": camera.cy,
                "distortion_model": camera.model,
                "keyframes": counts[key],
            }
            for key, camera in cameras.items()
        ],
        "features": {
            cache.name: len(list(cache.glob("*.safetensors")))
            for cache in _children(folder / "features")
            if cache.is_dir()
        },
        "retrieval": [index.stem for index in _children(folder / "retrieval") if index.suffix == ".safetensors"],
        "disk_bytes": sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()),
        "pose_noise": asdict(keyframe_map.pose_noise) if keyframe_map.pose_noise else None,
        "provenance": keyframe_map.provenance,
    }


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
