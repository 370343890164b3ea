"""Every parameter of the mapper node, and how they become the core's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mast3r_ros.localization.coverage import CoverageSettings
from mast3r_ros.mapping.selection import SelectionSettings
from mast3r_ros.mapping.session import EXISTING
from mast3r_ros.matching.registry import matcher_options
from mast3r_ros.ros.parameters import param


@dataclass(frozen=True)
class MapperParameters:
    """The table; ``as_markdown`` makes the documentation's page from it."""

    map: str = param("", "Folder that the map is saved to; may be changed before ~/save_map.")
    existing: str = param(
        "refuse", "What to do with a map that is there already (read at start).", choices=EXISTING, fixed=True
    )
    automatic: bool = param(True, "Keyframes are selected while frames come in; false: only by ~/add_keyframe.")
    save_on_shutdown: bool = param(True, "Save keyframes that are not saved yet when the node is stopped.")
    autosave_interval: float = param(
        0.0, "Save this often while there is something new; 0 never.", low=0, high=86400, unit="s"
    )

    image_transport: str = param(
        "raw", "Type of the image topic: Image or CompressedImage.", choices=("raw", "compressed"), fixed=True
    )
    rectified: bool = param(False, "The images are rectified: P of camera_info holds, without distortion.")
    use_depth: bool = param(True, "Use the depth topic where somebody publishes it.", fixed=True)
    depth_slop: float = param(0.02, "A depth image this close in time belongs to the image.", low=0, high=1, unit="s")

    global_frame_id: str = param("map", "Frame of the poses (map, or odom where that is good enough).", fixed=True)
    camera_frame_id: str = param("", "Camera optical frame; empty takes the image's frame_id.", fixed=True)
    tf_timeout: float = param(0.2, "Longest wait for transforms at the image's stamp.", low=0, high=5, unit="s")

    selection__distance: float = param(
        SelectionSettings.distance,
        "A view this far from every keyframe is new, as a share of the distance of what it sees.",
        low=0,
        high=10,
    )
    selection__distance_m: float = param(
        SelectionSettings.distance_m, "The same in metres, instead, where it is not 0.", low=0, high=1000, unit="m"
    )
    selection__angle_deg: float = param(
        SelectionSettings.angle_deg, "So is one turned this much.", low=0, high=180, unit="deg"
    )
    selection__sharpness: float = param(
        SelectionSettings.sharpness,
        "Frames with less than this share of the sharpness of similar views are blurred; 0 is off.",
        low=0,
        high=1,
    )
    selection__require_depth: bool = param(
        SelectionSettings.require_depth, "Skip frames without depth where depth is published."
    )
    selection__max_keyframes: int = param(
        SelectionSettings.max_keyframes, "Most keyframes; 0 for no limit.", low=0, high=1000000
    )

    coverage_rate: float = param(
        1.0, "How often a frame is tried against the map; 0 is off.", low=0, high=30, unit="Hz"
    )
    coverage_leave_out: float = param(
        CoverageSettings.leave_out_s,
        "Keyframes taken within this time of a frame do not count in its trial.",
        low=0,
        high=3600,
        unit="s",
        fixed=True,
    )
    matcher: str = param("auto", "Matcher of the coverage trials, as in the relocalizer.", fixed=True)
    feature: str = param("sift", "Feature of the sift matcher.", choices=("sift", "orb"), fixed=True)
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

    def matcher_options(self) -> dict[str, Any]:
        """Options for ``registry.create``: those of the parameters that the matcher has."""
        names = ("feature", "max_features", "checkpoint", "device", "dtype")
        options = {name: getattr(self, name) for name in names} | {"size": self.network_size}
        return matcher_options(self.matcher, options)

    def selection_settings(self) -> SelectionSettings:
        """The core's settings with these values."""
        prefix = "selection__"
        return SelectionSettings(**{n.removeprefix(prefix): v for n, v in vars(self).items() if n.startswith(prefix)})

    def coverage_settings(self) -> CoverageSettings:
        """The core's settings with these values."""
        return CoverageSettings(leave_out_s=self.coverage_leave_out)
