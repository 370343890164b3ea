"""Maps of other programs' models: COLMAP's, and hloc's, which are COLMAP's among hloc's own files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mast3r_ros.errors import DatasetError, MapError
from mast3r_ros.io.datasets.colmap import Colmap, find_model
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.records import id_of_name
from mast3r_ros.mapping.rescale import UNKNOWN_SCALE

#: Where hloc's reconstruction and triangulation leave their models, below the folder of outputs.
HLOC_MODELS = ("sfm*", "*/sfm*", "sfm*/models/*", "*")


def import_colmap(
    path: Path,
    images: Path | None = None,
    scale: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> KeyframeMap:
    """Every registered image of a COLMAP model as a keyframe, with the points that it observes as its depth.

    Args:
        path: folder of the model, or one above it.
        images: folder of the images; None looks beside the model.
        scale: metres for each unit of the model; None leaves it unknown, and the map says so.

    Raises:
        DatasetError: for a model or an image that is missing or malformed.
        MapError: for a scale that cannot be.
    """
    if scale is not None and not 0 < scale < float("inf"):
        raise MapError(f"a model cannot be scaled by {scale:g}")
    model = Colmap(path, images, scale or 1.0)
    made = KeyframeMap(source=str(path))
    made.provenance["scale"] = UNKNOWN_SCALE if scale is None else f"{scale:g} m for each unit of the model, as given"
    for index in range(len(model)):
        try:
            posed = model.read(index)
        except DatasetError as error:
            if images is None and "cannot be read" in str(error):
                raise DatasetError(f"{error}: name the folder of the images by --images") from error
            raise
        xy, depth = model.observed(index, posed.frame.width, posed.frame.height)
        frame = replace(posed.frame, depth=None, stamp_ns=index + 1)
        keyframe = made.add(replace(posed, frame=frame), id_of_name(frame.name, made.__contains__))
        if len(depth):
            made.set_points(keyframe.id, xy, depth)
        progress(index + 1, len(model))
    return made


def find_hloc_model(folder: Path) -> Path:
    """The model of an hloc output folder: the largest ``sfm_*`` in it.

    Raises:
        DatasetError: where there is none; it says what hloc writes.
    """
    for paths in ([folder], *(sorted(folder.glob(pattern)) for pattern in HLOC_MODELS)):
        models = [model for path in paths if path.is_dir() and (model := find_model(path))]
        if models:
            return max(models, key=lambda model: max(file.stat().st_size for file in model.glob("images.*")))
    raise DatasetError(
        f"{folder} has no model of hloc: expected sfm_*/ with cameras, images and points3D (.bin or .txt), as hloc's "
        "reconstruction.main and triangulation.main write it. Its .h5 files alone hold features and no poses"
    )
