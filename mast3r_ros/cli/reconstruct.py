"""`mast3r_ros reconstruct`: photos or a video to cameras, points and a keyframe map."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, stages, warn
from mast3r_ros.cli.options import CheckpointOption, DeviceOption, JsonOption, MatcherOption, MatcherOptions, grouped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mast3r_ros.matching.base import Matcher
    from mast3r_ros.multiview.model import Model
    from mast3r_ros.multiview.photos import Photo, PhotoFolder
    from mast3r_ros.multiview.scale import Scale


#: Images of a film that each is matched with for following it.
FOLLOWING = 4
#: Pixels between those that matching starts from, for dense geometry.
DENSE_SPACING = 2


class Mapper(str, Enum):
    """What places the images."""

    AUTO = "auto"
    OWN = "own"
    PYCOLMAP = "pycolmap"
    SPARSE = "sparse"
    GLOBAL = "global"


@dataclass(frozen=True)
class ScaleOptions:
    """What tells the scale."""

    poses: Annotated[
        Path | None,
        typer.Option(
            "--poses",
            help="Known poses of some images, 'name qw qx qy qz tx ty tz' (camera to map, metres): they give the scale "
            "and the map's frame.",
        ),
    ] = None
    keep_poses: Annotated[
        bool, typer.Option("--keep-poses", help="The poses of --poses are exact: they are kept, not only aligned to.")
    ] = False
    known_length: Annotated[
        tuple[str, str, float] | None,
        typer.Option("--known-length", help="Two images and the metres between them.", metavar="A B METRES"),
    ] = None
    odometry: Annotated[
        bool,
        typer.Option(
            "--odometry",
            help="The source is a recording with poses (a bag, ...): they are odometry, and tell the scale.",
        ),
    ] = False

    def kept(self, photos: PhotoFolder) -> dict[str, NDArray[np.float64]]:
        """Poses (4, 4) by image name that stay as they are."""
        from mast3r_ros.multiview.scale import read_camera_poses

        if not self.keep_poses:
            return {}
        if self.poses is None:
            raise typer.BadParameter("--keep-poses needs the poses: --poses FILE")
        return read_camera_poses(self.poses, photos.names)


@dataclass(frozen=True)
class MappingOptions:
    """How images are placed."""

    neighbours: Annotated[int, typer.Option(min=2, help="Images that each is matched with, by appearance.")] = 12
    mapper: Annotated[Mapper, typer.Option(help="What places the images.")] = Mapper.AUTO
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Triangulate depth from dense matches (multi-view stereo) instead of taking the network's: slower, "
            "exact where images overlap, nothing elsewhere.",
        ),
    ] = False
    memory: Annotated[
        int, typer.Option(min=64, help="MiB that features and matches may take; what is not in use lies on disk.")
    ] = 1024


@grouped
def reconstruct(
    *,
    source: Annotated[Path, typer.Argument(help="Folder of photos, or a video.", metavar="IMAGES|VIDEO")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the scene.", metavar="SCENE")],
    matcher: MatcherOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    intrinsics: Annotated[
        Path | None,
        typer.Option(
            "--intrinsics",
            help="Calibration: lines 'name fx fy cx cy width height', or 'width height fx fy cx cy' for all, or the "
            "file of a calibration (.yaml). Without it focal lengths are found.",
        ),
    ] = None,
    known: ScaleOptions,
    how: MappingOptions,
    json: JsonOption = False,
) -> None:
    """Find cameras and points from photos or a video alone, and make a keyframe map of them.

    What was found lies in .SCENE.work beside the scene until all is done: a run that was interrupted goes on by it.

    The map's scale is unknown unless --known-length, --poses or --odometry tell it; such a map is not used for
    localization until `mast3r_ros map scale` gives it one.
    """
    from mast3r_ros.mapping.atomic import replacing
    from mast3r_ros.memory import peak_mib
    from mast3r_ros.multiview.reconstruct import ReconstructSettings
    from mast3r_ros.multiview.reconstruct import reconstruct as run
    from mast3r_ros.multiview.scene_folder import check_place, write_facts, write_scene
    from mast3r_ros.pictures.scene_pictures import draw_scene

    began = time.monotonic()
    scene = output.expanduser().resolve()
    check_place(scene, source)
    work = scene.with_name(f".{scene.name}.work")
    finder = _finder(matcher, checkpoint, device, how.dense)
    with stages() as show, replacing(scene) as fresh:
        photos, driven = _photos(source, fresh, intrinsics, known.odometry, show)
        film = FOLLOWING if source.is_file() or known.odometry else 0
        scale = _scale(photos, known.poses, known.known_length, driven, f"the scale of the network of {finder.name}")
        settings = ReconstructSettings(how.neighbours, film, how.mapper.value, how.memory << 20, how.dense)
        result = run(photos, finder, settings, show, work=work, known=known.kept(photos))
        save = _saver(matcher, checkpoint, device, show)
        facts = write_scene(fresh, result, lambda model: scale(model, result.photos), str(source), save, show)
        facts |= {"pictures": draw_scene(fresh, facts)}
        facts |= {"seconds": time.monotonic() - began, "peak_memory_mib": peak_mib(), "scene": str(scene)}
        write_facts(fresh, facts)
    shutil.rmtree(work, ignore_errors=True)
    if facts["scale"] is None and known != ScaleOptions():
        warn("what was given tells no scale of the largest part: too few of those images are registered in it")
    _tell(facts, json)


def _finder(name: str | None, checkpoint: Path | None, device: str | None, dense: bool) -> Matcher:
    """What finds matches: SIFT with more and finer features than a robot has time for, unless another is named."""
    if name in (None, "sift"):
        from mast3r_ros.multiview.reconstruct import fine_sift

        return fine_sift()
    closer: dict[str, Any] = {"subsample": DENSE_SPACING} if dense else {}
    return MatcherOptions(name, checkpoint=checkpoint, device=device).make(**closer)


def _photos(
    source: Path, fresh: Path, intrinsics: Path | None, odometry: bool, show: Callable[[str, int, int], None]
) -> tuple[PhotoFolder, dict[str, NDArray[np.float64]]]:
    """The images, and the odometry poses (4, 4) of a recording's by name."""
    from dataclasses import replace

    from mast3r_ros.cli.source import BagOptions
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.multiview.photos import open_photos
    from mast3r_ros.multiview.video import frames_of_recording, frames_of_video

    def choosing(done: int, total: int) -> None:
        show("choosing frames", done, total)

    if odometry:
        recording = open_source(source, None, **BagOptions(intrinsics=intrinsics, depth=False).given())
        cameras, driven = frames_of_recording(recording, fresh / "images", progress=choosing)
        return replace(open_photos(fresh / "images"), cameras=cameras), driven
    if not source.is_file():
        return open_photos(source, intrinsics), {}
    frames_of_video(source, fresh / "images", progress=choosing)
    return open_photos(fresh / "images", intrinsics), {}


def _scale(
    photos: PhotoFolder,
    poses: Path | None,
    known_length: tuple[str, str, float] | None,
    driven: dict[str, NDArray[np.float64]],
    network: str,
) -> Callable[[Model, Sequence[Photo]], Scale | None]:
    """What tells the scale of a model; what was given is read and checked now, before the long work."""
    from mast3r_ros.multiview.scale import (
        checked_length,
        from_length,
        from_network,
        from_odometry,
        from_poses,
        read_camera_poses,
    )

    if poses is not None:
        known = read_camera_poses(poses, photos.names)
        return lambda model, images: from_poses(model, _by_number(known, images), f"poses of {poses}")
    if known_length is not None:
        length = checked_length(photos.names, *known_length)
        return lambda model, images: from_length(model, [image.name for image in images], *length)
    if driven:
        return lambda model, images: from_odometry(model, _by_number(driven, images), "odometry")
    return lambda model, images: from_network(model, network)


def _by_number(poses: dict[str, NDArray[np.float64]], images: Sequence[Photo]) -> dict[int, NDArray[np.float64]]:
    return {n: poses[image.name] for n, image in enumerate(images) if image.name in poses}


def _saver(
    name: str | None, checkpoint: Path | None, device: str | None, show: Callable[[str, int, int], None]
) -> Callable[[Any, Path], list[str]]:
    from mast3r_ros.localization.map_noise import save_ready

    chosen = MatcherOptions(name or "sift", checkpoint=checkpoint, device=device).make()
    return lambda keyframes, path: save_ready(keyframes, chosen, path, show)


def _tell(facts: dict[str, Any], json: bool) -> None:
    for name, why in facts["unregistered"].items():
        warn(f"{name} {why}")
    for doubt in facts["doubts"]:
        warn(doubt)
    if facts["components"] > 1:
        sizes = ", ".join(str(part["registered"]) for part in facts["parts"])
        warn(f"the images fall into {facts['components']} parts that share nothing ({sizes} images); each has a map")
    if facts["scale"] is None:
        warn(
            "the scale is unknown: before the map can be used, give it one (mast3r_ros map scale "
            f"{facts['scene']}/map --known-length A B METRES)"
        )
    if json:
        print_json(facts)
        return
    scale = "unknown"
    if facts["scale_interval"] is not None:
        low, high = facts["scale_interval"]
        scale = f"metric, {100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} % ({facts['scale_origin']})"
    print_facts(
        f"Scene {facts['scene']}",
        {
            "images": facts["images"],
            "registered": facts["registered"],
            "components": facts["components"],
            "points": facts["points"],
            "scale": scale,
            "rejected pairs": len(facts["rejected_pairs"]),
            "time": f"{facts['seconds']:.0f} s, {facts['peak_memory_mib']:.0f} MiB",
        },
    )
    note(f"look at it: {', '.join(str(Path(facts['scene']) / name) for name in facts['pictures'])}")
