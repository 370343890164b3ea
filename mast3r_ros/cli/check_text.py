"""What `bag check` and `map build --dry-run` print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mast3r_ros.cli.common import print_facts, print_json, warn

if TYPE_CHECKING:
    from mast3r_ros.io.datasets.check import Check

Facts = dict[str, Any]


def print_check(check: Check, path: Path, json: bool) -> None:
    """Facts as a table, TF as a tree, doubts as sentences."""
    if json:
        print_json({**check.facts, "tf_tree": check.tree.splitlines(), "doubts": check.doubts})
        return
    texts: dict[str, Callable[[Any], str]] = {
        "recording": lambda facts: f"ROS {facts['ros']}, {facts['duration_s']:.1f} s, {facts['topics']} topics",
        "source": lambda facts: f"{facts['layout']}, {facts['frames'] or '?'} frames ({facts['looked_at']} looked at)",
        "images": _images,
        "calibration": _calibration,
        "depth": _depth,
        "stamps": lambda facts: "\n".join(f"{name}: {_rate(rate)}" for name, rate in facts.items()),
        "tf": lambda facts: f"{' '.join(facts['topics']) or 'none'}\n{check.tree}".rstrip(),
        "poses": _poses,
    }
    print_facts(str(path), {name: texts[name](facts) for name, facts in check.facts.items()})
    for doubt in check.doubts:
        warn(doubt)
    if not check.doubts:
        print("no doubts")


def _images(facts: Facts) -> str:
    if "sizes" in facts:
        return ", ".join("x".join(map(str, size)) for size in facts["sizes"])
    size = "of unknown size" if facts["size"] is None else "x".join(map(str, facts["size"]))
    rectified = ", rectified" if facts["rectified"] else ""
    return f"{facts['topic']}: {facts['count']} images {size}, {facts['encoding']}{rectified}, frame '{facts['frame']}'"


def _calibration(facts: Facts | list[Facts] | None) -> str:
    if facts is None:
        return "unknown: such images make no map; queries are tried as the map's camera, then with any focal length"
    if isinstance(facts, list):
        return "\n".join(map(_camera, facts))
    frame = f", frame '{facts['frame']}'" if facts["frame"] else ""
    return f"{facts['source']}{frame}: {_camera(facts)}"


def _camera(facts: Facts) -> str:
    width, height = facts["size"]
    pixels = ", ".join(f"{name} {facts[name]:g}" for name in ("fx", "fy", "cx", "cy"))
    return f"{width}x{height}, {pixels}, {' '.join([facts['model'], *map(str, facts['D'])])}"


def _depth(facts: Facts | None) -> str:
    if facts is None:
        return "none"
    median = "measures nothing" if facts["median_m"] is None else f"median {facts['median_m']:.2f} m"
    if "frames" in facts:
        return f"in {facts['frames']} of the frames looked at, {facts['measured']:.0%} of the pixels, {median}"
    unit = f"{facts['encoding'] or 'unreadable'}, {facts['unit_m']:g} m per unit"
    return f"{facts['topic']}: {unit}, frame '{facts['frame']}', {median}; {facts['used']}"


def _rate(facts: Facts) -> str:
    if facts["rate_hz"] is None:
        return f"{facts['count']} messages"
    return f"{facts['count']} messages, {facts['rate_hz']:g} Hz, longest pause {facts['longest_pause_s']:g} s"


def _poses(facts: Facts | None) -> str:
    if facts is None:
        return "none"
    extent = "" if facts["extent_m"] is None else " x ".join(f"{side:.2f}" for side in facts["extent_m"]) + " m"
    if "from" not in facts:
        return f"positions over {extent}"
    return (
        f"{facts['from']} in '{facts['frame']}': {facts['images']} of {facts['of']} images, over {extent or 'nothing'}"
    )
