"""`mast3r_ros evaluate mapfree`: write a submission to the Map-free benchmark, and score one as the benchmark does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, stages, warn
from mast3r_ros.cli.options import JsonOption, MatcherOptions, grouped

if TYPE_CHECKING:
    from mast3r_ros.frames import Frame
    from mast3r_ros.lab.datasets.mapfree import MapFree
    from mast3r_ros.lab.runs.gallery import Picture
    from mast3r_ros.lab.runs.localization import Evaluation
    from mast3r_ros.lab.runs.record import Record
    from mast3r_ros.localization import PoseEstimate
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.base import Matcher


@grouped
def mapfree(
    *,
    dataset: Annotated[Path, typer.Argument(help="Folder with val/ and test/ in it, as distributed.")],
    submission: Annotated[
        Path,
        typer.Option(help="Zip that is scored if it exists; else the matcher runs and writes it first.", metavar="ZIP"),
    ],
    split: Annotated[
        str, typer.Option(help="val, or test, whose ground truth only the benchmark's server has.")
    ] = "val",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run the matcher though ZIP exists.")] = False,
    rejected: Annotated[
        bool,
        typer.Option(
            "--rejected", help="Write poses that verification rejected too, with confidence 0, below all others."
        ),
    ] = False,
    reference_depth: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the reference's depth as <scene>/seq0/frame_00000[.word].png (16-bit, mm); without it "
            "the scale is the network's own."
        ),
    ] = None,
    matching: MatcherOptions,
    report: Annotated[Path | None, typer.Option(help="Folder for report.html, summary.json and records.jsonl.")] = None,
    json: JsonOption = False,
) -> None:
    """Metric poses relative to one photo: the Map-free benchmark (Arnold et al., ECCV 2022).

    Every query of a scene is localized against the scene's one reference. The zip can be uploaded to the benchmark's
    server as it is.
    """
    from mast3r_ros.lab.datasets.mapfree import MapFree
    from mast3r_ros.lab.pages.mapfree_report import write_mapfree_run
    from mast3r_ros.lab.runs.mapfree_submission import write_submission

    if split not in ("val", "test"):
        raise typer.BadParameter(f"the benchmark evaluates val and test, not '{split}'", param_hint="--split")
    data = MapFree(dataset, split)
    settings: dict[str, Any] = {"data": str(dataset), "split": split, "submission": str(submission)}
    records: list[Record] | None = None
    pictures: list[Picture] = []
    if overwrite or not submission.exists():
        chosen = matching.make()
        by_scene, pictures = _run(data, chosen, reference_depth)
        write_submission(submission, by_scene, rejected)
        note(f"submission: {submission}")
        records = [record for scene in by_scene.values() for record in scene]
        depth = None if reference_depth is None else str(reference_depth)
        settings |= {"matcher": chosen.name, "features": chosen.signature, "depth": depth, "rejected": rejected}
    else:
        note(f"scoring {submission} as it is; --overwrite runs the matcher anew")
    evaluation = _scored(data, submission, records, settings)
    if report is not None:
        note(f"report: {write_mapfree_run(report, evaluation, pictures)}")
    summary = evaluation.summary()
    _warn_of(summary["complaints"])
    print_json(summary) if json else _print_people(summary)


def _scored(data: MapFree, submission: Path, records: list[Record] | None, settings: dict[str, Any]) -> Evaluation:
    """The benchmark's score of a submission where its truth is public, and the records of a run, if there was one."""
    from mast3r_ros.lab.pages.mapfree_report import benchmark_summary
    from mast3r_ros.lab.runs.localization import Evaluation
    from mast3r_ros.lab.runs.mapfree_score import score_submission
    from mast3r_ros.lab.runs.mapfree_submission import read_submission

    score = None
    if records is None or data.has_truth:
        score = score_submission(data, read_submission(submission))
        records = score.records if records is None else records
    else:
        note(f"the ground truth of split '{data.split}' is not public: upload the zip to the benchmark's server")
    return Evaluation(f"Map-free {data.split}", records, settings, benchmark_summary(score))


def _run(
    data: MapFree, matcher: Matcher, reference_depth: Path | None
) -> tuple[dict[str, list[Record]], list[Picture]]:
    """Records by scene, and pictures for a report."""
    from mast3r_ros.lab.runs.gallery import Gallery
    from mast3r_ros.lab.runs.mapfree import run_mapfree
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

    gallery = Gallery(KeyframeMap())

    def watch(keyframe_map: KeyframeMap, record: Record, frame: Frame, estimate: PoseEstimate) -> None:
        gallery.map = keyframe_map
        gallery.offer(record, frame, estimate)

    with stages() as show:
        return run_mapfree(data, matcher, reference_depth, show, watch), gallery.pictures()


def _warn_of(complaints: Sequence[str], most: int = 20) -> None:
    for complaint in complaints[:most]:
        warn(complaint)
    if len(complaints) > most:
        warn(f"... and {len(complaints) - most} more: see --json")


def _print_people(summary: dict[str, Any]) -> None:
    facts: dict[str, Any] = {
        "frames": summary["queries"],
        "answered": summary["answered"],
        "wrong accepted": f"{summary['wrong_accepted']}  (off by more than 25 cm or 10 deg)",
    }
    for name, figure in ((summary["metrics"] or {}) | (summary["metrics_at_45px"] or {})).items():
        low, high = summary["metrics_interval"][name]
        facts[name] = f"{figure:.4g}  ({low:.4g} to {high:.4g})"
    print_facts(f"{summary['evaluation']}: figures with 95 % intervals over scenes", facts)
