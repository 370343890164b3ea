"""`mast3r_ros benchmark`: how fast on this machine?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import load_map, note, print_facts, print_json, print_table, stages
from mast3r_ros.cli.options import (
    DEFAULTS,
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    MatcherOptions,
    NetworkSizeOption,
    grouped,
)
from mast3r_ros.lab.commands.benchmark_reconstruct import time_reconstruct
from mast3r_ros.lab.commands.options import DEFAULT_KEYFRAMES, KeyframesCount

if TYPE_CHECKING:
    from mast3r_ros.frames import Frame
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

app = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)

app.command("reconstruct")(time_reconstruct)

#: Of more keyframes than these no map is made: a million would be three million files.
LARGEST_REPEATED = 200_000

MapOption = Annotated[Path | None, typer.Option(help="Map to ask; by default a room is generated.")]
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="Queries: a data set or recording with poses. By default the map's own keyframes."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="JSON file, written row by row.")]
FramesOption = Annotated[int, typer.Option("--frames", "-n", min=1, help="Most queries to use.")]


@app.command("localize")
@grouped
def time_localization(
    matcher: MatcherOptions,
    keyframes: KeyframesCount = DEFAULT_KEYFRAMES,
    map: MapOption = None,
    images: ImagesOption = None,
    frames: FramesOption = 40,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all queries, after one to warm up.")] = 5,
    json: JsonOption = False,
) -> None:
    """Time queries by stage, beside a plain OpenCV baseline on the same features in the same run."""
    from mast3r_ros.lab.speed.benchmark import benchmark_localization

    chosen = matcher.make()
    with _workload(map, images, frames) as (keyframe_map, queries), stages() as show:
        figures = benchmark_localization(
            keyframe_map, chosen, queries, keyframes=keyframes, rounds=rounds, progress=show
        )
    if json:
        print_json(figures)
        return
    _print_comparison(figures)


@app.command("map")
@grouped
def time_large_map(
    matcher: MatcherOptions,
    keyframes: KeyframesCount = DEFAULT_KEYFRAMES,
    size: Annotated[int, typer.Option(min=1, help="Keyframes of the large map.")] = 5000,
    map: MapOption = None,
    images: ImagesOption = None,
    frames: FramesOption = 40,
    alone: Annotated[
        bool,
        typer.Option(
            "--alone",
            help="Retrieval alone, among vectors that nobody described, held against the exact search; always so of "
            f"more than {LARGEST_REPEATED:,} keyframes.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Time loading, asking and saving a large map, made by repeating a small one with moved poses."""
    from mast3r_ros.lab.speed.benchmark import benchmark_large_map

    if alone or size > LARGEST_REPEATED:
        _time_retrieval(size, frames, json)
        return
    chosen = matcher.make()
    with _workload(map, images, frames) as (keyframe_map, queries), stages() as show:
        figures = benchmark_large_map(keyframe_map, chosen, queries, size, keyframes=keyframes, progress=show)
    if json:
        print_json(figures)
        return
    print_facts(
        f"A map of {figures['map_keyframes']} keyframes, features {figures['features']}",
        {
            "building the index": f"{figures['build_index_s']:.1f} s, once",
            "saving one keyframe more": _spread(figures["save_one_more_ms"]),
            "load": f"{figures['load_s']:.2f} s",
            "first query": f"{figures['first_query_s']:.2f} s",
            "memory": f"{figures['memory_mib']:.0f} MiB more after {figures['queries']} queries",
            "retrieval": _spread(figures["retrieval_ms"]),
            "query": _spread(figures["query_ms"]),
            "machine": _machine(figures),
        },
    )


def _time_retrieval(size: int, frames: int, json: bool) -> None:
    from mast3r_ros.lab.speed.retrieval_benchmark import benchmark_retrieval

    with stages() as show:
        figures = benchmark_retrieval(size, frames, show)
    if json:
        print_json(figures)
        return
    print_facts(
        f"Retrieval among {size} keyframes",
        {
            "sorting into lists": f"{figures['build_index_s']:.1f} s, once",
            "load": f"{figures['load_s']:.2f} s",
            "memory": f"{figures['memory_mib']:.0f} MiB, mapped files included",
            "retrieval": _spread(figures["retrieval_ms"]),
            "of the processor": _spread(figures["retrieval_processor_ms"]),
            "found": f"{figures['recall']:.1%} of the 10 nearest, {figures['nearest_found']:.1%} of the nearest",
            "machine": _machine(figures),
        },
    )


@app.command("network")
def time_network(
    checkpoint: CheckpointOption = None,
    config: Annotated[
        str, typer.Option(help="Network without a checkpoint: vitl (as published), or small. Its weights are random.")
    ] = "vitl",
    keyframes: KeyframesCount = DEFAULT_KEYFRAMES,
    queries: Annotated[int, typer.Option(min=1, help="Queries for accuracy; the first is timed.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the fast path, after one to warm up.")] = 5,
    plain_pairs: Annotated[
        int, typer.Option(min=0, help="Pairs measured of the plain path, the others inferred; 0: all of them.")
    ] = 0,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the transformer blocks first.")] = False,
    json: JsonOption = False,
) -> None:
    """Time a MASt3R network by stage beside the plain path, with the deviation that the speed costs.

    Plain: both images of each pair encoded, one pair at a time, all heads, float32, matching as published.
    Fast: keyframes' tokens cached, the query encoded once, pairs decoded as one batch, only the heads needed.
    """
    from mast3r_ros.lab.speed.network_benchmark import NetworkBenchmark, benchmark_network

    dtype, device = dtype or DEFAULTS.matching.dtype, device or DEFAULTS.matching.device
    settings = NetworkBenchmark(
        checkpoint, config, keyframes, queries, rounds, min(plain_pairs, keyframes), dtype, device, compile
    )
    with stages() as show:
        figures = benchmark_network(settings, show)
    if json:
        print_json(figures)
        return
    _print_network(figures)


@app.command("gpu")
def time_gpu(
    config: Annotated[str, typer.Option(help="Network, with random weights: vitl (as published), or small.")] = "vitl",
    keyframes: Annotated[
        list[int] | None, typer.Option("--keyframes", "-k", min=1, max=100, help="K; give it again for several.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each row.")] = 15,
    seconds: Annotated[float, typer.Option(min=1, help="No further row is begun after so long.")] = 3600.0,
    compiled: Annotated[bool, typer.Option(help="A last row with compiled transformer blocks.")] = True,
    held: Annotated[
        int,
        typer.Option(min=0, help="A row of a map of so many keyframes in the host's memory, 1.5 MiB each; 0: none."),
    ] = 0,
    output: OutputOption = None,
    network_size: NetworkSizeOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Time a MASt3R network by stage for several K, with its CUDA graphs beside plain PyTorch, one line a figure.

    Every row says what its speed costs against float32. scripts/gpu_check.sh runs it with everything else that a GPU
    is needed for.
    """
    from mast3r_ros.lab.speed.gpu_table import GpuTable, gpu_table, lines

    dtype, device = dtype or DEFAULTS.matching.dtype, device or DEFAULTS.matching.device
    counts = tuple(keyframes or (1, 4, 8, 10))
    settings = GpuTable(config, counts, rounds, 3, network_size or 0, dtype, device, compiled, held, seconds)
    with stages() as show:
        gpu_table(settings, _row_by_row(lines, output), show)


@app.command("pose")
def time_pose(
    keyframes: KeyframesCount = 4,
    noise: Annotated[
        list[float] | None, typer.Option(min=0.0, max=50.0, help="Pixels of noise; give it again for several.")
    ] = None,
    matches: Annotated[int, typer.Option(min=10, max=100_000, help="Matches with each keyframe.")] = 3000,
    wrong: Annotated[float, typer.Option(min=0.0, max=0.95, help="Share of the matches that lie anywhere.")] = 0.3,
    queries: Annotated[int, typer.Option("--queries", "-n", min=1, help="Queries, each from another place.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is solved, after one to warm up.")] = 9,
    json: JsonOption = False,
) -> None:
    """Time the pose alone, in milliseconds of one core, beside PoseLib on all of the same matches."""
    from mast3r_ros.lab.speed.pose_benchmark import PoseBenchmark, benchmark_pose

    settings = PoseBenchmark(keyframes, tuple(noise or (1.0, 3.0, 6.0)), matches, wrong, queries, rounds)
    with stages() as show:
        figures = benchmark_pose(settings, show)
    if json:
        print_json(figures)
        return
    rows = [
        (
            f"{row['noise_px']:g} px",
            *(f"{row[name]['processor_ms']:.1f} ({row[name]['slowest_ms']:.1f})" for name in ("mast3r_ros", "poselib")),
            f"{row['speed_up']:.1f}x",
            *(
                f"{row[name]['position_mm']:.1f} mm {row[name]['rotation_deg']:.3f} deg"
                for name in ("mast3r_ros", "poselib")
            ),
        )
        for row in figures["rows"]
    ]
    columns = ("noise", "ms (slowest)", "PoseLib alone", "speed-up", "error", "its error")
    print_table(f"Pose from {keyframes} x {matches} matches, {wrong:.0%} of them wrong", columns, rows)
    note(_machine(figures))


@app.command("node")
def time_node(
    config: Annotated[str, typer.Option(help="Network, with random weights: vitl (as published), or small.")] = "vitl",
    keyframes: KeyframesCount = 4,
    rate: Annotated[list[float] | None, typer.Option(min=0.1, help="Images a second; give it again for more.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each rate, after 2 that warm up.")] = 8.0,
    output: OutputOption = None,
    network_size: NetworkSizeOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Send images to the real node over DDS: how many it answers a second, and how late."""
    from mast3r_ros.lab.live.rate import NodeRate, lines, node_rate

    dtype, device = dtype or DEFAULTS.matching.dtype, device or DEFAULTS.matching.device
    rates = tuple(rate or (30.0, 60.0))
    settings = NodeRate(config, keyframes, rates, seconds, network_size or 0, dtype, device)
    node_rate(settings, _row_by_row(lines, output))


def _row_by_row(
    lines: Callable[[dict[str, Any]], Iterator[str]], output: Path | None
) -> Callable[[dict[str, Any]], None]:
    """Prints each row as it comes, and writes all so far: whatever ends the command early, they are there."""
    from mast3r_ros.io.documents import to_json
    from mast3r_ros.lab.runs.environment import versions

    rows: list[dict[str, Any]] = []

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        for line in lines(row):
            print(line, flush=True)
        if output is not None:
            output.write_text(to_json({"rows": rows, "versions": versions()}, indent=2))

    return tell


def _print_network(figures: dict[str, Any]) -> None:
    plain, deviation = figures["plain"], figures["deviation"]
    rows = []
    for stage, milliseconds in [*figures["stages_ms"].items(), ("total", figures["total_ms"])]:
        other = plain["total_ms"] if stage == "total" else plain["stages_ms"][stage]
        rows.append((stage, f"{milliseconds:.0f}", f"{other:.0f}", f"{other / milliseconds:.1f}x"))
    rows.append(("peak memory (MiB)", f"{figures['peak_memory_mib']:.0f}", f"{plain['peak_memory_mib']:.0f}", ""))
    where = f"{figures['dtype']} on {figures['device']}"
    title = f"{figures['network']} {figures['image']}, K = {figures['keyframes']}, {where}"
    print_table(title, ("ms", "fast path", "plain path", "speed-up"), rows)
    if plain["pairs_measured"] < figures["keyframes"]:
        note(f"plain path: {plain['pairs_measured']} of {figures['keyframes']} pairs measured, the others inferred")
    poses, matches = deviation["pose_error"], deviation["match_error_px"]
    print_facts(
        "Deviation of the fast path from float32",
        {
            "points": f"{100 * deviation['points_relative_error']:.2f} % (median)",
            "descriptors": f"{deviation['descriptor_angle_deg']:.2f} deg (median)",
            "matches found by both": f"{100 * deviation['match_agreement']:.1f} %",
            "error of a match": f"{matches['fast']:.2f} px, float32 {matches['float32']:.2f} px "
            f"({100 * deviation['match_error_change']:+.1f} %)",
            "pose error": f"{_pose(poses['fast'])}, float32 {_pose(poses['float32'])}, {poses['queries']} queries",
        },
    )
    note(f"weights: {figures['weights']}; {_machine(figures)}")


def _pose(error: dict[str, Any]) -> str:
    if error["position_m"] is None:
        return "none found"
    return f"{100 * error['position_m']:.2f} cm {error['rotation_deg']:.3f} deg"


@app.command("match")
def measure_recall(
    size: Annotated[int, typer.Option(min=32, max=512, help="Side of the descriptor maps in pixels.")] = 128,
    subsample: Annotated[int, typer.Option(min=1, max=64, help="Spacing of the pixels that matching starts from.")] = 8,
    json: JsonOption = False,
) -> None:
    """Compare fast reciprocal matching with the exhaustive search, on smooth, noisy and repetitive textures."""
    from mast3r_ros.lab.speed.match_recall import measure_recall as measure

    figures = measure(size, subsample)
    if json:
        print_json(figures)
        return
    rows = [
        (
            row["texture"],
            str(row["exhaustive"]),
            str(row["fast"]),
            f"{100 * row['reciprocal']:.1f} %",
            f"{100 * row['regions_found']:.1f} %",
            f"{100 * row['correct']:.1f} %",
            f"{100 * row['correct_exhaustive']:.1f} %",
            f"{row['speed_up']:.1f}x",
        )
        for row in figures["textures"]
    ]
    columns = ("texture", "all", "fast", "reciprocal", "regions found", "correct", "correct of all", "speed-up")
    print_table(f"Reciprocal matches of {size}x{size} descriptors, started every {subsample} pixels", columns, rows)


@contextmanager
def _workload(map: Path | None, images: Path | None, count: int) -> Iterator[tuple[KeyframeMap, list[Frame]]]:
    """A map on disk and queries in memory."""
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.lab.speed.benchmark import first_frames, generated_room

    if map is not None:
        keyframe_map = load_map(map)
        if images is not None:
            queries = first_frames((posed.frame for posed in open_source(images, use_depth=False)), count)
        else:
            note("queries: the map's own keyframes")
            queries = first_frames((keyframe_map.frame(k.id) for k in keyframe_map.keyframes), count)
        yield keyframe_map, queries
        return
    if images is not None:
        raise typer.BadParameter("--images needs the --map that they are looked for in")
    note("no --map: rendering a room")
    with TemporaryDirectory(prefix="mast3r_ros_") as folder:
        keyframe_map, queries = generated_room(60, count)
        keyframe_map.save(Path(folder) / "map")
        yield keyframe_map, queries


def _print_comparison(figures: dict[str, Any]) -> None:
    ours, plain, ratio = figures["mast3r_ros"], figures.get("baseline"), figures["speed_up"]
    rows = []
    for stage, milliseconds in ours["stages_ms"].items():
        other = plain["stages_ms"].get(stage) if plain else None
        factor = f"{ratio[stage]:.1f}x" if stage in ratio else ""
        rows.append((stage, f"{milliseconds:.1f}", "" if other is None else f"{other:.1f}", factor))
    second = f"{plain['queries_per_second']:.1f}" if plain else ""
    rows.append(("queries per second", f"{ours['queries_per_second']:.1f}", second, ""))
    rows.append(("poses found", str(ours["poses_found"]), str(plain["poses_found"]) if plain else "", ""))
    title = (
        f"{figures['queries']} queries {figures['image']}, features {figures['features']}, "
        f"{figures['keyframes']} of {figures['map_keyframes']} keyframes, median of {figures['rounds']} rounds"
    )
    print_table(title, ("ms", "mast3r_ros", "baseline", "speed-up"), rows)
    note(f"{_machine(figures)}; peak memory {figures['peak_memory_mib']:.0f} MiB")


def _spread(values: dict[str, float]) -> str:
    return f"{values['p50']:.1f} ms median, {values['p95']:.1f} ms p95"


def _machine(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1min']}"
