"""`mast3r_ros evaluate sevenscenes|twelvescenes|tum`: a map of one part of a data set, queries from another."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import load_map, stages
from mast3r_ros.cli.options import JsonOption, MatcherOptions, WorkersOption, grouped
from mast3r_ros.lab.commands.options import DEFAULT_KEYFRAMES, KeyframesCount
from mast3r_ros.lab.commands.summary import ReportOption, finish

if TYPE_CHECKING:
    from mast3r_ros.frames import Camera
    from mast3r_ros.lab.runs.splits import QuerySettings

QueryDepthOption = Annotated[
    bool, typer.Option(help="Check poses against the queries' own depth; a plain colour camera has none.")
]


@dataclass(frozen=True)
class QueryOptions:
    """How queries of a split are localized."""

    keyframes: KeyframesCount = DEFAULT_KEYFRAMES
    query_depth: QueryDepthOption = False
    tracking: Annotated[
        bool, typer.Option(help="Take the queries as one sequence: each pose is held against the last one.")
    ] = False
    workers: WorkersOption = "1"

    def settings(self) -> QuerySettings:
        """The same for :func:`evaluate_split`."""
        from mast3r_ros.lab.runs.splits import QuerySettings

        return QuerySettings(self.keyframes, self.query_depth, self.tracking)


@grouped
def scene(
    *,
    path: Annotated[
        Path,
        typer.Argument(
            help="7-Scenes: a folder with seq-*, TrainSplit.txt and TestSplit.txt. 12-Scenes: one with data/, "
            "info.txt and split.txt."
        ),
    ],
    matching: MatcherOptions,
    map: Annotated[Path | None, typer.Option(help="Use this map; by default one is made of the train split.")] = None,
    asking: QueryOptions,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Localize the test split of a 7-Scenes or 12-Scenes scene in a map of its train split."""
    from mast3r_ros.lab.runs.scenes import evaluate_scene, map_of_train_split
    from mast3r_ros.workers import workers as several

    chosen = matching.make()
    settings = asking.settings()
    with (
        several(asking.workers) as by,
        stages() as show,
        nullcontext(load_map(map)) if map else map_of_train_split(path, chosen, show, by) as keyframe_map,
    ):
        evaluation, pictures = evaluate_scene(path, keyframe_map, chosen, settings, show, by)
        finish(evaluation, keyframe_map, pictures, report, json)


@grouped
def tum(
    *,
    mapping: Annotated[
        Path, typer.Argument(help="Sequence to map: a folder with rgb.txt, groundtruth.txt and, for sift, depth.txt.")
    ],
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Sequence to look for, with ground truth in the same frame; by default every second stretch of "
            "MAPPING is held out of the map."
        ),
    ] = None,
    hold_out: Annotated[float, typer.Option(min=0.1, help="Length of those stretches (s).")] = 5.0,
    every: Annotated[int, typer.Option(min=1, help="Look for each n-th frame only.")] = 1,
    intrinsics: Annotated[
        str | None,
        typer.Option(
            metavar="FX,FY,CX,CY[,K1,K2,P1,P2[,K3]]|FILE",
            help="Calibration in pixels, or a ROS camera_info YAML file; by default freiburg1, 2 or 3 by the folder's "
            "name.",
        ),
    ] = None,
    depth_scale: Annotated[float, typer.Option(min=1, help="Units of the depth images per metre.")] = 5000.0,
    max_delay: Annotated[
        float, typer.Option(min=0, help="Colour and depth of a frame at most so far apart (s).")
    ] = 0.02,
    matching: MatcherOptions,
    map: Annotated[Path | None, typer.Option(help="Use this map; by default one is made of MAPPING.")] = None,
    asking: QueryOptions,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Localize frames of a TUM RGB-D sequence in a map of another, or of held-out stretches in the rest of their own.

    ICL-NUIM and Bonn come in the same layout; give their --intrinsics.
    """
    from mast3r_ros.lab.runs.splits import evaluate_split, temporary_map
    from mast3r_ros.lab.runs.tum import TumSplit
    from mast3r_ros.mapping.selection import SelectionSettings
    from mast3r_ros.workers import workers as several

    options: dict[str, Any] = {"depth_scale": depth_scale, "max_delay_s": max_delay}
    if intrinsics is not None:
        options["camera"] = _camera(intrinsics, queries or mapping)
    chosen = matching.make()
    split = TumSplit(mapping, queries, hold_out, every, options)
    looked_for = split.query_frames(asking.query_depth)
    settings = asking.settings()
    about = {"data": str(mapping), "queries": str(queries or f"every second stretch of {hold_out:g} s"), "every": every}
    with (
        several(asking.workers) as by,
        stages() as show,
        nullcontext(load_map(map))
        if map
        else temporary_map(split.map_frames(), chosen, str(mapping), show, SelectionSettings(), by) as keyframe_map,
    ):
        evaluation, pictures = evaluate_split(
            looked_for, keyframe_map, chosen, settings, show, name=split.name, about=about, by=by
        )
        finish(evaluation, keyframe_map, pictures, report, json)


def _camera(text: str, sequence: Path) -> Camera:
    """Calibration from a file, or from numbers for images of the sequence's size."""
    import numpy as np

    from mast3r_ros.frames import Camera
    from mast3r_ros.io.datasets.base import read_image, read_table
    from mast3r_ros.io.datasets.camera_file import read_camera

    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        return read_camera(Path(text))
    if len(values) not in (4, 8, 9):
        raise typer.BadParameter(
            f"--intrinsics {text}: expected 4, 8 or 9 numbers, or a file, got {len(values)} numbers"
        )
    _, words = next(read_table(sequence / "rgb.txt"), (0, ["", ""]))
    height, width = read_image(sequence / words[-1])[0].shape[:2]
    fx, fy, cx, cy = values[:4]
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return Camera(width, height, K, "plumb_bob" if values[4:] else "none", np.array(values[4:]))
