"""`mast3r_ros predict` and `mast3r_ros match`: what a network says of two images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import print_facts, print_json, stages
from mast3r_ros.cli.options import (
    DEFAULTS,
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    FeatureOption,
    JsonOption,
    MatcherOption,
    MatcherOptions,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mast3r_ros.matching.base import PixelMatches
    from mast3r_ros.matching.learned import NetworkMatcher

#: Matchers whose pictures come from the reference path of `predict`; others match as they do everywhere.
NETWORKS = ("mast3r", "dust3r")

ImageArgument = Annotated[Path, typer.Argument(help="Image file; EXIF orientation is followed.")]
SizeOption = Annotated[
    int, typer.Option(min=0, max=2048, help="Longer side of the network image in pixels; 0: as it was trained.")
]


def predict(
    image1: ImageArgument,
    image2: Annotated[Path | None, typer.Argument(help="Second image; none with --mono.")] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="*.npz: all maps, matches, focal lengths and pose; *.ply: a cloud.")
    ],
    mono: Annotated[
        bool, typer.Option("--mono", help="Depth of one image: it is seen together with itself; also as *.png.")
    ] = False,
    checkpoint: CheckpointOption = None,
    size: SizeOption = 0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    subsample: Annotated[int, typer.Option(min=1, max=64, help="Spacing of the pixels that matching starts from.")] = 8,
    json: JsonOption = False,
) -> None:
    """Predict pointmaps, descriptors, matches, focal lengths and the relative pose of two images.

    With --dtype float32 --device cpu this is the reference path. Points of both views are in the first camera's
    frame; matches are pixels of the network's images, which are in the npz file too.
    """
    from mast3r_ros.matching.prediction import predict_pair

    if mono != (image2 is None):
        raise typer.BadParameter("--mono takes one image, and without it there are two")
    suffixes = (".npz", ".ply", ".png") if mono else (".npz", ".ply")
    if output.suffix not in suffixes:
        raise typer.BadParameter(f"--output {output} should end in {' or '.join(suffixes)}")
    if mono:
        _predict_depth(image1, output, _network_matcher(checkpoint, size, dtype, device, _name(checkpoint)), json)
        return
    assert image2 is not None
    with stages() as show:
        show("loading the network", 0, 3)
        matcher = _network_matcher(checkpoint, size, dtype, device, _name(checkpoint))
        views = [_prepared(path, matcher.size) for path in (image1, image2)]
        show("predicting", 1, 3)
        prediction = predict_pair(matcher.network, views[0], views[1], subsample)
        show("writing", 2, 3)
        if output.suffix == ".npz":
            prediction.save(output)
        else:
            from mast3r_ros.mapping.export import write_ply

            write_ply(output, *prediction.cloud())
    facts: dict[str, Any] = {
        "output": str(output),
        "size_1": [views[0].size[1], views[0].size[0]],
        "size_2": [views[1].size[1], views[1].size[0]],
        "focal_1": prediction.focal_1,
        "focal_2": prediction.focal_2,
        "matches": len(prediction.matches_xy_1),
        "pose_inliers": int(prediction.pose_inliers.sum()),
        "camera1_T_camera2": _pose(prediction.camera1_T_camera2) if prediction.posed else None,
        "dtype": str(matcher.dtype).removeprefix("torch."),
        "device": str(matcher.device),
    }
    if json:
        print_json(facts)
        return
    print_facts(f"{image1.name} and {image2.name}", _for_people(facts))


def _name(checkpoint: Path | None) -> str:
    """The checkpoint's own matcher, or the network of the package."""
    return "auto" if checkpoint else "mast3r"


def _predict_depth(image: Path, output: Path, matcher: NetworkMatcher, json: bool) -> None:
    """Monocular depth, written and told."""
    from mast3r_ros.io.codec.image_files import load_image
    from mast3r_ros.matching.mono_depth import predict_mono

    depth = predict_mono(matcher, load_image(image))
    depth.save(output)
    near, middle, far = depth.percentiles()
    facts: dict[str, Any] = {
        "output": str(output),
        "size": [depth.depth.shape[1], depth.depth.shape[0]],
        "focal": depth.focal,
        "depth_5": near,
        "depth_50": middle,
        "depth_95": far,
        "metric": matcher.metric,
    }
    print_json(facts) if json else print_facts(f"Depth of {image.name}", facts)


def match(
    image1: ImageArgument,
    image2: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write, e.g. matches.png.")],
    matcher: MatcherOption = None,
    feature: FeatureOption = None,
    checkpoint: CheckpointOption = None,
    size: SizeOption = 0,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Match two images and draw it: dots for all matches, lines for the surest of each region."""
    import cv2

    from mast3r_ros.errors import MatcherError
    from mast3r_ros.io.codec.image_files import load_image
    from mast3r_ros.matching.registry import best_matcher
    from mast3r_ros.pictures.two_images import draw_match_picture

    images = [load_image(path) for path in (image1, image2)]
    with stages() as show:
        show("matching", 0, 2)
        matcher = matcher or DEFAULTS.matching.matcher
        if matcher == "auto":
            matcher, _ = best_matcher(checkpoint or "")
        if matcher in NETWORKS:
            name, matches = _by_network(images, matcher, checkpoint, size, dtype, device)
        else:
            name, matches = _by_features(images, MatcherOptions(matcher, feature, None, device, dtype, size or None))
        show("drawing", 1, 2)
        picture = draw_match_picture(images[0], images[1], matches, f"{image1.name}  -  {image2.name}   ({name})")
        output.parent.mkdir(parents=True, exist_ok=True)
        if not _writable_suffix(output) or not cv2.imwrite(str(output), picture[..., ::-1]):
            raise MatcherError(f"{output} cannot be written as a picture: name a *.png or *.jpg in a folder of yours")
    facts = {
        "output": str(output),
        "matcher": name,
        "matches": len(matches),
        "epipolar_inliers": 0 if matches.inlier is None else int(matches.inlier.sum()),
        "median_confidence": _middle(matches.confidence),
    }
    print_json(facts) if json else print_facts(f"{image1.name} and {image2.name}", facts)


def _by_features(images: list[NDArray[np.uint8]], options: MatcherOptions) -> tuple[str, PixelMatches]:
    from mast3r_ros.matching.two_images import pixel_matches

    matcher = options.make()
    shown = options.feature or matcher.name if matcher.name == "sift" else matcher.name
    return shown, pixel_matches(matcher, images[0], images[1])


def _middle(confidence: NDArray[np.float32] | None) -> float | None:
    """The larger of the two values in the middle; None of nothing."""
    return None if confidence is None or not len(confidence) else float(sorted(confidence)[len(confidence) // 2])


def _by_network(
    images: list[NDArray[np.uint8]],
    name: str,
    checkpoint: Path | None,
    size: int,
    dtype: str | None,
    device: str | None,
) -> tuple[str, PixelMatches]:
    from mast3r_ros.matching.prediction import predict_pair
    from mast3r_ros.matching.two_images import network_matches
    from mast3r_ros.network.preprocessing import prepare

    matcher = _network_matcher(checkpoint, size, dtype, device, name)
    views = [prepare(image, matcher.size) for image in images]
    prediction = predict_pair(matcher.network, views[0], views[1])
    return matcher.name, network_matches(prediction, views[0], views[1])


def _network_matcher(
    checkpoint: Path | None, size: int, dtype: str | None, device: str | None, name: str
) -> NetworkMatcher:
    """The checkpoint's matcher, which knows its network's size, type and device."""
    from mast3r_ros.errors import MatcherError
    from mast3r_ros.matching.learned import NetworkMatcher

    matcher = MatcherOptions(name, None, checkpoint, device, dtype, size).make()
    if not isinstance(matcher, NetworkMatcher):
        raise MatcherError(f"matcher '{name}' has no network: use mast3r or dust3r")
    return matcher


def _prepared(path: Path, size: int) -> Any:
    from mast3r_ros.io.codec.image_files import load_image
    from mast3r_ros.network.preprocessing import prepare

    return prepare(load_image(path), size)


def _writable_suffix(path: Path) -> bool:
    return path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def _pose(camera1_T_camera2: NDArray[np.float64]) -> dict[str, list[float]] | None:
    from mast3r_ros.io.documents import pose_dict

    return pose_dict(camera1_T_camera2)


def _for_people(facts: dict[str, Any]) -> dict[str, Any]:
    """The same facts with units and fewer digits."""
    pose = facts["camera1_T_camera2"]
    if pose is None:
        words = "none: no pose explains the confident matches"
    else:
        translation = " ".join(f"{v:.4f}" for v in pose["translation"])
        words = f"{translation}, rotation xyzw {' '.join(f'{v:.4f}' for v in pose['rotation_xyzw'])}"
    return {
        "written": facts["output"],
        "network images": f"{'x'.join(map(str, facts['size_1']))} and {'x'.join(map(str, facts['size_2']))} pixels",
        "focal lengths": f"{facts['focal_1']:.1f} and {facts['focal_2']:.1f} px",
        "matches": f"{facts['matches']}, {facts['pose_inliers']} explained by the pose",
        "camera1_T_camera2": words,
        "computed in": f"{facts['dtype']} on {facts['device']}",
    }
