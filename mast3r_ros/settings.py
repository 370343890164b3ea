"""Every setting of the relocalizer, once: its type, default, sentence, range and unit.

:class:`Settings` is the whole tree, frozen. The ROS parameters with their descriptors, the parameter files, the options
of the command line and the tables of the documentation are made from it, so a default that is changed here changes
everywhere. A setting's name is that of its field behind the names of the groups that have one: ``gates.min_inliers``.

    settings = Settings.read("robot.yaml")          # the file that the node takes as --params-file
    settings = settings.changed({"gates.min_inliers": 30, "matcher": "sift"})
    settings.write("robot.yaml")
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mast3r_ros.errors import SettingsError
from mast3r_ros.node_settings import CommonSettings as CommonSettings
from mast3r_ros.node_settings import InitialPose as InitialPose
from mast3r_ros.node_settings import NodeSettings as NodeSettings
from mast3r_ros.tables import as_yaml, at_start, changed, group, read_parameters, setting, settings_of, values_of

#: The node whose parameter files are read.
NODE = "relocalizer"

#: Gates of earlier versions, and what says the same now; the limit on a standard deviation was this many of them.
DEPRECATED_GATES = {"max_position_sigma_m": "alert_limit_m", "max_rotation_sigma_deg": "alert_limit_deg"}
OLD_SIGMAS = 2.5


@dataclass(frozen=True)
class MatcherSettings:
    """Which matcher runs, and how."""

    matcher: str = at_start(
        "auto",
        "sift, aliked, xfeat, mast3r, dust3r (needs a checkpoint), one of your own, or auto for the best that can "
        "run here.",
    )
    max_latency_ms: float = at_start(
        250.0,
        "Time that an image may take with what auto takes, as it was measured (docs/matchers.md); 0: any.",
        low=0,
        high=1e6,
        unit="ms",
    )
    feature: str = at_start("sift", "Feature of the sift matcher; orb is for weak machines.", choices=("sift", "orb"))
    max_features: int = at_start(
        0, "Features per image of sift, aliked and xfeat; 0 takes what suits the feature.", low=0, high=20000
    )
    pairing: str = at_start(
        "lightglue",
        "How aliked and xfeat match features: by the network LightGlue, or as nearest neighbours, which is faster.",
        choices=("lightglue", "nearest"),
    )
    checkpoint: str = at_start(
        "",
        "Weights of the matchers mast3r and dust3r: .safetensors, or a Hugging Face folder; without, mast3r is the "
        "small network of the package.",
    )
    device: str = at_start("auto", "Where the network runs.", choices=("auto", "cpu", "cuda"))
    dtype: str = at_start(
        "auto",
        "What it computes in; auto takes bfloat16 where the hardware has it.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    network_size: int = at_start(
        0,
        "Longer side of the network's image; 0 takes that of its training, less is faster and less exact.",
        low=0,
        high=2048,
        unit="px",
    )
    compile_network: bool = at_start(
        False, "Compile the network first, on a GPU: 5 % faster after a quarter of a minute more at start."
    )
    device_memory: int = at_start(
        1024, "The GPU's memory for keyframes, 1.5 MiB each with ViT-L.", low=0, high=100000, unit="MiB"
    )

    def options(self) -> dict[str, Any]:
        """The options of :func:`mast3r_ros.matching.registry.create`, whatever the matcher."""
        names = {"network_size": "size", "compile_network": "compile"}
        return {names.get(f.name, f.name): getattr(self, f.name) for f in fields(self) if f.name != "matcher"}


@dataclass(frozen=True)
class SolverSettings:
    """How a pose is found (:mod:`mast3r_ros.geometry.absolute_pose`)."""

    #: Pixels, and metres across the line of sight; the localizer replaces them by shares of the image and the scene.
    threshold_px: float = 6.0
    point_sigma_m: float = 0.005
    iterations: int = setting(500, "Most rounds of RANSAC.", low=10, high=100000)
    pixel_sigma_px: float = setting(1.0, "Noise of a matched pixel.", low=0.01, high=100, unit="px")
    seed: int = setting(0, "Of RANSAC: the same matches give the same pose.", low=0, high=2**31 - 1)


@dataclass(frozen=True)
class Gates:
    """What a pose must show to be accepted; each belongs to one named reason for rejection."""

    min_inliers: int = setting(15, "Fewest inliers (too_few_inliers).", low=4, high=10000)
    min_inlier_ratio: float = setting(0.05, "Least share of inliers (too_few_inliers).", low=0, high=1)
    min_spread: float = setting(
        0.16,
        "Least share of the image's 8 x 6 cells with inliers, but for nearly all that the map shows there "
        "(inliers_on_one_patch).",
        low=0,
        high=1,
    )
    max_residual_px: float = setting(
        6.0, "Largest median error of inliers, in a 640 wide image (large_residuals).", low=0.1, high=100, unit="px"
    )
    max_seen_from_behind: float = setting(
        0.05, "Largest share of inliers that would be seen from behind (seen_from_behind).", low=0, high=1
    )
    max_position_sigma_m: float = setting(
        0.0, "Deprecated, use alert_limit_m: 2.5 times this is taken for it.", low=0, high=1000, unit="m"
    )
    max_rotation_sigma_deg: float = setting(
        0.0, "Deprecated, use alert_limit_deg: 2.5 times this is taken for it.", low=0, high=180, unit="deg"
    )
    max_condition: float = setting(30.0, "Largest ratio of position uncertainties (ill_conditioned).", low=1, high=1e6)
    min_agreeing_keyframes: int = setting(
        2, "Keyframes that must support a pose (keyframes_disagree).", low=1, high=100
    )
    strong_inliers: int = setting(
        30, "A single keyframe is enough with this many inliers, spread by strong_spread.", low=4, high=10000
    )
    strong_spread: float = setting(
        0.2, "A single keyframe is enough with inliers in this share of cells.", low=0, high=1
    )
    min_explained: float = setting(
        0.4,
        "Least share of what the map expects in the image that must be found (expected_not_seen).",
        low=0,
        high=1,
    )
    max_found_elsewhere: float = setting(
        0.15,
        "Largest share of the map's keyframes found at wrong places, unless an initial pose helps (ambiguous_map).",
        low=0,
        high=1,
    )
    max_depth_error: float = setting(
        0.1, "Largest median relative difference to sensor depth (depth_disagrees).", low=0.001, high=10
    )


@dataclass(frozen=True)
class LocalizerSettings:
    """How one frame is localized."""

    keyframes: int = setting(5, "Keyframes matched with every image.", low=1, high=100)
    keyframes_on_track: int = setting(
        0,
        "Keyframes matched while the track tells where the camera is and what is found agrees with it; 0 takes what "
        "suits the matcher: 2 for networks, all for sift.",
        low=0,
        high=100,
    )
    matches_per_keyframe: int = setting(
        500,
        "Matches of one keyframe that a pose is solved from: the most trusted of every part of the image.",
        low=20,
        high=100000,
    )
    second_look: int = setting(15, "Keyframes of a second attempt after a rejection; 0: none.", low=0, high=200)
    threshold: float = setting(
        0.01, "Reprojection error of an inlier as a share of the image diagonal.", low=0.0005, high=0.1
    )
    point_noise: float = setting(
        0.004, "Noise of a map point across the line of sight, as a share of the scene's depth.", low=0, high=1
    )
    alert_limit_m: float = setting(
        0.0,
        "Error of the position that you can bear: a pose is published only if its protection level is inside "
        "(uncertain, scale_unverified); 0 takes what suits the map's scale, 0.25 in rooms.",
        low=0,
        high=1e6,
        unit="m",
    )
    alert_limit_deg: float = setting(10.0, "Error of the rotation that you can bear.", low=0.01, high=180, unit="deg")
    integrity_risk: float = setting(
        1e-3, "Probability with which an error may exceed its protection level.", low=1e-9, high=0.5
    )
    solver: SolverSettings = group(SolverSettings, "solver")
    gates: Gates = group(Gates, "gates")


@dataclass(frozen=True)
class BeliefSettings:
    """How a belief about the camera's pose fades."""

    drift_per_metre: float = setting(
        0.05, "Error of the odometry's position, as a share of the way travelled.", low=0, high=1
    )
    drift_per_radian: float = setting(0.05, "Error of its rotation, as a share of the turns made.", low=0, high=1)
    turn_per_metre: float = setting(
        0.05, "Error of its rotation for each metre travelled.", low=0, high=10, unit="rad/m"
    )
    speed: float = setting(2.0, "Fastest motion assumed where there is no odometry.", low=0, high=1000, unit="m/s")
    turn_rate: float = setting(2.0, "Fastest turn assumed where there is no odometry.", low=0, high=100, unit="rad/s")
    forget_s: float = setting(
        30.0, "A belief that nothing has confirmed for this long is none.", low=0.1, high=86400, unit="s"
    )


@dataclass(frozen=True)
class CommitmentSettings:
    """When a track is believed and map -> odom given (:mod:`mast3r_ros.localization.commitment`)."""

    commit_views: int = setting(
        4, "Different views whose answers agree before map -> odom is given; 1 gives it at once.", low=1, high=100
    )
    commit_distance: float = setting(
        0.1, "A view is different from this distance on, as a share of the scene's depth.", low=0, high=10
    )
    commit_turn: float = setting(0.26, "So is one turned by this.", low=0, high=3.2, unit="rad")
    commit_expected: float = setting(
        0.6,
        "Share of what the map expects in an image above which a view speaks for the track and below which against it.",
        low=0,
        high=1,
    )
    commit_evidence: float = setting(
        0.5, "Sum over the different views, of what each shows more than commit_expected.", low=0, high=100
    )
    commit_keyframes: int = setting(4, "Different keyframes that must support the answers.", low=1, high=100)
    lost_after_s: float = setting(
        3.0,
        "The track is given up when nothing that should be seen was seen for this long; 0 never.",
        low=0,
        high=3600,
        unit="s",
    )


@dataclass(frozen=True)
class TrackerSettings(BeliefSettings, CommitmentSettings):
    """How far odometry is trusted, beside how a belief fades and when it is believed."""

    slack: float = setting(
        0.04, "Distance that is never held against a pose, as a share of the scene's depth.", low=0, high=10
    )
    slack_rad: float = setting(0.1, "Angle that is never held against a pose.", low=0, high=3.2, unit="rad")
    limit: float = setting(4.0, "Standard deviations a pose may be off odometry (odometry_disagrees).", low=1, high=100)
    confirmations: int = setting(3, "Agreeing attempts that overrule odometry.", low=1, high=100)
    first_confirmations: int = setting(1, "Agreeing attempts before the first pose is accepted.", low=1, high=100)
    joint_frames: int = setting(
        5,
        "Frames of different views, with odometry between, solved together where the last is refused alone; 1: none.",
        low=1,
        high=20,
    )


@dataclass(frozen=True)
class Settings:
    """The whole tree of the relocalizer. Change it with :meth:`changed`, and hand it on as a whole."""

    node: NodeSettings = group(NodeSettings)
    matching: MatcherSettings = group(MatcherSettings)
    localizer: LocalizerSettings = group(LocalizerSettings)
    tracking: TrackerSettings = group(TrackerSettings, "tracking")

    @classmethod
    def read(cls, path: str | Path) -> Settings:
        """The settings of a parameter file, as ``--params-file`` of the node takes it; what it leaves out is default.

        Raises:
            SettingsError: naming the file and everything in it that is unknown or out of its range.
        """
        return cls().changed(read_parameters(Path(path), NODE), str(path))

    def changed(self, values: Mapping[str, Any], where: str = "") -> Settings:
        """The same with other values, by name.

        Raises:
            SettingsError: naming every value that is unknown or out of its range.
        """
        known = {entry.name: entry for entry in settings_of(Settings)}
        wrong = []
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                wrong.append(f"there is no parameter {name}{f' (did you mean {near[0]}?)' if near else ''}")
            elif complaint := known[name].spec.complaint(name, known[name].kind, value):
                wrong.append(complaint)
        if wrong:
            raise SettingsError(f"{f'{where}: ' if where else ''}{'; '.join(wrong)}")
        return changed(self, values)

    @property
    def deprecated(self) -> list[str]:
        """A sentence for each setting in use that will go."""
        return [
            f"parameter gates.{old} is deprecated: set {new} (now {OLD_SIGMAS:g} times gates.{old})"
            for old, new in DEPRECATED_GATES.items()
            if getattr(self.localizer.gates, old)
        ]

    def values(self) -> dict[str, Any]:
        """Every setting by its name."""
        return values_of(self)

    def differences(self) -> dict[str, Any]:
        """Those settings, by name, that are not at their defaults."""
        defaults = Settings().values()
        return {name: value for name, value in self.values().items() if value != defaults[name]}

    def write(self, path: str | Path) -> None:
        """Write a parameter file with every setting, its sentence and range."""
        head = "# Settings of mast3r_ros: the node takes this file as --params-file, the commands as --params."
        body = as_yaml(Settings, self.values())
        Path(path).write_text(f"{head}\n{NODE}:\n  ros__parameters:\n{body}\n", encoding="utf-8")
