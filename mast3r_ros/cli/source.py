"""Options that say how a source of frames is read: the same words in every command that reads one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mast3r_ros.frames import Camera

LayoutOption = Annotated[str | None, typer.Option("--layout", help="Kind of source, where it is not recognised.")]
SplitOption = Annotated[str | None, typer.Option("--split", help="7-Scenes: train or test.")]
IntrinsicsOption = Annotated[
    Path | None,
    typer.Option(
        "--intrinsics",
        help="Calibration of the images instead of the source's: a file of ROS's camera_calibration, ros2 topic echo "
        "camera_info, OpenCV, or Kalibr (FILE#cam1 names one of several cameras).",
    ),
]
ImageTopicOption = Annotated[str | None, typer.Option("--image-topic", help="Bag: colour images.")]
InfoTopicOption = Annotated[str | None, typer.Option("--camera-info-topic", help="Bag: calibration.")]
DepthTopicOption = Annotated[str | None, typer.Option("--depth-topic", help="Bag: depth images.")]
PoseTopicOption = Annotated[str | None, typer.Option("--pose-topic", help="Bag: poses from this topic instead of TF.")]
MapFrameOption = Annotated[str | None, typer.Option("--map-frame", help="Bag: the fixed frame.")]
CameraFrameOption = Annotated[str | None, typer.Option("--camera-frame", help="Bag: the camera's optical frame.")]
DepthOption = Annotated[bool, typer.Option("--depth/--no-depth", help="Whether depth is used where there is any.")]
ScaleOption = Annotated[float | None, typer.Option("--scale", help="COLMAP: metres for each unit of the model.")]
ImagesOption = Annotated[
    Path | None, typer.Option("--images", help="COLMAP: folder of the images, where it is not beside the model.")
]
DepthScaleOption = Annotated[float | None, typer.Option("--depth-scale", help="Units of depth images per metre.")]


def source_options(intrinsics: Path | None = None, depth: bool = True, **given: Any) -> dict[str, Any]:
    """Keyword arguments for ``open_source``: those that were given.

    Raises:
        DatasetError: if the calibration file cannot be read.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if intrinsics is not None:
        options["camera"] = calibration(intrinsics, given.get("image_topic") or "")
    if not depth:
        options["use_depth"] = False
    return options


def calibration(file: Path | None, image_topic: str = "") -> Camera | None:
    """The camera of a calibration file. Raises DatasetError."""
    if file is None:
        return None
    from mast3r_ros.io.datasets.camera_file import read_camera

    return read_camera(file, image_topic)
