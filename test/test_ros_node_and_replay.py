"""`evaluate bag --params` is the node without ROS: a recording gets the same verdicts both ways, over real DDS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import walls

pytest.importorskip("rclpy", reason="needs ROS 2")

from mast3r_ros.lab.live.run import LiveSettings, play_live
from mast3r_ros.lab.runs.replay import ReplaySettings, replay_bag
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import from_settings
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.settings import Settings

#: Not the defaults, so that both ways must have read them: strict gates, and a start that has to be confirmed.
CHANGED = {
    "matcher": "sift",
    "max_features": 1500,
    "gates.min_inliers": 60,
    "tracking.first_confirmations": 2,
    "max_frame_age": 0.0,
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of walls, a drive past them in which two images show something else, and a parameter file."""
    folder = tmp_path_factory.mktemp("both_ways")
    Settings().changed(CHANGED).write(folder / "robot.yaml")
    keyframes = KeyframeMap()
    for number in range(3):
        keyframes.add(walls.posed(number))
    keyframes.prepare(from_settings(Settings().changed(CHANGED).matching))
    keyframes.save(folder / "map")
    walls.write_bag(folder / "drive.mcap", (0, 1, walls.UNKNOWN, 2, walls.UNKNOWN, 1))
    return folder


def test_the_node_and_a_replay_say_the_same(recorded: Path) -> None:
    settings = Settings.read(recorded / "robot.yaml")
    live = play_live(LiveSettings(recorded / "drive.mcap", recorded / "map", parameters=settings.differences()))
    # A loaded machine drops frames: the replay takes those that the node looked at.
    looked_at = frozenset(record.stamp_ns for record in live.records)
    relocalizer = Relocalizer(KeyframeMap.load(recorded / "map"), from_settings(settings.matching), settings)
    reading = ReplaySettings.of_node(settings.node, stamps_ns=looked_at)
    offline = replay_bag(recorded / "drive.mcap", relocalizer, reading).evaluation.records
    assert [(r.stamp_ns, r.accepted, r.reason) for r in live.records] == [
        (r.stamp_ns, r.accepted, r.reason) for r in offline
    ]
    for heard, replayed in zip(live.records, offline, strict=True):
        if heard.accepted:
            assert np.allclose(heard.map_T_camera, replayed.map_T_camera, atol=1e-6)
    verdicts = [record.reason for record in live.records]
    assert verdicts[0] == "odometry_disagrees", "the first pose has to be confirmed"
    assert len(verdicts) >= 3 and len(set(verdicts)) > 1
