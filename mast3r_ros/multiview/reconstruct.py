"""From a folder of photographs to cameras and points: features once, pairs, one motion for each, models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError, UserError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.matching.base import Matcher, capabilities, matches_pixels
from mast3r_ros.matching.pair_maps import PointmapMatcher, predicts_pointmaps
from mast3r_ros.matching.sift import SiftMatcher
from mast3r_ros.multiview import pair_graph
from mast3r_ros.multiview.colmap_mapper import map_with_pycolmap, pycolmap_installed
from mast3r_ros.multiview.cycles import contradicted
from mast3r_ros.multiview.growing import grow_all
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.pointmap_scene import PointmapInput, reconstruct_pointmaps
from mast3r_ros.multiview.similar_views import pairs_to_match, verified_pairs
from mast3r_ros.multiview.verification import VerifiedPair
from mast3r_ros.multiview.work_folder import DescribedImages, WorkFolder

#: Mappers that need pointmaps.
POINTMAP_MAPPERS = ("sparse", "global")
#: Told what is being done, and how far it is.
Stages = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ReconstructSettings:
    """How images are reconstructed.

    Attributes:
        neighbours: images that each is matched with, by appearance.
        following: and those that follow it, of a film.
        mapper: ``own`` or ``pycolmap`` (where the extra ``colmap`` is installed), from matches; ``sparse``, from
            matches and a network's pointmaps (MASt3R's alignment); ``global``, from pointmaps alone (DUSt3R's).
            ``auto`` takes ``sparse`` where pointmaps are in metres, ``global`` where in no unit, ``own`` without any.
        memory: bytes that features and matches may take.
        stereo: depth of pixels is triangulated from dense matches, instead of a network's own.
    """

    neighbours: int = 12
    following: int = 0
    mapper: str = "auto"
    memory: int = 1 << 30
    stereo: bool = False


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What came out.

    Attributes:
        photos: all usable images; models count them.
        models: the components, the largest first.
        unregistered: why an image is in no component, by name.
        rejected: pairs that were believed at first and then contradicted, by names.
    """

    photos: list[Photo]
    models: list[Model]
    unregistered: dict[str, str]
    rejected: list[tuple[str, str]] = field(default_factory=list)


class ImageSource(Protocol):
    """Images that are read one after the other: a folder of photos, or the keyframes of a map.

    Attributes:
        folder: where they are from.
        unusable: why an image is left out, by name; filled while reading.
    """

    folder: Path
    unusable: dict[str, str]

    @property
    def files(self) -> Sequence[Any]:
        """All of them, usable or not."""

    def __iter__(self) -> Iterator[tuple[Photo, Frame]]: ...


class ReconstructionError(UserError):
    """Images of which nothing can be reconstructed."""


def fine_sift() -> SiftMatcher:
    """SIFT with more and finer features than a robot has time for."""
    return SiftMatcher(max_features=4000, longest_side=2000)


def reconstruct(
    source: ImageSource,
    matcher: Matcher,
    settings: ReconstructSettings = ReconstructSettings(),
    progress: Stages = lambda stage, done, total: None,
    work: Path | None = None,
    known: Mapping[str, NDArray[np.float64]] | None = None,
) -> Reconstruction:
    """Cameras and points of everything that hangs together.

    Args:
        matcher: one that matches pixels of images whose depth is not known.
        work: folder for what is found on the way; whatever it holds already is not computed again. A temporary one by
            default.
        known: world_T_camera (4, 4) by image name, kept as they are by ``sparse`` and ``global``.

    Raises:
        ReconstructionError: where fewer than two images are usable, or none of them can be placed; it says why.
        MatcherError: for a matcher that cannot match pixels, or a mapper that is not installed.
    """
    mapper = _mapper(matcher, settings.mapper)
    if (settings.stereo or known) and mapper not in POINTMAP_MAPPERS:
        what = "dense geometry" if settings.stereo else "keeping known poses"
        raise MatcherError(f"{what} needs a matcher with pointmaps and the mapper sparse or global: --matcher mast3r")
    with tempfile.TemporaryDirectory(prefix="mast3r_ros_") as temporary:
        kept = WorkFolder(Path(temporary) / "work" if work is None else work, _signature(matcher))
        described, photos = DescribedImages(kept, settings.memory // 2), list[Photo]()
        for photo, frame in source:
            if not described.known(len(photos), photo.digest):
                features = matcher.describe(Frame(frame.image, frame.camera, name=photo.name))
                described.put(len(photos), photo.digest, features)
            photos.append(photo)
            progress("finding features", len(photos) + len(source.unusable), len(source.files))
        if len(photos) < 2:
            raise ReconstructionError(_too_few(source, photos))
        alike = pairs_to_match(described, len(photos), matcher, settings.neighbours)
        next_ones = pair_graph.sliding_window(len(photos), settings.following, cyclic=False)
        wanted = sorted(set(alike) | set(next_ones))
        if mapper in POINTMAP_MAPPERS:
            assert predicts_pointmaps(matcher)
            poses = {n: known[photo.name] for n, photo in enumerate(photos) if known and photo.name in known}
            given = PointmapInput(kept, described, photos, wanted, poses, settings.memory // 2, settings.stereo)
            return _by_pointmaps(source, given, matcher, mapper, progress)
        assert matches_pixels(matcher)
        found, pixel = verified_pairs(
            described, photos, wanted, matcher, lambda done, total: progress("matching pairs", done, total)
        )
        wrong = contradicted({(pair.i, pair.j): pair.camera_j_T_camera_i[:3, :3] for pair in found})
        pairs = [pair for pair in found if (pair.i, pair.j) not in wrong]
        if mapper == "pycolmap":
            folder = Path(temporary)
            models = map_with_pycolmap(photos, pairs, source.folder, folder, lambda d, n: progress("mapping", d, n))
        else:
            models = grow_all(photos, pairs, pixel.tolist(), lambda done, total: progress("mapping", done, total))
    if not models:
        raise ReconstructionError(_no_model(photos, pairs))
    unregistered = dict(source.unusable) | _why_unregistered(photos, pairs, models)
    rejected = [(photos[i].name, photos[j].name) for i, j in sorted(wrong)]
    return Reconstruction(photos, models, unregistered, rejected)


def _signature(matcher: Matcher) -> str:
    """Of features and of matches, which the features' signature says nothing of."""
    return f"{matcher.signature} {getattr(matcher, 'subsample', '')} {getattr(matcher, 'min_confidence', '')}"


def _mapper(matcher: Matcher, wanted: str) -> str:
    """What places the images, checked."""
    if not matches_pixels(matcher):
        raise MatcherError(f"the matcher {matcher.name} does not match images without depth: use sift or mast3r")
    if wanted == "pycolmap" and not pycolmap_installed():
        raise MatcherError("the mapper pycolmap is not installed: pip install 'mast3r_ros[colmap]', or --mapper own")
    if wanted == "sparse" and not predicts_pointmaps(matcher):
        raise MatcherError(
            f"the mapper sparse needs pointmaps, which {matcher.name} has not: use mast3r, or --mapper own"
        )
    if wanted != "auto":
        return wanted
    if not predicts_pointmaps(matcher):
        return "own"
    return "sparse" if capabilities(matcher).metric else "global"


def _by_pointmaps(
    source: ImageSource, given: PointmapInput, matcher: PointmapMatcher, mapper: str, progress: Stages
) -> Reconstruction:
    photos = given.photos
    scene = reconstruct_pointmaps(given, matcher, mapper, progress)
    if not scene.models:
        raise ReconstructionError(
            f"none of the {len(photos)} images shows the same as another: photograph the place with more overlap "
            "(each part in at least three images), or in better light"
        )
    placed = {n for model in scene.models for n in model.images}
    unregistered = dict(source.unusable)
    for n, photo in enumerate(photos):
        if n not in placed:
            doubted = sum(n in pair for pair in scene.rejected)
            doubt = f" that does not contradict others ({doubted} such)" if doubted else ""
            unregistered[photo.name] = f"shows nothing that another image shows{doubt}"
    rejected = [(photos[i].name, photos[j].name) for i, j in scene.rejected]
    return Reconstruction(list(photos), scene.models, unregistered, rejected)


def normalised(model: Model) -> Model:
    """The model about its first camera, with a median depth of one: what stands in place of a scale nobody knows."""
    first = model.images[0]
    depths = np.concatenate([model.seen(n)[1] for n in model.images])
    s = 1 / float(np.median(depths)) if len(depths) else 1.0
    R = model.world_T_camera[first][:3, :3].T
    return model.moved(Similarity(s, R, -s * R @ model.world_T_camera[first][:3, 3]))


def _too_few(source: ImageSource, photos: list[Photo]) -> str:
    reasons = "; ".join(f"{name} {why}" for name, why in list(source.unusable.items())[:5])
    found = f"{source.folder}: {len(photos)} of {len(source.files)} images can be used"
    return f"{found}, at least 2 different ones are needed" + (f" ({reasons})" if reasons else "")


def _no_model(photos: list[Photo], pairs: list[VerifiedPair]) -> str:
    if not pairs:
        return (
            f"none of the {len(photos)} images shows the same as another: photograph the place with more overlap "
            "(each part in at least three images), or in better light"
        )
    turned = sum(pair.only_turned for pair in pairs)
    if turned > len(pairs) / 2:
        return (
            f"the camera turned on the spot: {turned} of {len(pairs)} matched pairs show no parallax, so no distance "
            "can be told; take a step to the side between images"
        )
    return (
        f"{len(pairs)} pairs of the {len(photos)} images match, and no three of them agree on cameras: take more "
        "images between them, and give --intrinsics where the camera is calibrated"
    )


def _why_unregistered(photos: list[Photo], pairs: list[VerifiedPair], models: list[Model]) -> dict[str, str]:
    registered = {n for model in models for n in model.images}
    groups = pair_graph.components(len(photos), [(pair.i, pair.j) for pair in pairs])
    why = {}
    for group in groups:
        lone = not registered & set(group)
        for n in sorted(set(group) - registered):
            mine = [pair for pair in pairs if n in (pair.i, pair.j)]
            if not mine:
                why[photos[n].name] = "shows nothing that another image shows"
            elif all(pair.only_turned for pair in mine):
                why[photos[n].name] = "was only turned against the images it matches: no parallax"
            elif lone:
                why[photos[n].name] = f"matches {len(group) - 1} others that could not be placed either"
            else:
                most = max(len(pair) for pair in mine)
                why[photos[n].name] = f"no pose agrees with its matches ({len(mine)} images, at most {most} matches)"
    return why
