"""`mast3r_ros localize`: the poses of image files in a map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.cameras import CameraChoice
from mast3r_ros.cli.common import (
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    FeatureOption,
    JsonOption,
    KeyframesOption,
    MatcherOption,
    NetworkSizeOption,
    load_map,
    make_localizer,
    make_matcher,
    note,
    print_json,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from mast3r_ros.frames import Frame
    from mast3r_ros.lab.runs.localization import Record
    from mast3r_ros.localization import Localizer
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.base import Matcher


def localize(
    map: Annotated[Path, typer.Argument(help="Folder of the map; left out with --reference.", metavar="MAP")],
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.", metavar="IMAGE...")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="No map: poses relative to this one photo, in its camera's frame.")
    ] = None,
    reference_depth: Annotated[
        Path | None,
        typer.Option(help="Depth of that photo (16-bit PNG, mm): without it the network guesses the scale."),
    ] = None,
    matcher: MatcherOption = "auto",
    feature: FeatureOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    network_size: NetworkSizeOption = 0,
    keyframes: KeyframesOption = 5,
    alert_limit: Annotated[
        float,
        typer.Option(
            min=0, help="Error of the position you can bear (m); 0 takes what suits the scale, 0.25 in rooms."
        ),
    ] = 0.0,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="map|unknown|FILE",
            help="Calibration of the images: the map's own camera (default where the size fits), a ROS camera_info "
            "YAML file, or unknown: the focal length is estimated.",
        ),
    ] = None,
    fx: Annotated[float | None, typer.Option(min=1e-6, help="Intrinsics in pixels, all four.")] = None,
    fy: Annotated[float | None, typer.Option(min=1e-6)] = None,
    cx: Annotated[float | None, typer.Option()] = None,
    cy: Annotated[float | None, typer.Option()] = None,
    focal: Annotated[
        float | None, typer.Option(min=1e-6, help="Focal length in pixels; principal point in the middle.")
    ] = None,
    depth: Annotated[
        Path | None,
        typer.Option(
            help="Depth registered to the image (16-bit PNG, mm), or a folder with <image's stem>.png: "
            "one more check of the pose."
        ),
    ] = None,
    tum: Annotated[Path | None, typer.Option(help="Also write accepted poses as a TUM trajectory.")] = None,
    json: JsonOption = False,
) -> None:
    """Find the pose of each image in a map, or say why it cannot be found.

    Without a map, relative to one photo: mast3r_ros localize --reference photo.jpg query.jpg --checkpoint C

    With --json one object is printed per image, each on its own line. Stamps in the TUM file are the images'
    names where these are numbers of seconds, else their places in the list. Exit code 1 if no image could be read.
    """
    images = [*([] if reference is None else [map]), *(images or [])]
    if not images:
        raise typer.BadParameter("give at least one image after the map", param_hint="IMAGE...")
    chosen = make_matcher(matcher, feature, checkpoint, device, dtype, network_size)
    if reference is not None:
        keyframe_map = _map_of_photo(reference, reference_depth, chosen, (camera, (fx, fy, cx, cy), focal))
        chosen = _asking_a_photo(keyframe_map, chosen)
    else:
        keyframe_map = load_map(map)
    choice = CameraChoice(keyframe_map, camera, (fx, fy, cx, cy), focal)
    localizer = make_localizer(choice.keyframe_map, chosen, keyframes)
    localizer.settings = replace(localizer.settings, alert_limit_m=alert_limit)
    records = []
    with progress("localizing", len(images)) as show:
        for number, image in enumerate(images, start=1):
            record = _localize_file(localizer, image, choice, _depth_file(depth, image, len(images)))
            records.append(replace(record, stamp_ns=_stamp_ns(image, number - 1)))
            show(number, None, image.name)
            if json:
                _print_record(records[-1])
    if not json:
        _print_people(records)
    if tum is not None:
        from mast3r_ros.lab.runs.results import write_tum

        write_tum(tum, [(r.stamp_ns, r.map_T_camera) for r in records if r.accepted and r.map_T_camera is not None])
        note(f"trajectory: {tum}")
    if not any(record.timings_ms for record in records):  # only images that were read have timings
        raise typer.Exit(1)


def _localize_file(localizer: Localizer, image: Path, choice: CameraChoice, depth: Path | None) -> Record:
    """The record of one image; a file that cannot be read fails alone."""
    from mast3r_ros.errors import UserError
    from mast3r_ros.lab.runs.localization import Record
    from mast3r_ros.localization import Reason
    from mast3r_ros.localization.single_reference import calibrated

    try:
        frame = _read_frame(image, choice, depth)
        if len(localizer.map) == 1:  # one view says little about the query's focal length, its own pointmap more
            frame = calibrated(frame, localizer.matcher)
    except UserError as error:
        return Record(str(image), 0, False, Reason.UNUSABLE_IMAGE.value, str(error))
    return Record.of(str(image), 0, localizer.localize(frame))


def _map_of_photo(photo: Path, depth: Path | None, matcher: Matcher, calibration: tuple[Any, Any, Any]) -> KeyframeMap:
    """A map of nothing but the photo; what is guessed instead of known is told."""
    from mast3r_ros.localization.single_reference import reference_map
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.reference_surface import OWN_SCALE

    keyframe_map = reference_map(_read_frame(photo, CameraChoice(KeyframeMap(), *calibration), depth), matcher)
    if depth is None:
        note(OWN_SCALE)
    return keyframe_map


def _asking_a_photo(keyframe_map: KeyframeMap, matcher: Matcher) -> Matcher:
    from mast3r_ros.localization.single_reference import REFERENCE, photo_matcher

    return photo_matcher(matcher, keyframe_map.frame(REFERENCE))


def _read_frame(image: Path, choice: CameraChoice, depth: Path | None) -> Frame:
    from mast3r_ros.frames import Frame
    from mast3r_ros.io.datasets.base import read_depth, read_image

    pixels = read_image(image)
    camera = choice.of_image(pixels.shape[1], pixels.shape[0])
    return Frame(pixels, camera, depth=None if depth is None else read_depth(depth), name=str(image))


def _depth_file(depth: Path | None, image: Path, images: int) -> Path | None:
    if depth is None or not depth.is_dir():
        if depth is not None and images > 1:
            raise typer.BadParameter(
                f"--depth {depth} is one file for {images} images: give a folder with one for each"
            )
        return depth
    return depth / f"{image.stem}.png"


def _stamp_ns(image: Path, number: int) -> int:
    """Images of a trajectory are often named by their time in seconds."""
    seconds, _, fraction = image.stem.partition(".")
    if fraction.isdigit() and seconds.isdigit():
        return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
    return number * 10**9


def _print_record(record: Record) -> None:
    from mast3r_ros.lab.runs.results import record_dict

    print_json(record_dict(record), lines=True)


def _print_people(records: list[Record]) -> None:
    from mast3r_ros.lab.runs.results import pose_dict

    rows = []
    for record in records:
        pose = pose_dict(record.map_T_camera) if record.accepted else None
        if pose is None:
            rows.append((record.name, "no", "", "", f"{record.reason}: {record.detail}"))
            continue
        translation = " ".join(f"{v:8.3f}" for v in pose["translation"])
        rotation = " ".join(f"{v:7.4f}" for v in pose["rotation_xyzw"])
        sigma = 100 * record.evidence["position_sigma_m"]
        rows.append(
            (record.name, "yes", translation, rotation, f"{record.evidence['inliers']:.0f} inliers, +-{sigma:.1f} cm")
        )
    found = sum(record.accepted for record in records)
    title = f"{found} of {len(records)} images localized"
    print_table(title, ("image", "localized", "x y z (m)", "rotation x y z w", "evidence"), rows)
