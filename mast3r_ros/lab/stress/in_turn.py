"""The queries of a condition once more, one after the other with odometry: what several frames know together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.synthetic import OdometryNoise, drifting
from mast3r_ros.lab.synthetic.trajectory import OPTICAL
from mast3r_ros.localization import Localizer, Tracker

#: Stamp of the first query, and from one to the next.
START_NS, APART_NS = 10**9, 2 * 10**9
#: A robot's base where its camera is, axes forward, left, up.
BASE_T_CAMERA = se3.make(OPTICAL, [0.0, 0.0, 0.0])


def asked_in_turn(localizer: Localizer, queries: Sequence[PosedFrame], group: str, seed: int) -> list[Record]:
    """What a tracker says that begins with the first query and knows nothing before.

    Args:
        group: condition that the queries are of.
        seed: of the odometry's drift.
    """
    poses = np.stack([query.map_T_camera for query in queries])
    moved = drifting(poses @ se3.inverse(BASE_T_CAMERA), OdometryNoise(), np.random.default_rng([seed, 6]))
    tracker, records = Tracker(localizer), []
    for number, (query, odom_T_base) in enumerate(zip(queries, moved, strict=True)):
        frame = replace(query.frame, stamp_ns=START_NS + number * APART_NS)
        estimate = tracker.localize(frame, odom_T_base @ BASE_T_CAMERA)
        records.append(Record.of(frame.name, frame.stamp_ns, estimate, query.map_T_camera, group=group))
    return records
