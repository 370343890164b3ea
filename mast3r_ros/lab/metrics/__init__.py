"""Figures that say how good poses, clouds, depth and trajectories are, and how sure these figures are.

Pure functions on numbers, one idea a file, each with its formula and its source. Queries without an accepted pose
have NaN errors and count as misses in shares of all queries.
"""

from mast3r_ros.lab.metrics.calibration import (
    ELLIPSOIDS,
    CovarianceConsistency,
    calibration,
    calibration_intervals,
    consistency,
    coverage,
    normalised_error,
)
from mast3r_ros.lab.metrics.clouds import CloudDistances, cloud_distances, cloud_figures
from mast3r_ros.lab.metrics.depth import abs_rel, delta, depth_figures, median_scale
from mast3r_ros.lab.metrics.intervals import Interval, bootstrap_interval, intervals, share_interval
from mast3r_ros.lab.metrics.pose_recall import (
    THRESHOLDS,
    WRONG_DEG,
    WRONG_M,
    is_wrong,
    recall,
    threshold_name,
)
from mast3r_ros.lab.metrics.relative_pose import (
    accuracy_at,
    direction_angle,
    mean_average_accuracy,
    pose_auc,
    pose_errors,
    rotation_angle,
)
from mast3r_ros.lab.metrics.reprojection import (
    average_precision,
    centre_distance,
    precision_by_confidence,
    turn,
    vcre,
    virtual_points,
)
from mast3r_ros.lab.metrics.risk import FalseAccepts, RiskCoverage, false_accepts, risk_coverage
from mast3r_ros.lab.metrics.statistics import finite, mean, median, percentiles, rmse
from mast3r_ros.lab.metrics.trajectories import ALIGNMENTS, absolute_errors, align_trajectory, relative_errors

__all__ = [
    "ALIGNMENTS",
    "ELLIPSOIDS",
    "THRESHOLDS",
    "WRONG_DEG",
    "WRONG_M",
    "CloudDistances",
    "CovarianceConsistency",
    "FalseAccepts",
    "Interval",
    "RiskCoverage",
    "abs_rel",
    "absolute_errors",
    "accuracy_at",
    "align_trajectory",
    "average_precision",
    "bootstrap_interval",
    "calibration",
    "calibration_intervals",
    "centre_distance",
    "cloud_distances",
    "cloud_figures",
    "consistency",
    "coverage",
    "delta",
    "depth_figures",
    "direction_angle",
    "false_accepts",
    "finite",
    "intervals",
    "is_wrong",
    "mean",
    "mean_average_accuracy",
    "median",
    "median_scale",
    "normalised_error",
    "percentiles",
    "pose_auc",
    "pose_errors",
    "precision_by_confidence",
    "recall",
    "relative_errors",
    "risk_coverage",
    "rmse",
    "rotation_angle",
    "share_interval",
    "threshold_name",
    "turn",
    "vcre",
    "virtual_points",
]
