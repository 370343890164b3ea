"""What the sub-commands share: messages, tables, progress, opening maps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

if TYPE_CHECKING:
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.base import Matcher
    from mast3r_ros.pipeline import Relocalizer
    from mast3r_ros.settings import Settings

DEBUG_VARIABLE = "MAST3R_ROS_DEBUG"

#: Everything but the result itself goes here.
messages = Console(stderr=True)


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
    from mast3r_ros.io.documents import to_json

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


def make_relocalizer(keyframe_map: KeyframeMap, matcher: Matcher, settings: Settings) -> Relocalizer:
    """The pipeline on a map, which is made ready for the matcher with a progress bar."""
    from mast3r_ros.pipeline import Relocalizer

    with progress("describing keyframes", len(keyframe_map)) as show:
        return Relocalizer(keyframe_map, matcher, settings, lambda done, total: show(done, total, ""))


def load_map(path: Path) -> KeyframeMap:
    """Read a map. Raises MapError where there is none, or it is damaged or newer."""
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

    return KeyframeMap.load(path)


def _nothing(done: int, of: int | None, info: str = "") -> None:
    """Progress without a terminal to show it on."""


def _is_number(text: str) -> bool:
    try:
        float(text.split()[0].rstrip("%"))
    except (ValueError, IndexError):
        return text in ("", "-")
    return True
