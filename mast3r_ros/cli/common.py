"""What the sub-commands share: options with one meaning everywhere, tables, progress, opening maps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mast3r_ros.localization import Localizer
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.base import Matcher

DEBUG_VARIABLE = "MAST3R_ROS_DEBUG"

#: Everything but the result itself goes here.
messages = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, all else on standard error.")]
MatcherOption = Annotated[
    str, typer.Option("--matcher", help="mast3r, dust3r (needs --checkpoint), sift, or auto for the best of these.")
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Weights of mast3r or dust3r: .safetensors, or a Hugging Face folder (see mast3r_ros checkpoint). "
        "Without it mast3r is the small network of the package.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Where the network runs: auto, cpu or cuda.")]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="What the network computes in: auto, float32, bfloat16 or float16.")
]
NetworkSizeOption = Annotated[
    int, typer.Option("--network-size", min=0, help="Longer side of the network's image; 0 as it was trained.")
]
FeatureOption = Annotated[
    str | None, typer.Option("--feature", help="Local feature of the sift matcher: sift, or orb (faster, less robust).")
]
KeyframesOption = Annotated[
    int, typer.Option("--keyframes", "-k", min=1, max=200, help="Keyframes matched with every query.")
]


class Show(Protocol):
    """Tells a progress bar how far a job is: done, of how many (None: as told before), what to show behind it."""

    def __call__(self, done: int, of: int | None, info: str = "") -> None: ...


def note(text: str) -> None:
    """Tell a person something that is not a result."""
    messages.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Tell a person something they should know, though the job goes on."""
    messages.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any, *, lines: bool = False) -> None:
    """One JSON document on standard output; on a single line as part of JSON lines."""
    from mast3r_ros.lab.runs.results import to_json

    print(to_json(value, indent=None if lines else 2), flush=lines)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Names and values as a table on standard output."""
    print_table(title, (), [(name, str(value)) for name, value in facts.items()])


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output; numbers are right-aligned under a header."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=bool(columns))
    for number in range(len(columns) or max((len(row) for row in rows), default=0)):
        numeric = bool(columns) and number > 0 and all(_is_number(row[number]) for row in rows if len(row) > number)
        name = columns[number] if columns else ""
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", style="" if number else "bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # Piped into a file a table is as wide as it needs to be.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Show]:
    """A progress bar on standard error, only where that is a terminal."""
    if not messages.is_terminal:
        yield _nothing
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
    )
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(title, total=total, info="")

        def show(done: int, of: int | None, info: str = "") -> None:
            bar.update(task, completed=done, total=of or total, info=info)

        yield show


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for jobs of several stages; the function takes (what is being done, done, total)."""
    with progress("") as show:
        yield lambda stage, done, total: show(done, total, stage)


def make_matcher(
    name: str,
    feature: str | None = None,
    checkpoint: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    network_size: int = 0,
) -> Matcher:
    """The matcher by its options; those that it does not have are left out, but for checkpoint and feature.

    Raises:
        MatcherError: for a name or feature that does not exist, or options the matcher does not have.
        CheckpointError: for a checkpoint that cannot be used.
    """
    from mast3r_ros.matching.registry import create, matcher_options

    given = {"feature": feature, "checkpoint": checkpoint}
    options: dict[str, Any] = {option: value for option, value in given.items() if value is not None}
    network = matcher_options(name, {"device": device, "dtype": dtype, "size": network_size})
    return create(name, **options, **network)


def make_localizer(keyframe_map: KeyframeMap, matcher: Matcher, keyframes: int) -> Localizer:
    """A localizer on a map that is ready for the matcher."""
    from mast3r_ros.localization import Localizer, LocalizerSettings

    with progress("describing keyframes", len(keyframe_map)) as show:
        keyframe_map.prepare(matcher, lambda done, total: show(done, total, ""))
    return Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=keyframes))


def load_map(path: Path) -> KeyframeMap:
    """Read a map. Raises MapError where there is none, or it is damaged or newer."""
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

    return KeyframeMap.load(path)


def _nothing(done: int, of: int | None, info: str = "") -> None:
    """Progress that nobody watches."""


def _is_number(text: str) -> bool:
    try:
        float(text.split()[0].rstrip("%"))
    except (ValueError, IndexError):
        return text in ("", "-")
    return True
