"""Every parameter of the relocalizer node, and how they become the core's settings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from mast3r_ros.localization.localizer import LocalizerSettings
from mast3r_ros.localization.tracking import TrackerSettings
from mast3r_ros.localization.verification import Gates
from mast3r_ros.matching.registry import matcher_options
from mast3r_ros.ros.parameters import param

#: Gates of earlier versions, and what says the same now; the limit on a standard deviation was this many of them.
DEPRECATED = {"max_position_sigma_m": "alert_limit_m", "max_rotation_sigma_deg": "alert_limit_deg"}
OLD_SIGMAS = 2.5


@dataclass(frozen=True)
class RelocalizerParameters:
    """The table; ``as_markdown`` makes the documentation's page from it."""

    map: str = param("", "Folder of the map. Change it and call ~/reload_map to switch maps while running.")
    matcher: str = param("auto", "Matcher by name; auto takes the best that can run here.", fixed=True)
    feature: str = param(
        "sift", "Feature of the sift matcher; orb is for weak machines.", choices=("sift", "orb"), fixed=True
    )
    max_features: int = param(
        0, "Features per image of the sift matcher; 0 takes what suits the feature.", low=0, high=20000, fixed=True
    )
    checkpoint: str = param(
        "",
        "Weights of the matchers mast3r and dust3r: .safetensors, or a Hugging Face folder; without, mast3r is the "
        "small network of the package.",
        fixed=True,
    )
    device: str = param("auto", "Where the network runs.", choices=("auto", "cpu", "cuda"), fixed=True)
    dtype: str = param(
        "auto",
        "What it computes in; auto takes bfloat16 where the hardware has it.",
        choices=("auto", "float32", "bfloat16", "float16"),
        fixed=True,
    )
    network_size: int = param(
        0,
        "Longer side of the network's image; 0 takes that of its training, less is faster and less exact.",
        low=0,
        high=2048,
        unit="px",
        fixed=True,
    )
    autostart: bool = param(True, "Configure and activate at start; false where a lifecycle manager does it.")

    image_transport: str = param(
        "raw", "Type of the image topic: Image or CompressedImage.", choices=("raw", "compressed"), fixed=True
    )
    rectified: bool = param(False, "The images are rectified: P of camera_info holds, without distortion.")
    use_depth: bool = param(True, "Use the depth topic where somebody publishes it.", fixed=True)
    depth_slop: float = param(0.02, "A depth image this close in time belongs to the image.", low=0, high=1, unit="s")
    camera_info_wait: float = param(
        2.0,
        "Frames wait this long for a first camera_info; then the focal length is estimated.",
        low=0,
        high=60,
        unit="s",
    )
    max_frame_age: float = param(1.0, "Older frames are dropped; 0 takes all.", low=0, high=3600, unit="s")
    max_rate: float = param(0.0, "Most attempts per second; 0 takes every frame it can.", low=0, high=1000, unit="Hz")

    global_frame_id: str = param("map", "Frame of the poses that are published.", fixed=True)
    odom_frame_id: str = param("odom", "Odometry frame; empty where there is no odometry.", fixed=True)
    base_frame_id: str = param("base_link", "Frame of the robot.", fixed=True)
    camera_frame_id: str = param("", "Camera optical frame; empty takes the image's frame_id.", fixed=True)
    tf_broadcast: bool = param(True, "Broadcast map -> odom (map -> base where there is no odometry).")
    tf_rate: float = param(20.0, "How often map -> odom is repeated.", low=0.1, high=200, unit="Hz", fixed=True)
    transform_tolerance: float = param(
        1.0, "map -> odom is post-dated by this, as AMCL does.", low=0, high=60, unit="s"
    )
    tf_wait: float = param(
        3.0, "First frames wait this long for base -> camera; then ~/pose is the camera's.", low=0, high=60, unit="s"
    )
    tf_timeout: float = param(0.2, "Longest wait for transforms at the image's stamp.", low=0, high=5, unit="s")

    set_initial_pose: bool = param(False, "Use initial_pose.* as the first guess of the robot's pose.")
    initial_pose__x: float = param(0.0, "Of the robot in the map.", low=-1e6, high=1e6, unit="m")
    initial_pose__y: float = param(0.0, "Of the robot in the map.", low=-1e6, high=1e6, unit="m")
    initial_pose__z: float = param(0.0, "Of the robot in the map.", low=-1e6, high=1e6, unit="m")
    initial_pose__yaw: float = param(0.0, "Of the robot in the map.", low=-6.3, high=6.3, unit="rad")
    feed: str = param(
        "none", "amcl publishes /initialpose to seed AMCL, instead of TF.", choices=("none", "amcl"), fixed=True
    )
    feed_interval: float = param(
        0.0, "AMCL is seeded again this often; 0 only by the first pose and on request.", low=0, high=3600, unit="s"
    )
    relocalize_timeout: float = param(5.0, "How long ~/relocalize waits for an attempt.", low=0.1, high=120, unit="s")

    path_length: int = param(1000, "Poses kept in ~/path.", low=1, high=100000)
    points_stride: int = param(4, "Every n-th pixel goes into ~/points.", low=1, high=64)
    map_points_voxel: float = param(0.05, "Resolution of ~/map_points; 0 publishes none.", low=0, high=10, unit="m")

    keyframes: int = param(LocalizerSettings.keyframes, "Keyframes matched with every image.", low=1, high=100)
    keyframes_on_track: int = param(
        LocalizerSettings.keyframes_on_track,
        "Keyframes matched while the track tells where the camera is and what is found agrees with it; 0 takes what "
        "suits the matcher: 2 for networks, all for sift.",
        low=0,
        high=100,
    )
    second_look: int = param(
        LocalizerSettings.second_look, "Keyframes of a second attempt after a rejection; 0: none.", low=0, high=200
    )
    threshold: float = param(
        LocalizerSettings.threshold,
        "Reprojection error of an inlier as a share of the image diagonal.",
        low=0.0005,
        high=0.1,
    )

    alert_limit_m: float = param(
        LocalizerSettings.alert_limit_m,
        "Error of the position that you can bear: a pose is published only if its protection level is inside "
        "(uncertain, scale_unverified); 0 takes what suits the map's scale, 0.25 in rooms.",
        low=0,
        high=1e6,
        unit="m",
    )
    alert_limit_deg: float = param(
        LocalizerSettings.alert_limit_deg, "Error of the rotation that you can bear.", low=0.01, high=180, unit="deg"
    )
    integrity_risk: float = param(
        LocalizerSettings.integrity_risk,
        "Probability with which an error may exceed its protection level.",
        low=1e-9,
        high=0.5,
    )

    gates__min_inliers: int = param(Gates.min_inliers, "Fewest inliers (too_few_inliers).", low=4, high=10000)
    gates__min_inlier_ratio: float = param(
        Gates.min_inlier_ratio, "Least share of inliers (too_few_inliers).", low=0, high=1
    )
    gates__min_spread: float = param(
        Gates.min_spread, "Least share of image cells with inliers (inliers_on_one_patch).", low=0, high=1
    )
    gates__max_residual_px: float = param(
        Gates.max_residual_px,
        "Largest median error of inliers, in a 640 wide image (large_residuals).",
        low=0.1,
        high=100,
        unit="px",
    )
    gates__max_seen_from_behind: float = param(
        Gates.max_seen_from_behind,
        "Largest share of inliers that would be seen from behind (seen_from_behind).",
        low=0,
        high=1,
    )
    gates__max_position_sigma_m: float = param(
        0.0, "Deprecated, use alert_limit_m: 2.5 times this is taken for it.", low=0, high=1000, unit="m"
    )
    gates__max_rotation_sigma_deg: float = param(
        0.0, "Deprecated, use alert_limit_deg: 2.5 times this is taken for it.", low=0, high=180, unit="deg"
    )
    gates__max_condition: float = param(
        Gates.max_condition, "Largest ratio of position uncertainties (ill_conditioned).", low=1, high=1e6
    )
    gates__min_agreeing_keyframes: int = param(
        Gates.min_agreeing_keyframes, "Keyframes that must support a pose (keyframes_disagree).", low=1, high=100
    )
    gates__min_explained: float = param(
        Gates.min_explained,
        "Least share of what the map expects in the image that must be found (expected_not_seen).",
        low=0,
        high=1,
    )
    gates__max_found_elsewhere: float = param(
        Gates.max_found_elsewhere,
        "Largest share of the map's keyframes found at wrong places, unless an initial pose helps (ambiguous_map).",
        low=0,
        high=1,
    )
    gates__max_depth_error: float = param(
        Gates.max_depth_error,
        "Largest median relative difference to sensor depth (depth_disagrees).",
        low=0.001,
        high=10,
    )

    tracking__drift_per_metre: float = param(
        TrackerSettings.drift_per_metre, "Growth of the odometry's error with distance.", low=0, high=1
    )
    tracking__drift_per_radian: float = param(
        TrackerSettings.drift_per_radian, "Growth of the odometry's error with turning.", low=0, high=1
    )
    tracking__limit: float = param(
        TrackerSettings.limit, "Standard deviations a pose may be off odometry (odometry_disagrees).", low=1, high=100
    )
    tracking__confirmations: int = param(
        TrackerSettings.confirmations, "Agreeing attempts that overrule odometry.", low=1, high=100
    )
    tracking__first_confirmations: int = param(
        TrackerSettings.first_confirmations, "Agreeing attempts before the first pose is accepted.", low=1, high=100
    )
    tracking__forget_s: float = param(
        TrackerSettings.forget_s,
        "Without a pose for this long, odometry is not held against a new one.",
        low=0.1,
        high=86400,
        unit="s",
    )

    def matcher_options(self) -> dict[str, Any]:
        """Options for ``registry.create``: those of the parameters that the matcher has."""
        names = ("feature", "max_features", "checkpoint", "device", "dtype")
        options = {name: getattr(self, name) for name in names} | {"size": self.network_size}
        return matcher_options(self.matcher, options)

    def localizer_settings(self) -> LocalizerSettings:
        """The core's settings with these values."""
        return replace(
            LocalizerSettings(),
            keyframes=self.keyframes,
            keyframes_on_track=self.keyframes_on_track,
            second_look=self.second_look,
            threshold=self.threshold,
            gates=replace(Gates(), **self._group("gates", but=tuple(DEPRECATED))),
            alert_limit_m=self.alert_limit_m or OLD_SIGMAS * self.gates__max_position_sigma_m,
            alert_limit_deg=min(180.0, OLD_SIGMAS * self.gates__max_rotation_sigma_deg) or self.alert_limit_deg,
            integrity_risk=self.integrity_risk,
        )

    @property
    def deprecated(self) -> list[str]:
        """A sentence for each parameter in use that will go."""
        used = [(old, new) for old, new in DEPRECATED.items() if getattr(self, f"gates__{old}")]
        return [
            f"parameter gates.{old} is deprecated: set {new} (now {OLD_SIGMAS:g} times gates.{old})"
            for old, new in used
        ]

    def tracker_settings(self) -> TrackerSettings:
        """The core's settings with these values."""
        return replace(TrackerSettings(), **self._group("tracking"))

    def _group(self, prefix: str, but: Collection[str] = ()) -> dict[str, Any]:
        group = {n.partition("__")[2]: value for n, value in vars(self).items() if n.startswith(f"{prefix}__")}
        return {name: value for name, value in group.items() if name not in but}
