"""Signed maps: what was signed is accepted, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import separate_runner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.signature import verify
from mast3r_ros.matching import create
from mast3r_ros.settings import Settings

pytest.importorskip("cryptography", reason="the extra 'sign' is optional")


@pytest.fixture()
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed map and the public key, by the commands."""
    made, camera = KeyframeMap(), Camera.pinhole(64, 48, 50, 50, 31.5, 23.5)
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        made.add(PosedFrame(Frame(image, camera, number, np.full((48, 64), 2.0, np.float32)), np.eye(4)))
    made.prepare(create("fake"))
    made.save(tmp_path / "map")
    for arguments in (["key", "fleet.pem"], ["sign", "map", "--key", "fleet.pem"]):
        paths = [str(tmp_path / a) if a in ("fleet.pem", "map") else a for a in arguments]
        assert separate_runner().invoke(app, ["map", *paths]).exit_code == 0
    assert (tmp_path / "fleet.pem").stat().st_mode & 0o077 == 0
    return tmp_path / "map", tmp_path / "fleet.pub"


def test_a_signed_map_is_accepted_and_its_caches_can_be_dropped(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    verify(folder, public)
    arguments = ["map", "verify", str(folder), "--key", str(public), "--drop-caches"]
    assert separate_runner().invoke(app, arguments).exit_code == 0
    assert not (folder / "features").exists() and not (folder / "keyframes.safetensors").exists()
    assert len(KeyframeMap.load(folder)) == 3


@pytest.mark.parametrize("change", ["pose", "pixel", "frame", "unsigned", "saved again", "other key"])
def test_a_changed_map_is_refused(signed: tuple[Path, Path], change: str) -> None:
    folder, public = signed
    if change == "pose":
        lines = (folder / "keyframes.jsonl").read_text()
        (folder / "keyframes.jsonl").write_text(lines.replace("0.0, 0.0, 0.0", "0.0, 0.0, 1.0", 1))
    elif change == "pixel":
        data = bytearray((folder / "images" / "000001.jpg").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "images" / "000001.jpg").write_bytes(data)
    elif change == "frame":
        header = (folder / "map.yaml").read_text()
        (folder / "map.yaml").write_text(header.replace("frame_id: map", "frame_id: mop"))
    elif change == "unsigned":
        (folder / "map.sig").unlink()
    elif change == "saved again":
        loaded = KeyframeMap.load(folder)
        loaded.set_points("000002", np.array([[5.0, 5.0]]), np.array([3.0]))
        loaded.save(folder)
    else:
        other = public.parent / "other.pem"
        separate_runner().invoke(app, ["map", "key", str(other)])
        public = other.with_suffix(".pub")
    with pytest.raises(MapError, match=r"signed|changed since"):
        verify(folder, public)


def test_a_node_with_a_key_loads_its_fleets_maps_only(signed: tuple[Path, Path]) -> None:
    pytest.importorskip("rclpy")
    import logging

    from mast3r_ros.ros.map_loading import load_relocalizer

    folder, public = signed
    settings = Settings().changed({"map": str(folder), "map_key": str(public)})
    assert load_relocalizer(settings, create("fake"), logging.getLogger(), lambda: False).map.path == folder
    (folder / "map.sig").write_bytes(bytes(64))
    with pytest.raises(MapError, match="signed"):
        load_relocalizer(settings, create("fake"), logging.getLogger(), lambda: False)
