"""A network that knows the truth, in a room whose colours are coordinates: learned matchers without trained weights.

Every surface point of the room is painted with its own position. So the exact descriptors and pointmaps follow from
the pixels, and whatever the matchers do with a network's output (batches, rectification, crops, scales, frames) shows
in the poses that come out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.network import NetworkConfig, PointmapNetwork, Tokens
from mast3r_ros.network.checkpoint import FORMAT, FORMAT_VERSION
from mast3r_ros.network.heads import Descriptors, Pointmap, unpatch

#: Corners of the room in the map frame, metres.
LOW, HIGH = np.array([-2.0, -1.5, -2.0]), np.array([2.0, 1.5, 2.5])
CAMERA = Camera.pinhole(320, 240, 220, 220, 159.5, 119.5)
TINY = NetworkConfig(
    enc_embed_dim=64,
    enc_depth=2,
    enc_num_heads=4,
    dec_embed_dim=48,
    dec_depth=3,
    dec_num_heads=4,
    head_type="catconv",
    desc_dim=24,
    two_confs=True,
)


def see(map_T_camera: np.ndarray, camera: Camera = CAMERA) -> Frame:
    """What a camera sees in the room, with exact depth; black where a pixel has no ray."""
    rays = np.concatenate([camera.pixel_rays, np.ones((camera.height, camera.width, 1))], axis=-1)
    direction = rays @ map_T_camera[:3, :3].T
    origin = map_T_camera[:3, 3]
    with np.errstate(divide="ignore"):
        exits = np.where(direction > 0, (HIGH - origin) / direction, (LOW - origin) / direction)
    depth = exits.min(axis=-1)
    points = origin + direction * depth[..., None]
    colours = np.nan_to_num((points - LOW) / (HIGH - LOW) * 250 + 5).round().astype(np.uint8)
    seen = np.isfinite(depth)
    image = np.where(seen[..., None], colours, 0).astype(np.uint8)
    return Frame(image, camera, depth=np.where(seen, depth, 0).astype(np.float32))


def keyframe_poses() -> list[np.ndarray]:
    """Three views into one corner of the room."""
    return [
        se3.exp(twist) for twist in ([-0.5, 0, -1, 0, 0.2, 0], [0, 0.1, -1, 0.05, 0, 0], [0.6, 0, -1, 0, -0.2, 0.1])
    ]


class OracleNetwork(PointmapNetwork):
    """Reads descriptors and points off the colours.

    Attributes:
        camera_T_map: pose of the view that is decoded as view 1, for its pointmap.
        unit: its points are this many times too large.
    """

    def __init__(self, camera_T_map: np.ndarray | None = None, unit: float = 1.0) -> None:
        super().__init__(TINY)
        self.camera_T_map = np.eye(4) if camera_T_map is None else camera_T_map
        self.unit = unit
        waves = torch.randn(3, 12, generator=torch.Generator().manual_seed(1)) * 6
        self.register_buffer("waves", waves)
        self.points_run: list[int] = []  # pairs per run of a point head

    def encode(self, images: Tensor, true_shape: Tensor | None = None) -> Tokens:
        patch = self.config.patch_size
        tokens = torch.nn.functional.pixel_unshuffle(images, patch).flatten(2).transpose(1, 2)
        return Tokens.upright(tokens, (images.shape[2], images.shape[3]), patch)

    def decode(self, tokens1: Tokens, tokens2: Tokens) -> tuple[list[Tensor], list[Tensor]]:
        assert len(tokens1) == len(tokens2)
        return [tokens1.features], [tokens2.features]

    def descriptors(self, view: int, layers: Sequence[Tensor], tokens: Tokens, unit: bool = True) -> Descriptors:
        positions, seen = self._positions(layers[0], tokens.size)
        phase = positions @ self.waves
        desc = torch.cat([phase.cos(), phase.sin()], dim=-1) / 12**0.5
        return Descriptors(desc, torch.where(seen, 10.0, 0.5))

    def points(self, view: int, layers: Sequence[Tensor], tokens: Tokens) -> Pointmap:
        self.points_run.append(len(tokens))
        positions, seen = self._positions(layers[0], tokens.size)
        T = torch.from_numpy(self.camera_T_map).float()
        return Pointmap(self.unit * (positions @ T[:3, :3].T + T[:3, 3]), torch.where(seen, 10.0, 1.0))

    def _positions(self, tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Map positions (B, H, W, 3) and where there is any."""
        patch = self.config.patch_size
        pixels = unpatch(tokens.float(), (size[0] // patch, size[1] // patch), patch).movedim(1, -1)
        colours = (pixels + 1) * 127.5
        low, high = torch.from_numpy(LOW).float(), torch.from_numpy(HIGH).float()
        return (colours - 5) / 250 * (high - low) + low, colours.min(dim=-1).values > 2.5


def save_network(network: PointmapNetwork, path: Path) -> Path:
    """A checkpoint of a (random) network in this package's own layout."""
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, path)
    record = {"format": FORMAT, "format_version": FORMAT_VERSION, "network": network.config.to_json()}
    path.with_suffix(".json").write_text(json.dumps(record))
    return path
