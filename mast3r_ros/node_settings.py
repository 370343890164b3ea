"""Settings of the ROS nodes: what they listen to, wait for and publish. The whole tree is in ``settings.py``."""

from __future__ import annotations

from dataclasses import dataclass

from mast3r_ros.tables import at_start, group, setting

#: A switch that can be left to the program. YAML's true and false, on and off are taken as well.
SWITCH = ("auto", "true", "false")


@dataclass(frozen=True)
class InitialPose:
    """Where the robot starts."""

    x: float = setting(0.0, "Of the robot in the map.", low=-1e6, high=1e6, unit="m")
    y: float = setting(0.0, "Of the robot in the map.", low=-1e6, high=1e6, unit="m")
    z: float = setting(0.0, "Of the robot in the map.", low=-1e6, high=1e6, unit="m")
    yaw: float = setting(0.0, "Of the robot in the map.", low=-6.3, high=6.3, unit="rad")


@dataclass(frozen=True)
class CommonSettings:
    """What relocalizer and mapper have alike: a map, and how images, depth and calibrations come."""

    map: str = setting("", "Folder of the map.")
    image_transport: str = at_start(
        "raw", "Type of the image topic: Image or CompressedImage.", choices=("raw", "compressed")
    )
    rectified: bool = setting(False, "The images are rectified: P of camera_info holds, without distortion.")
    camera_info_frame_id: str = setting(
        "", "frame_id that camera_info may have although the images have another; empty: only theirs."
    )
    use_depth: bool = at_start(True, "Use the depth topic where somebody publishes it.")
    depth_transport: str = at_start(
        "raw", "Type of the depth topic: Image or CompressedImage.", choices=("raw", "compressedDepth")
    )
    depth_slop: float = setting(0.02, "A depth image this close in time belongs to the image.", low=0, high=1, unit="s")
    depth_wait: float = setting(
        0.1, "Longest wait for the depth image of an image, where depth is published.", low=0, high=5, unit="s"
    )
    camera_frame_id: str = at_start("", "Camera optical frame; empty takes the image's frame_id.")
    tf_timeout: float = setting(0.2, "Longest wait for transforms at the image's stamp.", low=0, high=5, unit="s")


@dataclass(frozen=True)
class NodeSettings(CommonSettings):
    """What the relocalizer node listens to, waits for and publishes."""

    map: str = setting("", "Folder of the map. Change it and call ~/reload_map to switch maps while running.")
    map_key: str = setting("", "Public key: a map is loaded only if its owner has signed it (map sign); empty: any.")
    feature_memory: int = at_start(
        512, "Memory for keyframes, 2 MiB each with ViT-L; others are read again.", low=1, high=1000000, unit="MiB"
    )
    autostart: bool = setting(True, "Configure and activate at start; false where a lifecycle manager does it.")
    bond: str = at_start(
        "auto",
        "Heartbeats for Nav2's lifecycle manager while active; auto where the ROS package bond is installed.",
        choices=SWITCH,
    )
    bond_heartbeat_period: float = at_start(
        0.1, "How often the bond's heartbeat is sent; 0 never, as in Nav2.", low=0, high=2, unit="s"
    )

    camera_info_wait: float = setting(
        2.0,
        "Frames wait this long for a first camera_info; then the focal length is estimated.",
        low=0,
        high=60,
        unit="s",
    )
    max_frame_age: float = setting(1.0, "Older frames are dropped; 0 takes all.", low=0, high=3600, unit="s")
    max_rate: float = setting(0.0, "Most attempts per second; 0 takes every frame it can.", low=0, high=1000, unit="Hz")

    global_frame_id: str = at_start("map", "Frame of the poses that are published.")
    odom_frame_id: str = at_start("odom", "Odometry frame; empty where there is no odometry.")
    base_frame_id: str = at_start("base_link", "Frame of the robot.")
    tf_broadcast: bool = setting(True, "Broadcast map -> odom (map -> base where there is no odometry).")
    planar: str = setting(
        "auto",
        "The transform, and the seed of AMCL, have x, y and yaw only, for a robot on wheels; ~/pose has all. auto is "
        "true with feed: amcl and false otherwise; config/nav2.yaml says true.",
        choices=SWITCH,
    )
    tf_rate: float = at_start(20.0, "How often map -> odom is repeated.", low=0.1, high=200, unit="Hz")
    transform_tolerance: float = setting(
        1.0, "map -> odom is post-dated by this, as AMCL does.", low=0, high=60, unit="s"
    )
    tf_wait: float = setting(
        3.0, "First frames wait this long for base -> camera; then ~/pose is the camera's.", low=0, high=60, unit="s"
    )

    set_initial_pose: bool = setting(False, "Use initial_pose.* as the first guess of the robot's pose.")
    initial_pose: InitialPose = group(InitialPose, "initial_pose")
    feed: str = at_start("none", "amcl publishes initialpose to seed AMCL, instead of TF.", choices=("none", "amcl"))
    feed_interval: float = setting(
        0.0, "AMCL is seeded again this often; 0 only by the first pose and on request.", low=0, high=3600, unit="s"
    )
    relocalize_timeout: float = setting(5.0, "How long ~/relocalize waits for an attempt.", low=0.1, high=120, unit="s")

    path_length: int = setting(1000, "Poses kept in ~/path.", low=1, high=100000)
    points_stride: int = setting(4, "Every n-th pixel goes into ~/points.", low=1, high=64)
    map_points_voxel: float = setting(0.05, "Resolution of ~/map_points; 0 publishes none.", low=0, high=10, unit="m")

    @property
    def is_planar(self) -> bool:
        """Whether what others steer by is reduced to x, y and yaw."""
        return self.planar == "true" or (self.planar == "auto" and self.feed == "amcl")
