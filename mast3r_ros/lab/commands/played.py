"""What `replay` and `evaluate bag` share: how a recording is read, and with what its frames are localized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import load_map, make_relocalizer
from mast3r_ros.cli.options import KeyframesOption, MatcherOptions, ParamsOption, chosen_settings, option
from mast3r_ros.cli.source import IntrinsicsOption, calibration

if TYPE_CHECKING:
    from mast3r_ros.lab.runs.gallery import Gallery
    from mast3r_ros.lab.runs.replay import ReplaySettings
    from mast3r_ros.pipeline import Relocalizer
    from mast3r_ros.settings import NodeSettings, Settings


@dataclass(frozen=True)
class PlayedOptions:
    """Which frames of a recording are localized, and with which settings."""

    keyframes: KeyframesOption = None
    params: ParamsOption = None
    image_topic: Annotated[str | None, typer.Option(help="Colour images.")] = None
    camera_info_topic: Annotated[str | None, typer.Option(help="Calibration.")] = None
    depth_topic: Annotated[str | None, typer.Option(help="Depth images.")] = None
    intrinsics: IntrinsicsOption = None
    depth: Annotated[
        bool | None, typer.Option("--depth/--no-depth", help="Check poses against recorded depth, where there is any.")
    ] = None
    odom_frame: Annotated[str | None, option("odom_frame_id", "--odom-frame")] = None
    base_frame: Annotated[str | None, option("base_frame_id", "--base-frame")] = None
    every: Annotated[int, typer.Option(min=1, help="Take each n-th frame only.")] = 1

    def settings(self) -> Settings:
        """The settings of the parameter file and these options. Raises SettingsError."""
        return chosen_settings(
            self.params,
            keyframes=self.keyframes,
            use_depth=self.depth,
            odom_frame_id=self.odom_frame,
            base_frame_id=self.base_frame,
        )

    def reading(self, node: NodeSettings, **truth: Any) -> ReplaySettings:
        """What is read of the recording, ``truth`` being the fields about reference poses. Raises DatasetError."""
        from mast3r_ros.lab.runs.replay import ReplaySettings

        return ReplaySettings.of_node(
            node,
            image_topic=self.image_topic,
            camera_info_topic=self.camera_info_topic,
            depth_topic=self.depth_topic,
            every=self.every,
            camera=calibration(self.intrinsics, self.image_topic or ""),
            **truth,
        )


@dataclass(frozen=True, eq=False)
class Playing:
    """A recording about to be localized.

    Attributes:
        frames: how many there are, for a progress bar.
        about: what a report says of the run.
    """

    relocalizer: Relocalizer
    reading: ReplaySettings
    gallery: Gallery
    frames: int
    about: dict[str, Any]


def prepare(bag: Path, map: Path, played: PlayedOptions, matching: MatcherOptions, **truth: Any) -> Playing:
    """Load map and matcher, and get the map ready for it. Raises UserError for whatever cannot be used."""
    from mast3r_ros.lab.runs.gallery import Gallery
    from mast3r_ros.lab.runs.replay import count_frames

    settings = played.settings()
    reading = played.reading(settings.node, **truth)
    keyframe_map = load_map(map)
    matcher = matching.make(settings)
    frames = count_frames(bag, reading)
    about = {
        "bag": str(bag),
        "map": str(map),
        "map_keyframes": len(keyframe_map),
        "matcher": matcher.name,
        "features": matcher.signature,
        "keyframes": settings.localizer.keyframes,
        "changed": settings.differences(),
    }
    relocalizer = make_relocalizer(keyframe_map, matcher, settings)
    return Playing(relocalizer, reading, Gallery(keyframe_map), frames, about)
