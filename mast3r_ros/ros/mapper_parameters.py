"""Every parameter of the mapper node, and how they become the core's settings."""

from __future__ import annotations

from dataclasses import dataclass

from mast3r_ros.localization.coverage import CoverageSettings
from mast3r_ros.mapping.selection import SelectionSettings
from mast3r_ros.mapping.session import EXISTING
from mast3r_ros.node_settings import SWITCH
from mast3r_ros.settings import CommonSettings, MatcherSettings
from mast3r_ros.tables import group, setting


@dataclass(frozen=True)
class MapperParameters(CommonSettings):
    """The table; ``as_markdown`` makes the documentation's page from it."""

    map: str = setting("", "Folder that the map is saved to; may be changed before ~/save_map.")
    existing: str = setting(
        "refuse", "What to do with a map that is there already (read at start).", choices=EXISTING, fixed=True
    )
    automatic: bool = setting(True, "Keyframes are selected while frames come in; false: only by ~/add_keyframe.")
    save_on_shutdown: bool = setting(True, "Save keyframes that are not saved yet when the node is stopped.")
    autosave_interval: float = setting(
        0.0, "Save this often while there is something new; 0 never.", low=0, high=86400, unit="s"
    )

    global_frame_id: str = setting("map", "Frame of the poses (map, or odom where that is good enough).", fixed=True)

    refine: str = setting(
        "auto",
        "Without depth, ~/save_map makes poses anew by structure from motion, scaled by the given ones (about half a "
        "second for each keyframe); auto where global_frame_id is odom.",
        choices=SWITCH,
        fixed=True,
    )

    selection: SelectionSettings = group(SelectionSettings, "selection")

    coverage_rate: float = setting(
        1.0, "How often a frame is tried against the map; 0 is off.", low=0, high=30, unit="Hz"
    )
    coverage_leave_out: float = setting(
        CoverageSettings.leave_out_s,
        "Keyframes taken within this time of a frame do not count in its trial.",
        low=0,
        high=3600,
        unit="s",
        fixed=True,
    )
    matching: MatcherSettings = group(MatcherSettings)

    def coverage_settings(self) -> CoverageSettings:
        """The core's settings with these values."""
        return CoverageSettings(leave_out_s=self.coverage_leave_out)
