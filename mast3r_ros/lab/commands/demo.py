"""`mast3r_ros demo`: from a recording to live poses, on generated data or a user's own, over real ROS 2."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mast3r_ros.cli.common import print_facts, print_table, progress, warn
from mast3r_ros.cli.options import DEFAULTS, MatcherOption, MatcherOptions
from mast3r_ros.errors import UserError

if TYPE_CHECKING:
    from mast3r_ros.lab.live.run import LiveRun
    from mast3r_ros.lab.runs.replay import ReplaySettings
    from mast3r_ros.lab.synthetic.recording import RecordingSettings
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

console = Console()

TRUTH_TOPIC = "/ground_truth"


@dataclass
class Steps:
    """Numbered headings, and how long each step took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, heading: str) -> Iterator[None]:
        """One step with its heading."""
        console.print(f"\n[bold cyan]{len(self.seconds) + 1}[/]  [bold]{heading}[/]")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        console.print(f"   [dim]{self.seconds[name]:.1f} s[/]")


def _say(text: str) -> None:
    console.print(f"   {text}", style="dim", markup=False, highlight=False, soft_wrap=True)


def demo(
    bag: Annotated[
        Path | None, typer.Option(help="Your own recording instead of a generated one; needs --map.")
    ] = None,
    map: Annotated[Path | None, typer.Option(help="Your own map, made by `mast3r_ros map build`; needs --bag.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything that is made.")] = Path(
        "demo_output"
    ),
    family: Annotated[str, typer.Option(help="Kind of room: living, office, kitchen, corridor, warehouse.")] = "office",
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another room and other drives.")] = 0,
    matcher: MatcherOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small images and short drives.")] = False,
    image_topic: Annotated[str | None, typer.Option(help="Your recording: colour images.")] = None,
    truth_topic: Annotated[
        str | None, typer.Option(help=f"Your recording: reference poses in the map ({TRUTH_TOPIC} where it exists).")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="Also write pictures for a README into this folder.")] = None,
) -> None:
    """A room, a map of it, and a live camera that is found in that map.

    Writes summary.json, report.html, result.mcap, recording.rrd (rerun recording.rrd) and trajectory.tum.
    """
    from mast3r_ros.lab.synthetic.recording import RecordingSettings

    if (bag is None) != (map is None):
        have, need = ("--bag", "--map") if map is None else ("--map", "--bag")
        raise typer.BadParameter(
            f"{have} needs {need} as well: a map is made with `mast3r_ros map build RECORDING -o MAP` from a recording "
            "with known poses, and the bag is another recording of the same place"
        )
    steps, own, matcher = Steps(), bag is not None, matcher or DEFAULTS.matching.matcher
    if bag is None or map is None:
        scale: dict[str, Any] = {"width": 320, "height": 240, "mapping_s": 30.0, "query_s": 8.0} if quick else {}
        settings = RecordingSettings(family=family, seed=seed, **scale)
        bag, map = _make_world(steps, output, settings, matcher)
    _play(steps, output, bag, map, matcher, image_topic, truth_topic, pictures, compare=not own)


def _make_world(steps: Steps, output: Path, settings: RecordingSettings, matcher: str) -> tuple[Path, Path]:
    """A generated room, its two recordings and its map. Returns the query recording and the map."""
    from mast3r_ros.lab.synthetic.recording import demo_world, record_mapping, record_query

    mapping, query, map_folder = output / "mapping.mcap", output / "query.mcap", output / "map"
    with steps.step("world", f"A room: {settings.family}, seed {settings.seed}"):
        world = demo_world(settings)
        x, y, z = world.size
        _say(f"{x:.1f} x {y:.1f} x {z:.1f} m, {len(set(world.names))} objects, ray-cast with exact truth")
    with steps.step("recording", "Two drives of a robot: one to map the room, one to be found in it"):
        for title, record, path in (("mapping", record_mapping, mapping), ("query", record_query, query)):
            with progress(f"   {title} drive") as show:
                record(world, path, settings, lambda done, total, show=show: show(done, total, ""))  # type: ignore[misc]
            _say(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    with steps.step("map", "A map, from the first drive alone"):
        _build_map(mapping, map_folder, matcher)
    return query, map_folder


def _build_map(recording: Path, folder: Path, matcher: str) -> None:
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.localization.map_noise import save_ready
    from mast3r_ros.mapping.build import build_map

    chosen = MatcherOptions(matcher).make()
    with progress("   reading frames") as show:
        keyframe_map, report = build_map(
            open_source(recording),
            matcher=chosen,
            source_name=recording.name,
            progress=lambda seen, kept: show(seen, None, f"{kept} keyframes"),
        )
    with progress("   holding the map against itself") as show:
        save_ready(keyframe_map, chosen, folder, lambda stage, done, total: show(done, total, stage))
    _say(f"{folder}: {report.kept} keyframes of {report.frames} frames")


def _play(
    steps: Steps,
    output: Path,
    bag: Path,
    map_folder: Path,
    matcher_name: str,
    image_topic: str | None,
    truth_topic: str | None,
    pictures: Path | None,
    compare: bool,
) -> None:
    """Play the recording through the live node and write what came of it."""
    from mast3r_ros.lab.live.output import write_live_output, write_pictures
    from mast3r_ros.lab.live.summary import Traffic
    from mast3r_ros.lab.runs.replay import ReplaySettings
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

    truth = truth_topic or (TRUTH_TOPIC if _has_topic(bag, TRUTH_TOPIC) else None)
    topics = ReplaySettings(image_topic=image_topic, truth_topic=truth)
    keyframe_map = KeyframeMap.load(map_folder)
    with steps.step("live", "Live: the relocalizer node and the bag player, over DDS, at real time"):
        run = _live(bag, map_folder, topics, matcher_name, output / "logs")
    if not any(record.accepted for record in run.records):
        raise UserError(
            f"nothing was localized: {len(run.records)} of {run.images_played} images were looked at. "
            f"Is {bag} a recording of the place in {map_folder}? {output / 'logs' / 'relocalizer.log'} has the details"
        )
    matcher = MatcherOptions(matcher_name).make()
    matchers = _side_by_side(steps, bag, keyframe_map, topics) if compare else {}
    with steps.step("report", "What came out"):
        summary = write_live_output(
            output,
            run.replay,
            Traffic(run.images_played, run.received, run.dropped),
            keyframe_map,
            matcher,
            bag,
            topics,
            title=f"Relocalization live: {bag.name}",
            stage_seconds=steps.seconds,
            matchers=matchers,
        )
        if pictures is not None:
            for path in write_pictures(pictures, run.replay, keyframe_map, matcher, bag):
                _say(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    _print_summary(summary, output)


def _side_by_side(
    steps: Steps, bag: Path, keyframe_map: KeyframeMap, topics: ReplaySettings
) -> dict[str, dict[str, Any]]:
    """The network of the package and sift on the same frames; nothing where the package has no network."""
    from mast3r_ros.lab.runs.side_by_side import side_by_side
    from mast3r_ros.network.shipped import shipped_checkpoint

    if shipped_checkpoint() is None:
        return {}
    with steps.step("matchers", "Side by side, offline: a small learned matcher and SIFT"):
        made = [MatcherOptions(name).make() for name in ("mast3r", "sift")]
        with progress("   localizing") as show:
            rows = side_by_side(
                bag, keyframe_map, made, topics, progress=lambda stage, done, total: show(done, total, stage)
            )
        print_table("", ("matcher", "localized", "wrong", "position", "rotation", "latency"), _lines(rows))
    return rows


def _lines(rows: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{row['frames_localized']} of {row['frames']}",
            "-" if row["wrong_accepted"] is None else str(row["wrong_accepted"]),
            f"{100 * row['median_translation_error_m']:.2f} cm" if row["frames_localized"] else "-",
            f"{row['median_rotation_error_deg']:.3f} deg" if row["frames_localized"] else "-",
            f"{row['latency_ms_p50']:.0f} ms",
        )
        for name, row in rows.items()
    ]


def _has_topic(bag: Path, topic: str) -> bool:
    from mast3r_ros.io.bags import open_bag

    with open_bag(bag) as reader:
        return topic in reader.topics


def _live(bag: Path, map_folder: Path, topics: ReplaySettings, matcher: str, logs: Path) -> LiveRun:
    """The live run with a table that changes with it."""
    try:
        from mast3r_ros.lab.live.run import LiveSettings, play_live
    except ImportError as error:
        raise UserError(
            f"ROS 2 is not available here ({error}): run make setup, or source your ROS 2 workspace"
        ) from error
    from rich.live import Live

    settings = LiveSettings(bag, map_folder, topics, parameters={"matcher": matcher}, logs=logs)
    if not console.is_terminal:
        run = play_live(settings)
        console.print(_table(run))
        return run
    with Live(console=console, refresh_per_second=8) as screen:
        return play_live(settings, lambda run: screen.update(_table(run)))


def _table(run: LiveRun) -> Table:
    """How the run stands."""
    import numpy as np

    records = run.records
    accepted = [record for record in records if record.accepted]
    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=True)
    table.add_row(
        "images", f"{len(records)} looked at, {run.dropped} dropped for newer ones, {run.images_played} in all"
    )
    rate = len(records) / run.seconds if run.seconds > 0.5 else 0.0
    table.add_row("accepted", f"[bold green]{len(accepted)}[/]  ({rate:.1f} per second)")
    for reason, count in Counter(record.reason for record in records if not record.accepted).most_common():
        table.add_row("rejected", f"[yellow]{count}[/]  {reason.replace('_', ' ')}")
    errors = np.array([record.error for record in accepted if np.isfinite(record.error[0])]).reshape(-1, 2)
    if len(errors):
        wrong = sum(record.wrong for record in accepted)
        (m, deg), (mm, mdeg) = errors[-1], np.median(errors, axis=0)
        table.add_row("error now", f"{100 * m:.2f} cm  {deg:.2f}°")
        table.add_row("error median", f"{100 * mm:.2f} cm  {mdeg:.2f}°")
        table.add_row("wrong poses", f"[bold {'red' if wrong else 'green'}]{wrong}[/]")
    latencies = [record.timings_ms["total"] for record in records]
    if latencies:
        p50, p95 = np.nanpercentile(latencies, [50, 95])
        table.add_row("latency", f"{p50:.0f} ms median, {p95:.0f} ms p95")
    return table


def _print_summary(summary: dict[str, Any], output: Path) -> None:
    """The figures that matter, and where the rest is."""
    import numpy as np

    facts = {
        "images": f"{summary['frames_played']} played, {summary['frames_taken']} looked at",
        "localized": f"{summary['frames_localized']} ({summary['localized_fraction']:.1%})",
        "rejected": ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in summary["rejected"].items()) or "none",
    }
    if np.isfinite(summary["median_translation_error_m"]):
        metres, degrees = summary["median_translation_error_m"], summary["median_rotation_error_deg"]
        facts["median error"] = f"{100 * metres:.2f} cm, {degrees:.3f} deg"
        facts["wrong poses accepted"] = str(summary["wrong_accepted"])
    facts["latency"] = f"{summary['latency_ms_p50']:.0f} ms median, {summary['latency_ms_p95']:.0f} ms p95"
    facts["report"] = str(output / "report.html")
    if (output / "recording.rrd").exists():
        facts["Rerun"] = f"rerun {output / 'recording.rrd'}"
    facts["RViz, Foxglove"] = str(output / "result.mcap")
    print_facts("Summary", facts)
    if summary["wrong_accepted"]:
        warn(f"{summary['wrong_accepted']} accepted poses were wrong: see the report")
