"""`mast3r_ros evaluate worlds`: poses and matches in ray-cast rooms that no network was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, print_table, stages
from mast3r_ros.cli.options import JsonOption, grouped
from mast3r_ros.lab.commands.options import ComparedMatchers


@grouped
def worlds(
    *,
    compared: ComparedMatchers,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of pictures, over all overlaps in equal parts.")] = 500,
    rooms: Annotated[int, typer.Option(min=1, max=1000, help="Rooms they come from.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Any; each has rooms of its own, and none was ever trained on.")] = 0,
    no_depth: Annotated[
        bool, typer.Option("--no-depth", help="The reference is a photo: the network knows the scale. No sift.")
    ] = False,
    size: Annotated[
        tuple[int, int], typer.Option(help="Width and height of the pictures; by default twice the small network's.")
    ] = (384, 288),
    report: Annotated[Path | None, typer.Option(help="Folder for report.html, summary.json, records.jsonl.")] = None,
    json: JsonOption = False,
) -> None:
    """Localize pictures of unseen rooms against one reference each, by overlap and by viewpoint gap.

    Success counts all poses that were found; the gates' verdict is reported beside it (answered, accepted).
    """
    from mast3r_ros.lab.pages.report import write_run
    from mast3r_ros.lab.runs.gallery import Gallery
    from mast3r_ros.lab.runs.worlds import WorldsSettings, evaluate_worlds
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

    made = compared.make()
    settings = WorldsSettings(seed, rooms, pairs, not no_depth, *size)
    galleries = {one.name: Gallery(KeyframeMap()) for one in made}

    def offer(name: str, record: Any, frame: Any, estimate: Any, keyframe_map: KeyframeMap) -> None:
        if report is not None:
            galleries[name].map = keyframe_map
            galleries[name].offer(record, frame, estimate)

    with stages() as show:
        found = evaluate_worlds(
            made, settings, progress=lambda done, total: show("rooms and pairs", done, total), watch=offer
        )
    if report is not None:
        for name, evaluation in found.items():
            folder = report / name if len(found) > 1 else report
            note(f"report: {write_run(folder, evaluation, None, galleries[name].pictures())}")
    of_each = {name: evaluation.summary() for name, evaluation in found.items()}
    if json:
        first = next(iter(of_each.values()))
        print_json({**first, "matchers": of_each} if len(of_each) > 1 else first)
        return
    for name, summary in of_each.items():
        _print_people(name, summary)


def _print_people(name: str, summary: dict[str, Any]) -> None:
    columns = ("", "pairs", "success", "95 %", "rotation", "translation", "right matches")
    rows = []
    for title, unit, key in (("overlap", "", "by_overlap"), ("viewpoint gap", " deg", "by_viewpoint_gap")):
        rows += [(f"{title} {r['from']:g} to {r['to']:g}{unit}", *_cells(r)) for r in summary[key]]
    rows += [(title.replace("_", " "), *_cells(r)) for title, r in summary["slices"].items()]
    rows.append(("all", *_cells(summary)))
    print_table(f"{summary['evaluation']}: success within 5 deg and 25 cm, gates or not", columns, rows)
    accepted = summary["accepted"]
    facts = {
        "accepted by the gates": f"{summary['answered']} of {summary['queries']}, {summary['wrong_accepted']} wrong",
        "of these within 5 deg, 25 cm": f"{accepted['success_5deg_0.25m']:.1%}",
        "latency": f"{summary['latency_ms']['p50']:.0f} ms median",
    }
    print_facts(name, facts)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["success_5deg_0.25m_interval"]
    return (
        str(row["queries"]),
        f"{row['success_5deg_0.25m']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{row['median_rotation_error_deg']:.2f} deg",
        f"{100 * row['median_translation_error_m']:.1f} cm",
        f"{row['match_precision_3px']:.1%}",
    )
