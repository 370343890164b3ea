"""`mast3r_ros localize`: the poses of image files in a map."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mast3r_ros.cli.cameras import CalibrationOptions, CameraChoice
from mast3r_ros.cli.common import load_map, make_relocalizer, note, print_json, print_table, progress
from mast3r_ros.cli.options import (
    JsonOption,
    KeyframesOption,
    MatcherOptions,
    ParamsOption,
    chosen_settings,
    grouped,
    option,
)

if TYPE_CHECKING:
    from mast3r_ros.frames import Frame
    from mast3r_ros.localization import PoseEstimate
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.base import Matcher
    from mast3r_ros.pipeline import Relocalizer


@grouped
def localize(
    *,
    map: Annotated[Path, typer.Argument(help="Folder of the map; left out with --reference.", metavar="MAP")],
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.", metavar="IMAGE...")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="No map: poses relative to this one photo, in its camera's frame.")
    ] = None,
    reference_depth: Annotated[
        Path | None,
        typer.Option(help="Depth of that photo (16-bit PNG, mm): without it the network guesses the scale."),
    ] = None,
    matching: MatcherOptions,
    keyframes: KeyframesOption = None,
    alert_limit: Annotated[float | None, option("alert_limit_m", "--alert-limit")] = None,
    params: ParamsOption = None,
    calibration: CalibrationOptions,
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
    settings = chosen_settings(params, keyframes=keyframes, alert_limit_m=alert_limit)
    chosen = matching.make(settings)
    if reference is not None:
        keyframe_map = _map_of_photo(reference, reference_depth, chosen, calibration)
        chosen = _asking_a_photo(keyframe_map, chosen)
    else:
        keyframe_map = load_map(map)
    choice = CameraChoice(keyframe_map, calibration)
    relocalizer = make_relocalizer(choice.keyframe_map, chosen, settings)
    answers: list[tuple[str, PoseEstimate]] = []
    with progress("localizing", len(images)) as show:
        for number, image in enumerate(images, start=1):
            answer = _localize_file(relocalizer, image, choice, _depth_file(depth, image, images))
            answers.append((str(image), replace(answer, stamp_ns=_stamp_ns(image, number - 1))))
            show(number, None, image.name)
            if json:
                _print_answer(*answers[-1])
    if not json:
        _print_people(answers)
    if tum is not None:
        _write_trajectory(tum, answers)
    if not any(answer.timings_ms for _, answer in answers):  # only images that were read have timings
        raise typer.Exit(1)


def _write_trajectory(file: Path, answers: list[tuple[str, PoseEstimate]]) -> None:
    from mast3r_ros.io.documents import write_tum

    write_tum(file, [(a.stamp_ns, a.map_T_camera) for _, a in answers if a.localized and a.map_T_camera is not None])
    note(f"trajectory: {file}")


def _localize_file(relocalizer: Relocalizer, image: Path, choice: CameraChoice, depth: Path | None) -> PoseEstimate:
    """What became of one image; a file that cannot be read fails alone."""
    from mast3r_ros.errors import UserError
    from mast3r_ros.localization import PoseEstimate, Reason
    from mast3r_ros.localization.single_reference import calibrated

    try:
        frame = _read_frame(image, choice, depth)
        if len(relocalizer.map) == 1:  # one view says little about the query's focal length, its own pointmap more
            frame = calibrated(frame, relocalizer.matcher)
    except UserError as error:
        return PoseEstimate.rejected(Reason.UNUSABLE_IMAGE, str(error))
    return relocalizer.localize(frame)


def _map_of_photo(photo: Path, depth: Path | None, matcher: Matcher, calibration: CalibrationOptions) -> KeyframeMap:
    """A map of nothing but the photo; what is guessed instead of known is told."""
    from mast3r_ros.localization.single_reference import reference_map
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.reference_surface import OWN_SCALE

    keyframe_map = reference_map(_read_frame(photo, CameraChoice(KeyframeMap(), calibration), depth), matcher)
    if depth is None:
        note(OWN_SCALE)
    return keyframe_map


def _asking_a_photo(keyframe_map: KeyframeMap, matcher: Matcher) -> Matcher:
    from mast3r_ros.localization.single_reference import REFERENCE, photo_matcher

    return photo_matcher(matcher, keyframe_map.frame(REFERENCE))


def _read_frame(image: Path, choice: CameraChoice, depth: Path | None) -> Frame:
    from mast3r_ros.frames import Frame
    from mast3r_ros.io.datasets.base import read_depth

    pixels = choice.read_image(image)
    camera = choice.of_image(pixels.shape[1], pixels.shape[0])
    return Frame(pixels, camera, depth=None if depth is None else read_depth(depth), name=str(image))


def _depth_file(depth: Path | None, image: Path, images: list[Path]) -> Path | None:
    if depth is None or not depth.is_dir():
        if depth is not None and len(images) > 1:
            raise typer.BadParameter(
                f"--depth {depth} is one file for {len(images)} images: give a folder with one for each"
            )
        return depth
    from mast3r_ros.io.datasets.base import depth_file

    folders = [file.resolve().parent for file in images]
    inside = image.resolve().relative_to(os.path.commonpath(folders))
    alone = sum(file.stem == image.stem for file in images) == 1
    return depth_file(depth, inside, alone) or depth / f"{image.stem}.png"


def _stamp_ns(image: Path, number: int) -> int:
    """Images of a trajectory are often named by their time in seconds."""
    seconds, _, fraction = image.stem.partition(".")
    if fraction.isdigit() and seconds.isdigit():
        return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
    return number * 10**9


def _print_answer(image: str, answer: PoseEstimate) -> None:
    from mast3r_ros.io.documents import answer_dict

    document = answer_dict(
        image=image,
        stamp_ns=answer.stamp_ns,
        accepted=answer.localized,
        reason=answer.reason.value,
        detail=answer.detail,
        map_T_camera=answer.map_T_camera,
        covariance=answer.covariance,
        keyframes=answer.keyframes,
        confidence=answer.confidence,
        focal_px=answer.camera_focal_px,
        evidence=asdict(answer.evidence),
        timings_ms=answer.timings_ms,
        bounds=answer.bounds,
    )
    print_json(document, lines=True)


def _print_people(answers: list[tuple[str, PoseEstimate]]) -> None:
    from mast3r_ros.io.documents import pose_dict

    rows = []
    for image, answer in answers:
        pose = pose_dict(answer.map_T_camera) if answer.localized else None
        if pose is None:
            rows.append((image, "no", "", "", f"{answer.reason.value}: {answer.detail}"))
            continue
        translation = " ".join(f"{v:8.3f}" for v in pose["translation"])
        rotation = " ".join(f"{v:7.4f}" for v in pose["rotation_xyzw"])
        sigma = 100 * answer.evidence.position_sigma_m
        rows.append((image, "yes", translation, rotation, f"{answer.evidence.inliers} inliers, +-{sigma:.1f} cm"))
    found = sum(answer.localized for _, answer in answers)
    title = f"{found} of {len(answers)} images localized"
    print_table(title, ("image", "localized", "x y z (m)", "rotation x y z w", "evidence"), rows)
