"""Two images that were seen both ways round: cameras in closed form, without any optimisation (DUSt3R, section 3.3)."""

from __future__ import annotations

import numpy as np

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.pointmap import estimate_focal, pose_from_pointmap
from mast3r_ros.multiview.pointmap_pair import PointmapPair, image_confidences
from mast3r_ros.multiview.scene import AlignedViews

#: Pixels of this confidence and more decide the pose.
CONFIDENT = 3.0


def align_two_views(forward: PointmapPair, backward: PointmapPair) -> AlignedViews:
    """Cameras and depth of images 0 and 1.

    The pair that is believed more keeps its first camera at the origin; the other camera is found by PnP on the points
    that the network puts into that frame.

    Args:
        forward: the pair (0, 1).
        backward: the pair (1, 0).

    Raises:
        ValueError: for other pairs.
    """
    if (forward.i, forward.j, backward.i, backward.j) != (0, 1, 1, 0):
        raise ValueError("two views need the pairs (0, 1) and (1, 0)")
    pairs = (forward, backward)
    focals = np.array([estimate_focal(pair.points_i) for pair in pairs])
    shapes = [pair.confidence_i.shape for pair in pairs]
    first = 0 if forward.score > backward.score else 1
    base, second = pairs[first], 1 - first
    found = pose_from_pointmap(
        base.points_j,
        float(focals[second]),
        valid=pairs[second].confidence_i > CONFIDENT,
        threshold_px=5.0,
        rounds=100,
    )
    poses = np.tile(np.eye(4), (2, 1, 1))
    if found is not None:
        poses[second] = found.world_T_camera
    depths = [base.points_i[..., 2]] * 2
    depths[second] = se3.apply(se3.inverse(poses[second]), base.points_j)[..., 2]
    centres = np.array([[width / 2, height / 2] for height, width in shapes])
    return AlignedViews(poses, focals, centres, depths, image_confidences(pairs))
