"""How far an estimated trajectory is from the true one: absolute and relative errors, with or without alignment.

Poses are (N, 4, 4) world_T_camera, row by row of the same instants; NaN where the estimate has none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry.similarity import Similarity, fit_similarity
from mast3r_ros.lab.metrics.relative_pose import rotation_angle

Array = NDArray[np.float64]

#: ``none``: both are in one frame already, as poses in a metric map are. ``se3``: the frames differ. ``sim3``: the
#: scales differ too.
ALIGNMENTS = ("none", "se3", "sim3")


def align_trajectory(estimate: Array, truth: Array, alignment: str = "none") -> Array:
    """Bring an estimated trajectory into the frame (and scale) of the true one.

    The least-squares fit of the positions (Umeyama, PAMI 1991), as Sturm et al., IROS 2012, section 5 and Zhang and
    Scaramuzza, IROS 2018 do. Three positions that are not on one line are needed; a straight trajectory leaves its
    roll open, and then rotation errors say nothing.

    Args:
        estimate, truth: (N, 4, 4); rows with NaN take no part in the fit.
        alignment: one of :data:`ALIGNMENTS`.

    Returns:
        (N, 4, 4) the estimate in the frame of the truth.

    Raises:
        ValueError: for an unknown alignment, or fewer than three poses at different places.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment '{alignment}' is not one of {', '.join(ALIGNMENTS)}")
    if alignment == "none":
        return estimate
    known = _known(estimate, truth)
    source, target = estimate[known, :3, 3], truth[known, :3, 3]
    if len(np.unique(source, axis=0)) < 3 or len(np.unique(target, axis=0)) < 3:
        raise ValueError(f"alignment '{alignment}' needs three poses at different places")
    moved = fit_similarity(source, target)
    if alignment == "se3":
        moved = Similarity(1.0, moved.R, target.mean(axis=0) - moved.R @ source.mean(axis=0))
    aligned = estimate.copy()
    aligned[:, :3, :3] = moved.R @ estimate[:, :3, :3]
    aligned[:, :3, 3] = moved.points(estimate[:, :3, 3])
    return aligned


def absolute_errors(estimate: Array, truth: Array) -> tuple[Array, Array]:
    """Metres (N,) between positions and degrees (N,) between rotations; NaN where a pose is missing.

    The absolute trajectory error (ATE) of Sturm et al., IROS 2012, section 5.2 is the RMSE of the metres.
    """
    metres = np.linalg.norm(estimate[:, :3, 3] - truth[:, :3, 3], axis=1)
    return metres, rotation_angle(estimate[:, :3, :3], truth[:, :3, :3])


def relative_errors(estimate: Array, truth: Array, step: int = 1) -> tuple[Array, Array]:
    """Metres (N - step,) and degrees (N - step,) of the motion from each pose to the one ``step`` later.

    ``E_i = (Q_i^-1 Q_i+step)^-1 (P_i^-1 P_i+step)`` with truth Q and estimate P; the relative pose error (RPE) of
    Sturm et al., IROS 2012, section 5.1 is the RMSE of the lengths of E. No alignment changes it but that of scale.

    Raises:
        ValueError: if ``step`` is less than 1.
    """
    if step < 1:
        raise ValueError(f"the step of relative errors is {step}, it must be 1 or more")
    moved, true = _motion(estimate, step), _motion(truth, step)
    # |t_P - t_Q| is the length of E's translation: a rotation does not change it.
    metres = np.linalg.norm(moved[:, :3, 3] - true[:, :3, 3], axis=1)
    return metres, rotation_angle(moved[:, :3, :3], true[:, :3, :3])


def _motion(poses: Array, step: int) -> Array:
    """Each pose -> pose ``step`` later, seen from it; (0, 4, 4) for trajectories that are too short."""
    first, second = poses[:-step], poses[step:]
    R = np.swapaxes(first[:, :3, :3], -1, -2)
    motion = np.tile(np.eye(4), (len(first), 1, 1))
    motion[:, :3, :3] = R @ second[:, :3, :3]
    motion[:, :3, 3] = (R @ (second[:, :3, 3] - first[:, :3, 3])[..., None])[..., 0]
    return motion


def _known(estimate: Array, truth: Array) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(estimate + truth).all(axis=(1, 2)))
