"""Map-free mode: poses relative to one photo, by a network without depth, or by SIFT with the photo's depth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import walls
from command_line import separate_runner
from oracle import CAMERA, TINY, OracleNetwork, keyframe_poses, save_network, see

from mast3r_ros.cli.main import app
from mast3r_ros.errors import MapError
from mast3r_ros.geometry import se3
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.localization import Localizer, LocalizerSettings, Reason
from mast3r_ros.localization.single_reference import reference_map
from mast3r_ros.matching import create

PHOTO = keyframe_poses()[1]
QUERY = PHOTO @ se3.exp([0.2, 0.1, 0.3, 0.05, 0.1, 0.05])


@pytest.mark.parametrize("calibrated", [True, False])
def test_one_photo_without_depth_is_enough_for_a_metric_network(calibrated: bool) -> None:
    matcher = create("mast3r", checkpoint=OracleNetwork(se3.inverse(PHOTO)), size=160, dtype="float32", device="cpu")
    photo = replace(see(PHOTO), depth=None, camera=CAMERA if calibrated else None)
    keyframe_map = reference_map(photo, matcher)
    assert keyframe_map["reference"].camera.focal == pytest.approx(CAMERA.focal, rel=1e-9 if calibrated else 0.02)
    asked = replace(see(QUERY), depth=None)
    refused = Localizer(keyframe_map, matcher).localize(asked)
    assert refused.reason is Reason.SCALE_UNVERIFIED and refused.map_T_camera is not None, "0.4 m +- 20 % is not 25 cm"
    estimate = Localizer(keyframe_map, matcher, LocalizerSettings(alert_limit_m=1.0)).localize(asked)
    assert estimate.localized, estimate.detail
    metres, degrees = se3.pose_error(estimate.map_T_camera, se3.inverse(PHOTO) @ QUERY)
    assert metres < 0.04 and degrees < 1.0
    assert "network's own" in estimate.matched[0].matches.note
    distance = np.linalg.norm(estimate.map_T_camera[:3, 3])
    assert np.sqrt(np.diag(estimate.covariance)[:3]).min() > 0.15 * distance  # a guessed scale is not believed


def test_with_the_photos_depth_the_position_is_sure() -> None:
    matcher = create("mast3r", checkpoint=OracleNetwork(), size=160, dtype="float32", device="cpu")
    estimate = Localizer(reference_map(see(PHOTO), matcher), matcher).localize(replace(see(QUERY), depth=None))
    assert estimate.localized and estimate.evidence.position_sigma_m < 0.04


def test_a_matcher_without_geometry_needs_the_photos_depth() -> None:
    with pytest.raises(MapError, match="--reference-depth"):
        reference_map(replace(see(PHOTO), depth=None), create("sift"))
    with pytest.raises(MapError, match="--focal"):
        reference_map(replace(see(PHOTO), camera=None), create("sift"))


class TestCommand:
    def test_sift_with_depth(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "photo.png"), walls.image(0)[..., ::-1])
        cv2.imwrite(str(tmp_path / "depth.png"), (1000 * walls.depth()).astype(np.uint16))
        cv2.imwrite(str(tmp_path / "query.png"), walls.image(0)[..., ::-1])
        files = ["--reference", tmp_path / "photo.png", tmp_path / "query.png"]
        found = localize(*files, "--reference-depth", tmp_path / "depth.png", "--focal", 525, "--matcher", "sift")
        assert found["status"] == "localized" and found["keyframes"] == ["reference"]
        assert np.linalg.norm(found["map_T_camera"]["translation"]) < 0.02

    def test_a_random_network_is_rejected_with_the_reason(self, tmp_path: Path) -> None:
        checkpoint = save_network(random_network(TINY), tmp_path / "random.safetensors")
        cv2.imwrite(str(tmp_path / "photo.png"), walls.image(0)[..., ::-1])
        cv2.imwrite(str(tmp_path / "query.png"), walls.image(1)[..., ::-1])
        options = ["--checkpoint", checkpoint, "--network-size", 96, "--device", "cpu"]
        found = localize("--reference", tmp_path / "photo.png", tmp_path / "query.png", *options)
        assert found["status"] == "rejected" and found["reason"] not in ("", "unusable_image")


def localize(*arguments: object) -> dict:
    """The JSON object of one image."""
    result = separate_runner().invoke(app, ["localize", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
