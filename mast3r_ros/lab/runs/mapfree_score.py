"""Score a submission as the Map-free benchmark does, its peculiarities included.

Only every fifth frame of a scene counts; but a scene that the submission lacks counts with all of its frames, as
failures. Medians are taken in each scene and then averaged over the scenes that have an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3
from mast3r_ros.lab import metrics
from mast3r_ros.lab.datasets.mapfree import MapFree, MapFreeScene, NamedPose, by_number, frame_stamp_ns
from mast3r_ros.lab.runs.mapfree_submission import Submission
from mast3r_ros.lab.runs.record import Record

Array = NDArray[np.float64]

#: The benchmark accepts poses below these: metres and degrees, or pixels of VCRE.
ACCEPT_M, ACCEPT_DEG, ACCEPT_PX = 0.25, 5.0, 90.0
#: A second, stricter limit of VCRE that the paper reports, pixels.
STRICT_PX = 45.0


@dataclass(frozen=True, eq=False)
class SceneScore:
    """One scene of a submission.

    Attributes:
        scene: its name.
        failures: frames that count as failures.
        records: every frame that counts, answered or not; those of a missing scene too, but every fifth only.
        errors: (N, 3) of the answered ones: metres, degrees, pixels of VCRE.
        confidence: (N,) of the answered ones.
    """

    scene: str
    failures: int
    records: list[Record]
    errors: Array
    confidence: Array


@dataclass(frozen=True)
class MapFreeScore:
    """All scenes, and what a person should know about the submission."""

    scenes: list[SceneScore]
    complaints: list[str]

    @property
    def records(self) -> list[Record]:
        """Every frame of every scene that counts."""
        return [record for scene in self.scenes for record in scene.records]

    def figures(self) -> dict[str, float] | None:
        """The benchmark's figures by its names; None where the submission has no pose at all."""
        return benchmark_figures(self.scenes) if any(len(scene.errors) for scene in self.scenes) else None

    def strict_figures(self) -> dict[str, float]:
        """Precision and AUC at 45 px, by names in the benchmark's way; not among its own figures."""
        return strict_figures(self.scenes)

    def intervals(self, rounds: int = 500) -> dict[str, metrics.Interval]:
        """Bootstrap intervals of both over scenes, which are independent as frames are not."""

        def of_drawn(chosen: NDArray[np.int64]) -> dict[str, float]:
            scenes = [self.scenes[number] for number in chosen]
            return {**benchmark_figures(scenes), **strict_figures(scenes)}

        return metrics.intervals(of_drawn, np.arange(len(self.scenes)), rounds=rounds)


def score_submission(dataset: MapFree, submission: Submission) -> MapFreeScore:
    """Compare a submission with the ground truth of a split.

    Raises:
        DatasetError: if the split has no public ground truth, or a file of it is missing or malformed.
    """
    if not dataset.has_truth:
        raise DatasetError(
            f"the ground truth of split '{dataset.split}' is not public: upload the zip to the benchmark's server, "
            "or evaluate --split val"
        )
    scores, complaints = [], list(submission.complaints)
    for scene in dataset:
        complaints += scene.complaints
        estimates = submission.poses.get(scene.name)
        scores.append(_score_scene(scene, estimates))
        if scores[-1].failures:
            lacks = "pose file: all" if estimates is None else "pose of"
            complaints.append(f"{scene.name} has no {lacks} {scores[-1].failures} frames, which count as failures")
    if unknown := sorted(set(submission.poses) - set(dataset.scenes)):
        complaints.append(f"scenes that split '{dataset.split}' does not have are left out: {', '.join(unknown)}")
    return MapFreeScore(scores, complaints)


def benchmark_figures(scenes: Sequence[SceneScore]) -> dict[str, float]:
    """The benchmark's figures by its names (Arnold et al., ECCV 2022, section 5).

    "Average Median" is over scenes, of the median over the answered frames of each; precision is accepted over
    all frames; AUC is :func:`metrics.average_precision`; NaN where nothing is there to measure.
    """
    answered = [scene.errors for scene in scenes if len(scene.errors)]
    medians = np.array([np.median(errors, axis=0) for errors in answered]).reshape(-1, 3)
    metres, degrees, pixels = (metrics.mean(column) for column in medians.T)
    total = sum(len(scene.errors) + scene.failures for scene in scenes)
    pose, image = f"Pose Error < ({100 * ACCEPT_M}cm, {ACCEPT_DEG:.0f}deg)", f"VCRE < {ACCEPT_PX:.0f}px"
    return {
        "Average Median Translation Error": metres,
        "Average Median Rotation Error": degrees,
        "Average Median Reprojection Error": pixels,
        **_accepted_figures(scenes, pose, lambda e: (e[:, 0] < ACCEPT_M) & (e[:, 1] < ACCEPT_DEG)),
        **_accepted_figures(scenes, image, lambda e: e[:, 2] < ACCEPT_PX),
        "Estimates for % of frames": sum(map(len, answered)) / total if total else float("nan"),
    }


def strict_figures(scenes: Sequence[SceneScore]) -> dict[str, float]:
    """Precision and AUC at 45 px of VCRE."""
    return _accepted_figures(scenes, f"VCRE < {STRICT_PX:.0f}px", lambda errors: errors[:, 2] < STRICT_PX)


def _accepted_figures(
    scenes: Sequence[SceneScore], name: str, accept: Callable[[Array], NDArray[np.bool_]]
) -> dict[str, float]:
    """Precision and AUC of a criterion of acceptance."""
    accepted = accept(np.concatenate([scene.errors for scene in scenes]))
    confidence = np.concatenate([scene.confidence for scene in scenes])
    failures = sum(scene.failures for scene in scenes)
    total = len(accepted) + failures
    return {
        f"Precision @ {name}": float(accepted.sum() / total) if total else float("nan"),
        f"AUC @ {name}": metrics.average_precision(confidence, accepted, failures) if total else float("nan"),
    }


def _score_scene(scene: MapFreeScene, estimates: dict[int, NamedPose] | None) -> SceneScore:
    truth = by_number(scene.poses)
    records, errors, confidence = [], [], []
    for number, name in scene.evaluated.items():
        estimate = None if estimates is None else estimates.get(number)
        records.append(_record(scene.name, name, truth[number], estimate))
        if estimate is not None:
            errors.append(_errors(scene, truth[number], estimate))
            confidence.append(estimate.confidence)
    failures = len(truth) if estimates is None else len(records) - len(errors)
    return SceneScore(scene.name, failures, records, np.array(errors).reshape(-1, 3), np.array(confidence))


def _errors(scene: MapFreeScene, truth: NamedPose, estimate: NamedPose) -> tuple[float, float, float]:
    camera = scene.intrinsics(truth.number)
    found, true = estimate.world_T_camera, truth.world_T_camera
    return (
        metrics.centre_distance(found, true),
        metrics.turn(estimate.xyzw, truth.xyzw),
        metrics.vcre(found, true, camera.K, camera.width, camera.height),
    )


def _record(scene: str, name: str, truth: NamedPose, estimate: NamedPose | None) -> Record:
    """A frame of a submission as a record: nothing is known of its pose but the confidence."""
    true = truth.world_T_camera
    metres, degrees = se3.pose_error(true, np.eye(4))
    return Record(
        f"{scene}/{name}",
        frame_stamp_ns(truth.number),
        estimate is not None,
        "" if estimate is not None else "no_pose",
        "" if estimate is not None else "not in the submission",
        None if estimate is None else estimate.world_T_camera,
        true,
        confidence=0.0 if estimate is None else estimate.confidence,
        group=scene,
        viewpoint_m=metres,
        viewpoint_deg=degrees,
    )
