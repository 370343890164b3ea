"""`mast3r_ros map`: check, prune, merge, align; added to the commands of `map`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import load_map, note, print_facts, print_json, print_table, progress, stages, warn
from mast3r_ros.cli.map import MapArgument, save
from mast3r_ros.cli.map import app as app
from mast3r_ros.cli.options import JsonOption, MatcherOptions, WorkersOption, grouped
from mast3r_ros.workers import Here, Workers

if TYPE_CHECKING:
    from mast3r_ros.geometry.similarity import Similarity
    from mast3r_ros.localization.keyframe_check import Spread
    from mast3r_ros.localization.placement import Placement
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the result; a map that is there is replaced in one step.")
]


@app.command()
@grouped
def check(
    *,
    map: MapArgument,
    matching: MatcherOptions,
    most: Annotated[int, typer.Option("--keyframes", min=0, help="Check this many, evenly chosen; 0: all.")] = 0,
    json: JsonOption = False,
) -> None:
    """Find keyframes whose pose disagrees with their neighbours', and those that are found elsewhere.

    Each is localized in the rest of the map. Nothing is changed; `map prune --drop ID` takes keyframes out.
    """
    from mast3r_ros.localization.keyframe_check import check_keyframes
    from mast3r_ros.mapping.consistency import check_consistency

    keyframe_map, chosen = load_map(map), matching.make()
    with progress("localizing keyframes", len(keyframe_map)) as show:
        report = check_keyframes(keyframe_map, chosen, most, show)
    consistency = check_consistency(keyframe_map)
    facts = {"map": str(map), **report.facts(), "doubts": consistency.doubts}
    if json:
        print_json(facts)
        return
    unit = "m" if report.metric else "units"
    print_facts(
        f"Map {map}",
        {
            "keyframes": f"{report.checked} checked, {report.found} found again",
            "off without itself": _spread(report.spread["itself"], unit),
            "and without its neighbours": _spread(report.spread["neighbours"], unit),
            "not found again": _counted(report.not_found),
            "poses and images": str(consistency),
        },
    )
    rows = [(odd, "pose disagrees") for odd in report.pose_disagrees]
    rows += [(odd, "found elsewhere" + (", looks alike" if odd.also_here else "")) for odd in report.found_elsewhere]
    if rows:
        table = [
            (odd.id, what, f"{odd.position:.3f}", f"{odd.rotation_deg:.1f}", ", ".join(odd.by)) for odd, what in rows
        ]
        print_table("Keyframes to look at", ("keyframe", "what", f"off ({unit})", "off (deg)", "found by"), table)
        note(f"take one out: mast3r_ros map prune {map} --drop {rows[0][0].id} -o OUT")


def _spread(spread: Spread, unit: str) -> str:
    return (
        f"{spread.median_position:.3f} {unit}, {spread.median_rotation_deg:.2f} deg (median of {spread.found}); "
        f"disagrees beyond {spread.limit_position:.3f} {unit} or {spread.limit_rotation_deg:.2f} deg"
    )


def _counted(reasons: dict[str, str]) -> str:
    counts = {reason: list(reasons.values()).count(reason) for reason in dict.fromkeys(reasons.values())}
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"


@app.command()
@grouped
def prune(
    *,
    map: MapArgument,
    output: OutputOption,
    matching: MatcherOptions,
    coverage: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Share of a keyframe's picture that others must show as well.")
    ] = 0.9,
    drop: Annotated[list[str] | None, typer.Option("--drop", help="Leave out this keyframe, and no others.")] = None,
    json: JsonOption = False,
) -> None:
    """Leave out keyframes whose every part others show as well.

    Each that is left out is localized in what is kept, and goes back where it is not found. The pictures decide, so
    that views by day and by night stay both.
    """
    from mast3r_ros.localization import prune as pruning

    keyframe_map, chosen = load_map(map), matching.make()
    if drop:
        report = pruning.drop(keyframe_map, drop)
    else:
        with stages() as show:
            report = pruning.find_redundant(keyframe_map, chosen, coverage, show)
    pruning.write_pruned(keyframe_map, report, output)
    doubts = save(load_map(output), chosen, output)
    facts = {
        "map": str(output),
        "keyframes": report.keyframes,
        "kept": report.kept,
        "dropped": report.dropped,
        "restored": report.restored,
        "doubts": doubts,
    }
    if json:
        print_json(facts)
        return
    text = {"dropped": len(report.dropped), "put back, as they were not found": len(report.restored)}
    print_facts(f"Map {output}", {"keyframes": f"{report.kept} of {report.keyframes}", **text})


@app.command()
@grouped
def merge(
    *,
    first: Annotated[Path, typer.Argument(help="Map that gives the frame.")],
    others: Annotated[list[Path], typer.Argument(help="Maps that are brought into it, one after the other.")],
    output: OutputOption,
    matching: MatcherOptions,
    prefix: Annotated[
        str,
        typer.Option(
            help="Goes before ids of a later map that an earlier one has, too (of the third again, and so on)."
        ),
    ] = "b_",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how they lie to each other: of two maps, or of each and FIRST.")
    ] = False,
    workers: WorkersOption = "1",
    json: JsonOption = False,
) -> None:
    """Make one map of several of the same place, and say what each later session adds.

    Keyframes of a session are looked for in what was merged before; most of them must agree on one place of the whole
    map. The result is in metres where one of the maps is.
    """
    from mast3r_ros.localization.merge import session_report, write_merged
    from mast3r_ros.workers import workers as several

    chosen, told = matching.make(), list[dict[str, Any]]()
    with several(workers) as by, TemporaryDirectory(prefix=".merging-", dir=_beside(output)) as folder:
        merged = load_map(first)
        for number, path in enumerate(others):
            session = load_map(path)
            placement = _placed(merged, session, chosen, by)
            facts: dict[str, Any] = {"alignment": placement.facts()}
            facts["second_session"] = session_report(merged, session, placement)
            if not json:
                _print_session(f"{path} in {first}", placement, facts["second_session"])
            if not dry_run:
                target = output if path is others[-1] else Path(folder) / str(number)
                facts["renamed"] = write_merged(merged, session, placement, target, prefix * (number + 1))
                merged = load_map(target)
            told.append(facts)
        result: dict[str, Any] = told[0] if len(told) == 1 else {"sessions": told}
        if not dry_run:
            result |= {"map": str(output), "keyframes": len(merged)}
            result["doubts"] = save(merged, chosen, output, by)
    if json:
        print_json(result)
    elif not dry_run:
        renamed = sum(facts["renamed"] for facts in told)
        note(f"{output}: {result['keyframes']} keyframes, {renamed} renamed to '{prefix}...'")


def _beside(output: Path) -> Path:
    """Where what is made on the way lies: on the same disk, where Ray's workers see it too."""
    folder = output.expanduser().resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _print_session(title: str, placement: Placement, session: dict[str, Any]) -> None:
    _print_placement(title, placement)
    names = {"seen_before": "seen before", "looks_different": "looks different now", "new_views": "new views"}
    told = {text: f"{len(session[name])} keyframes" for name, text in names.items()}
    if session["found_elsewhere"]:
        told["found elsewhere"] = f"{len(session['found_elsewhere'])} keyframes"
    if session["new_surface"] is not None:
        told["new surface"] = f"{session['new_surface']:.0%} of this session's"
    print_facts("What this session adds", told)


def _placed(a: KeyframeMap, b: KeyframeMap, matcher: Any, by: Workers = Here()) -> Placement:
    from mast3r_ros.localization.placement import SAMPLES, place

    with progress("looking for keyframes", min(SAMPLES, len(b))) as show:
        return place(a, b, matcher, show, by)


def _print_placement(title: str, placement: Placement) -> None:
    facts: dict[str, Any] = placement.facts()
    position, rotation = facts["position_residual"], facts["rotation_residual_deg"]
    low, high = facts["scale_interval"]
    print_facts(
        title,
        {
            "keyframes": f"{facts['tried']} looked for, {facts['found']} found, {facts['agreeing']} agree",
            "residuals": f"{position['median']:.3f} ({rotation['median']:.2f} deg) median, {position['p90']:.3f} "
            f"({rotation['p90']:.2f} deg) at 90 %, in units of the first",
            "scale": f"{facts['scale']:.4f} ({low:.4f} to {high:.4f} by the images)",
        },
    )
    wrong = [id for id, residual in facts["residuals"].items() if not residual["agrees"]]
    if wrong:
        warn(f"found elsewhere than the others say: {', '.join(wrong[:8])}{', ...' if len(wrong) > 8 else ''}")


@app.command()
@grouped
def align(
    *,
    map: MapArgument,
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            help="Another map, whose frame is taken, or a file of three or more places, one a line: 'KEYFRAME x y z' "
            "is where that keyframe's camera is in the other frame (metres), 'KEYFRAME:u:v x y z' what it shows at "
            "that pixel.",
        ),
    ],
    output: OutputOption,
    matching: MatcherOptions,
    wgs84: Annotated[
        bool,
        typer.Option(
            "--wgs84",
            help="The file is a georeference: its numbers are latitude, longitude (degrees) and height (m). The frame "
            "becomes east, north, up at the first place, which the map's history keeps.",
        ),
    ] = False,
    frame_id: Annotated[str, typer.Option(help="Another name of the map frame.")] = "",
    json: JsonOption = False,
) -> None:
    """Bring a map into another frame: another map's, or that of places whose coordinates are known.

    A map of unknown scale becomes metric by places in metres. One in metres keeps them, and is refused where the places
    have others.
    """
    from mast3r_ros.mapping.transformed import write_transformed

    keyframe_map = load_map(map)
    aligned = _to_map if to.is_dir() else _to_points
    similarity, event, facts, provenance = aligned(keyframe_map, to, matching, wgs84)
    write_transformed(map, output, similarity, f"aligned to {event}", provenance, frame_id)
    if json:
        print_json({"map": str(output), "scale": similarity.scale, **facts})
        return
    print(output)


_Aligned = tuple["Similarity", str, dict[str, Any], dict[str, str]]


def _to_map(keyframe_map: KeyframeMap, to: Path, matching: MatcherOptions, wgs84: bool) -> _Aligned:
    from mast3r_ros.errors import MapError
    from mast3r_ros.mapping.rescale import is_metric

    if wgs84:
        raise typer.BadParameter("is for a file of places, not for a map", param_hint="--wgs84")
    target = load_map(to)
    if is_metric(keyframe_map) and not is_metric(target):
        raise MapError(f"{to} has no metres and the map has: align {to} to the map instead")
    placement = _placed(target, keyframe_map, matching.make())
    _tell_placement(placement, keyframe_map, to)
    scale = {} if is_metric(keyframe_map) else {"scale": target.provenance.get("scale", f"that of {to}")}
    return placement.a_T_b, f"the map {to}", {"alignment": placement.facts()}, scale


def _tell_placement(placement: Placement, keyframe_map: KeyframeMap, to: Path) -> None:
    off = placement.fit.position[placement.fit.agrees]
    note(
        f"{len(placement.agreeing)} of {len(placement.tried)} keyframes agree where the map lies in {to}; residuals "
        f"{sorted(off)[len(off) // 2]:.3f} (median), {max(off):.3f} (largest)"
    )


def _to_points(keyframe_map: KeyframeMap, to: Path, matching: MatcherOptions, wgs84: bool) -> _Aligned:
    from mast3r_ros.mapping.reference_points import fit_points, read_points
    from mast3r_ros.mapping.rescale import is_metric

    points = read_points(to, keyframe_map, wgs84)
    fit = fit_points(points, keyframe_map)
    residuals = dict(zip(points.names, fit.residuals.tolist(), strict=True))
    for name, off in residuals.items():
        note(f"{name}: {off:.3f} m off")
    note(f"the places tell the scale to {2 * fit.scale_sigma:.1%}")
    origin = ""
    if points.origin is not None:
        latitude, longitude, height = points.origin
        origin = f", east north up at {latitude:.8f} {longitude:.8f} {height:.3f} (WGS84)"
    scale = {} if is_metric(keyframe_map) else {"scale": f"places of {to}, +-{2 * fit.scale_sigma:.1%}"}
    event = f"{len(points.names)} places of {to}{origin} (residuals up to {max(residuals.values()):.3f} m)"
    return fit.target_T_map, event, {"residuals": residuals, "scale_sigma": fit.scale_sigma}, scale
