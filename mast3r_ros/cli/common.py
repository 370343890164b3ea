"""What the sub-commands share: options with one meaning everywhere, tables, progress, opening maps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console

from mast3r_ros.settings import Settings
from mast3r_ros.tables import settings_of

if TYPE_CHECKING:
    from mast3r_ros.mapping.keyframe_map import KeyframeMap
    from mast3r_ros.matching.base import Matcher
    from mast3r_ros.pipeline import Relocalizer

DEBUG_VARIABLE = "MAST3R_ROS_DEBUG"

#: Everything but the result itself goes here.
messages = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, all else on standard error.")]


def option(name: str, *flags: str, **others: Any) -> Any:
    """The command line option of a setting: its sentence, range and default are those of the settings' tree.

    An option that is not given is None, and stands for what the parameter file or the default says.
    """
    entry = next(entry for entry in settings_of(Settings) if entry.name == name)
    spec = entry.spec
    choices = f" ({spec.allowed})" if spec.choices else ""
    default = f" [default: {entry.default}]" if entry.default not in ("", 0) else ""
    text = f"{spec.sentence}{choices}{default}"
    return typer.Option(*flags, min=spec.low, max=spec.high, help=text, show_default=False, **others)


MatcherOption = Annotated[str | None, option("matcher", "--matcher")]
CheckpointOption = Annotated[Path | None, option("checkpoint", "--checkpoint")]
DeviceOption = Annotated[str | None, option("device", "--device")]
DtypeOption = Annotated[str | None, option("dtype", "--dtype")]
NetworkSizeOption = Annotated[int | None, option("network_size", "--network-size")]
FeatureOption = Annotated[str | None, option("feature", "--feature")]
KeyframesOption = Annotated[int | None, option("keyframes", "--keyframes", "-k")]
#: The same where no parameter file is taken.
KeyframesCount = Annotated[
    int, typer.Option("--keyframes", "-k", min=1, max=200, help="Keyframes matched with every query.")
]
#: What holds where nothing else is given.
DEFAULTS = Settings()
DEFAULT_KEYFRAMES = DEFAULTS.localizer.keyframes
ParamsOption = Annotated[
    Path | None,
    typer.Option(
        "--params",
        help="Settings of this file, which the node takes as --params-file (mast3r_ros settings --write FILE makes "
        "one). Options that are given count more.",
    ),
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


def chosen_settings(params: Path | None = None, **given: Any) -> Settings:
    """The settings of a parameter file, or the defaults, with the options that were given (those that are not None).

    Raises:
        SettingsError: for a file that cannot be read, and for values that cannot be.
    """
    settings = Settings() if params is None else Settings.read(params)
    values = {name: str(v) if isinstance(v, Path) else v for name, v in given.items() if v is not None}
    return settings.changed(values) if values else settings


def make_matcher(
    name: str | None = None,
    feature: str | None = None,
    checkpoint: Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    network_size: int | None = None,
    settings: Settings = DEFAULTS,
) -> Matcher:
    """The matcher by its options, where they are given, and by the settings.

    Settings that the matcher does not have are left out, but for a checkpoint and a feature that were given.

    Raises:
        MatcherError: for a name or feature that does not exist, or options the matcher does not have.
        CheckpointError: for a checkpoint that cannot be used.
    """
    from mast3r_ros.matching.registry import create, matcher_options

    matching = settings.matching
    name = name or matching.matcher
    chosen = {"device": device, "dtype": dtype, "size": network_size}
    set_here = matching.options() | {option: value for option, value in chosen.items() if value is not None}
    given = {"feature": feature, "checkpoint": checkpoint}
    return create(
        name,
        **matcher_options(name, set_here) | {option: value for option, value in given.items() if value is not None},
    )


def make_matchers(
    names: Iterable[str],
    feature: str | None,
    checkpoint: Path | None,
    device: str | None,
    dtype: str | None,
    network_size: int | None,
) -> list[Matcher]:
    """Matchers to compare, each once, with those of the options that it has. Raises as :func:`make_matcher`."""
    return [
        make_matcher(
            name,
            feature if name in ("sift", "auto") else None,
            checkpoint if name != "sift" else None,
            *(device, dtype, network_size),
        )
        for name in dict.fromkeys(names)
    ]


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
    """Progress that nobody watches."""


def _is_number(text: str) -> bool:
    try:
        float(text.split()[0].rstrip("%"))
    except (ValueError, IndexError):
        return text in ("", "-")
    return True
