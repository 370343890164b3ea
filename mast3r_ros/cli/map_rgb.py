"""`mast3r_ros map build` where no depth is known: odometry's poses are refined, photos without poses reconstructed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mast3r_ros.io.datasets import Source
    from mast3r_ros.mapping.build import BuildReport
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.mapping.selection import SelectionSettings
    from mast3r_ros.matching.base import Matcher
    from mast3r_ros.multiview.reconstruct import Reconstruction
    from mast3r_ros.multiview.refine_map import Refinement
    from mast3r_ros.multiview.scale import Scale

Stages = Callable[[str, int, int], None]


class Refiner:
    """Refines the poses of a map while it is built.

    Args:
        required: fail where that cannot be done; otherwise poses are taken as they are, with a warning.

    Attributes:
        found: what came out; None where nothing was refined.
    """

    def __init__(self, required: bool, show: Stages) -> None:
        self._required, self._show = required, show
        self.found: Refinement | None = None
        self.doubts: list[str] = []

    def __call__(self, keyframe_map: KeyframeMap) -> None:
        from mast3r_ros.errors import MapError
        from mast3r_ros.multiview.refine_map import refine_map

        try:
            self.found = refine_map(keyframe_map, self._show)
        except MapError as error:
            if self._required:
                raise MapError(f"{error}; --no-refine takes them as they are") from error
            self.doubts = [f"poses are odometry's as they are, and drift: {error}"]
            return
        self.doubts = self.found.doubts

    @property
    def facts(self) -> dict[str, Any]:
        """What is printed of it."""
        if self.found is None:
            return {}
        return {
            "refined": len(self.found.poses) - len(self.found.placed) - len(self.found.flagged),
            "flagged": list(self.found.flagged),
            "placed_by_odometry": self.found.placed,
            "moved_m": list(self.found.moved_m),
            "scale": 1.0,
            "scale_interval": list(self.found.scale.relative_interval),
        }


def map_of_frames(
    frames: Source,
    source: Path,
    frame_id: str,
    selection: SelectionSettings,
    matcher: Matcher,
    refine: bool | None,
    show: Stages,
) -> tuple[KeyframeMap, BuildReport, list[str], dict[str, Any]]:
    """A map of frames with poses, what is doubtful about it, and what is printed of its refinement.

    Args:
        refine: whether poses are refined where no depth is known; None: where odometry alone knows them.
    """
    from mast3r_ros.mapping.build import build_map
    from mast3r_ros.multiview.refine_map import is_odometry

    wanted = is_odometry(str(getattr(frames, "map_frame", ""))) if refine is None else refine
    refiner, count = Refiner(refine is True, show), len(frames) if hasattr(frames, "__len__") else 0
    made, report = build_map(
        frames,
        frame_id=frame_id,
        selection=selection,
        matcher=matcher,
        describe=False,  # after the first save, with a progress bar
        source_name=str(source),
        progress=lambda seen, kept: show(f"reading frames, {kept} keyframes", seen, count),
        refine=refiner if wanted else None,
    )
    return made, report, refiner.doubts, refiner.facts


def only_photos(source: Path) -> bool:
    """Whether a source is a folder of images that comes without poses."""
    from mast3r_ros.errors import DatasetError
    from mast3r_ros.io.datasets.detect import detect
    from mast3r_ros.multiview.photos import open_photos

    try:
        detect(source)
    except DatasetError:
        try:
            return source.is_dir() and bool(open_photos(source).files)
        except DatasetError:
            return False
    return False


def map_of_photos(
    source: Path, finder: Matcher, intrinsics: Path | None, known_length: tuple[str, str, float] | None, show: Stages
) -> tuple[KeyframeMap, BuildReport, list[str]]:
    """A map of the largest part of a folder of photos, and what is doubtful about it, a sentence each.

    Args:
        finder: places the images; a metric network tells the scale as well, where no length is known.
    """
    from mast3r_ros.mapping.build import BuildReport
    from mast3r_ros.multiview.photos import open_photos
    from mast3r_ros.multiview.reconstruct import normalised, reconstruct
    from mast3r_ros.multiview.scale import checked_length, from_length, from_network, provenance
    from mast3r_ros.multiview.write_scene import keyframe_map

    photos = open_photos(source, intrinsics)
    length = None if known_length is None else checked_length(photos.names, *known_length)
    result = reconstruct(photos, finder, progress=show)
    model = result.models[0]
    names = [photo.name for photo in result.photos]
    scale = (
        from_length(model, names, *length)
        if length
        else from_network(model, f"the scale of the network of {finder.name}")
    )
    model = normalised(model) if scale is None else scale.applied(model)
    made = keyframe_map(
        model,
        result.photos,
        provenance(scale),
        str(source),
        progress=lambda done, total: show("writing the map", done, total),
    )
    report = BuildReport(len(photos.files), len(model), Counter(not_registered=len(photos.files) - len(model)))
    return made, report, _doubts(result, scale, length is not None)


def _doubts(result: Reconstruction, scale: Scale | None, told: bool) -> list[str]:
    found = [f"{name} {why}" for name, why in list(result.unregistered.items())[:10]]
    if len(result.models) > 1:
        sizes = ", ".join(str(len(model)) for model in result.models)
        found.append(
            f"the images fall into {len(result.models)} parts that share nothing ({sizes} images): this is the "
            "largest; mast3r_ros reconstruct makes a map of each"
        )
    if scale is None:
        why = "an image of the known length is not in the map" if told else "nothing tells it"
        found.append(
            f"the scale is unknown ({why}): the map is not used for localization until mast3r_ros map scale gives it "
            "one (--known-length A B METRES)"
        )
    elif not told:
        low, high = scale.relative_interval
        found.append(
            f"the scale is a network's, true by {100 * (low - 1):+.0f} to {100 * (high - 1):+.0f} %: measure a length "
            "(mast3r_ros map scale MAP --known-length A B METRES)"
        )
    return found
