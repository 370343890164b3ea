"""`mast3r_ros evaluate pairs`: relative poses of image pairs, from published lists or made from any recording."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, stages
from mast3r_ros.cli.options import JsonOption, MatcherOptions, grouped

if TYPE_CHECKING:
    from collections.abc import Callable

    from mast3r_ros.lab.datasets.image_pairs import PairList


@dataclass(frozen=True)
class PairOptions:
    """Which pairs are taken of a list, or made of a recording."""

    pairs: Annotated[int, typer.Option(min=1, help="At most so many: of a recording, or the first of a list.")] = 1500
    overlap: Annotated[
        tuple[float, float], typer.Option(help="Recording: share of the surface both views see, least and most.")
    ] = (0.4, 0.8)
    frames: Annotated[int, typer.Option(min=2, help="Recording: at most so many of its frames.")] = 150
    write_pairs: Annotated[
        Path | None, typer.Option(help="Recording: keep the list and its images in this folder, for other tools.")
    ] = None
    pose_topic: Annotated[str | None, typer.Option(help="Bag: poses from this topic instead of TF.")] = None

    def of_list(self, file: Path, images: Path) -> PairList:
        """The first pairs of a list, paths starting from a folder. Raises DatasetError."""
        from mast3r_ros.lab.datasets.image_pairs import PairList

        listed = PairList(file, images)
        listed.pairs = listed.pairs[: self.pairs]
        return listed

    def of_recording(self, source: Path, folder: Path, show: Callable[[str, int, int], None]) -> PairList:
        """Pairs of views of a recording that overlap, written to a folder. Raises DatasetError, BagError."""
        from mast3r_ros.io.datasets import open_source
        from mast3r_ros.lab.runs.overlapping_pairs import OverlapSettings, make_pairs

        options = {} if self.pose_topic is None else {"pose_topic": self.pose_topic}
        settings = OverlapSettings(self.pairs, *self.overlap, self.frames)
        return make_pairs(open_source(source, **options), folder, settings, show)


@grouped
def pairs(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            help="List with ground truth (SuperGlue's format: ScanNet-1500, MegaDepth-1500), or a recording to make "
            "pairs from: 7-Scenes, 12-Scenes, TUM RGB-D, COLMAP, rosbag, images with poses.",
            metavar="LIST|RECORDING",
        ),
    ],
    images: Annotated[Path | None, typer.Option(help="List: folder its paths start from; by default its own.")] = None,
    pose: Annotated[
        str,
        typer.Option(
            help="essential: rotation and direction from matched pixels, any matcher; metric: the second image "
            "localized against the first, a network only."
        ),
    ] = "essential",
    threshold: Annotated[
        float, typer.Option(min=0.1, help="essential: pixels a match may be off its epipolar line.")
    ] = 1.0,
    choice: PairOptions,
    matching: MatcherOptions,
    report: Annotated[Path | None, typer.Option(help="Folder for report.html, summary.json, records.jsonl.")] = None,
    json: JsonOption = False,
) -> None:
    """Relative pose of two images: AUC, RRA, RTA and mAA as published for ScanNet-1500 and MegaDepth-1500.

    Translations are compared by direction, unsigned; no map is needed, so sift runs too.
    """
    from mast3r_ros.lab.pages.pair_report import PairGallery, write_pair_run
    from mast3r_ros.lab.runs.pair_poses import make_finder
    from mast3r_ros.lab.runs.pairs import evaluate_pairs

    listed = _is_list(source)
    write_pairs = choice.write_pairs
    if listed and write_pairs is not None:
        raise typer.BadParameter(f"--write-pairs is for recordings, {source} is a list already")
    if not listed and images is not None:
        raise typer.BadParameter(f"--images belongs to a list of pairs, {source} is none")
    finder = make_finder(pose, matching.make(), threshold)
    with (
        stages() as show,
        TemporaryDirectory() if write_pairs is None else nullcontext(str(write_pairs)) as folder,
    ):
        if listed:
            chosen = choice.of_list(source, images or source.parent)
        else:
            chosen = choice.of_recording(source, Path(folder), show)
        gallery = PairGallery(lambda done: show("finding poses", done, len(chosen)))
        settings: dict[str, Any] = {"data": str(source), "pose": pose, "threshold_px": threshold}
        evaluation = evaluate_pairs(chosen, finder, settings=settings, watch=gallery.offer)
    if write_pairs is not None:
        note(f"list: {write_pairs / 'pairs.txt'}   images: {write_pairs / 'images'}")
    if report is not None:
        note(f"report: {write_pair_run(report, evaluation, gallery.pictures())}")
    summary = evaluation.summary()
    print_json(summary) if json else _print_people(summary)


def _is_list(source: Path) -> bool:
    from mast3r_ros.io.bags.reader import is_bag

    return source.is_file() and not is_bag(source)


def _print_people(summary: dict[str, Any]) -> None:
    def by_degrees(name: str) -> str:
        return "   ".join(
            f"{100 * value:.1f} at {degrees} deg ({100 * low:.1f} to {100 * high:.1f})"
            for (degrees, value), (low, high) in zip(
                summary[name].items(), summary[f"{name}_interval"].values(), strict=True
            )
        )

    rejected = ", ".join(f"{count} {reason}" for reason, count in summary["rejected"].items()) or "none"
    facts: dict[str, Any] = {
        "pairs": summary["queries"],
        "answered": f"{summary['answered']}, rejected: {rejected}",
        "wrong": f"{summary['wrong_accepted']}  (see docs/evaluation.md)",
        "AUC": by_degrees("auc"),
        "RRA": by_degrees("rra"),
        "RTA": by_degrees("rta"),
        "mAA(30)": f"{100 * summary['maa30']:.1f}",
        "median error": f"{summary['median_rotation_error_deg']:.2f} deg rotation, "
        f"{summary['median_direction_error_deg']:.2f} deg direction (unsigned)",
        "matches": f"{summary['matches']['p50']:.0f} median, {summary['inliers']['p50']:.0f} inliers",
        "latency": f"{summary['latency_ms']['p50']:.0f} ms median",
    }
    if summary["settings"]["metric"]:
        facts["median distance"] = f"{100 * summary['median_translation_error_m']:.1f} cm"
    print_facts(f"{summary['evaluation']}: %, with 95 % intervals", facts)
