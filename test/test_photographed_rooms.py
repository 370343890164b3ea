"""Training rooms with photographed surfaces: what is taken from a pack, streets under a sky, cameras that roll."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mast3r_ros.errors import DatasetError
from mast3r_ros.lab.synthetic import photographs, textures
from mast3r_ros.lab.synthetic.photographs import PICTURES, SURFACES, Photographs
from mast3r_ros.lab.training.rooms import RoomsConfig, render_room

SMALL = RoomsConfig(families=("street",), views=5, width=96, height=64, noise=False)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two surfaces and a picture, red on black."""
    path = tmp_path_factory.mktemp("pack") / "pictures.zip"
    image = np.zeros((48, 48, 3), np.uint8)
    image[::2, :, 2] = 255  # OpenCV writes BGR
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("surfaces/a.jpg", "surfaces/b.jpg", "pictures/c.jpg", "CARD.md"):
            archive.writestr(name, cv2.imencode(".jpg", image)[1].tobytes())
    return path


def test_textures_come_from_the_pack_in_other_colours_and_now_and_then_are_drawn(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "recoloured", lambda image, rng: image)
    make = Photographs(pack).maker(SURFACES, lambda rng: textures.flat((0, 0, 200)))
    made = [make(np.random.default_rng(k)).reshape(-1, 3).mean(axis=0) for k in range(200)]
    taken = np.array([mean[0] > mean[2] for mean in made])
    assert 0.75 < taken.mean() < 0.95
    monkeypatch.undo()
    one, other = (Photographs(pack).maker(PICTURES, textures.leaves)(np.random.default_rng(k)) for k in (1, 2))
    assert one.shape == other.shape == (64, 64, 3)  # sides of textures are powers of two
    assert not np.array_equal(one, other)


def test_what_is_no_pack_is_refused_and_the_way_out_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "half.zip", "w") as archive:
        archive.writestr("surfaces/a.jpg", b"")
    for name in ("notes.txt", "missing.zip", "half.zip"):
        with pytest.raises(DatasetError, match=r"training_pictures\.py"):
            Photographs(tmp_path / name)


def test_the_sky_has_no_depth_and_cameras_roll(pack: Path) -> None:
    config = RoomsConfig(**{**SMALL.__dict__, "photographs": str(pack), "rolled": 1.0})
    assert config.name != SMALL.name, "rooms of other settings are other files of the cache"
    views = render_room(3, config)
    without = np.array([np.mean(view.depth == 0) for view in views])
    assert 0 < without.max() < 1
    # What has a depth lies on or above the ground and inside the street.
    tall = []
    for view in views:
        y, x = np.nonzero(view.depth)
        z = view.depth[y, x]
        rays = np.stack([(x - view.K[0, 2]) / view.K[0, 0], (y - view.K[1, 2]) / view.K[1, 1], np.ones(len(x))])
        points = (view.map_T_camera[:3, :3] @ (rays * z)).T + view.map_T_camera[:3, 3]
        assert points[:, 2].min() > -0.1
        tall.append(points[:, 2].max())
    assert max(tall) > 2.0
    rolls = [
        np.degrees(np.arcsin(view.map_T_camera[2, 0])) for view in views
    ]  # the camera's x axis against the horizon
    assert max(np.abs(rolls)) > 20
