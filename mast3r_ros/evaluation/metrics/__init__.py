"""Figures that say how good poses, clouds, depth and trajectories are, and how sure these figures are.

Pure functions on numbers, one idea a file, each with its formula and its source. Queries without an accepted pose
have NaN errors and count as misses in shares of all queries.
"""

from mast3r_ros.evaluation.metrics.calibration import (
    ELLIPSOIDS,
    Consistency,
    calibration,
    calibration_intervals,
    consistency,
    coverage,
    normalised_error,
)
from mast3r_ros.evaluation.metrics.intervals import Interval, bootstrap_interval, intervals, share_interval
from mast3r_ros.evaluation.metrics.pose_recall import (
    THRESHOLDS,
    WRONG_DEG,
    WRONG_M,
    is_wrong,
    recall,
    threshold_name,
)
from mast3r_ros.evaluation.metrics.relative_pose import (
    accuracy_at,
    direction_angle,
    mean_average_accuracy,
    pose_auc,
    pose_errors,
    rotation_angle,
)
from mast3r_ros.evaluation.metrics.reprojection import (
    average_precision,
    centre_distance,
    precision_by_confidence,
    turn,
    vcre,
    virtual_points,
)
from mast3r_ros.evaluation.metrics.risk import FalseAccepts, RiskCoverage, false_accepts, risk_coverage
from mast3r_ros.evaluation.metrics.statistics import finite, mean, median, percentiles, rmse

__all__ = [
    "ELLIPSOIDS",
    "THRESHOLDS",
    "WRONG_DEG",
    "WRONG_M",
    "Consistency",
    "FalseAccepts",
    "Interval",
    "RiskCoverage",
    "accuracy_at",
    "average_precision",
    "bootstrap_interval",
    "calibration",
    "calibration_intervals",
    "centre_distance",
    "consistency",
    "coverage",
    "direction_angle",
    "false_accepts",
    "finite",
    "intervals",
    "is_wrong",
    "mean",
    "mean_average_accuracy",
    "median",
    "normalised_error",
    "percentiles",
    "pose_auc",
    "pose_errors",
    "precision_by_confidence",
    "recall",
    "risk_coverage",
    "rmse",
    "rotation_angle",
    "share_interval",
    "threshold_name",
    "turn",
    "vcre",
    "virtual_points",
]
