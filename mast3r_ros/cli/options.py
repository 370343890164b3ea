"""Options with one meaning everywhere, alone and in groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from mast3r_ros.settings import Settings
from mast3r_ros.tables import settings_of

if TYPE_CHECKING:
    from mast3r_ros.matching.base import Matcher

#: What holds where nothing else is given.
DEFAULTS = Settings()


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


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, all else on standard error.")]
MatcherOption = Annotated[str | None, option("matcher", "--matcher")]
CheckpointOption = Annotated[Path | None, option("checkpoint", "--checkpoint")]
DeviceOption = Annotated[str | None, option("device", "--device")]
DtypeOption = Annotated[str | None, option("dtype", "--dtype")]
NetworkSizeOption = Annotated[int | None, option("network_size", "--network-size")]
CompileOption = Annotated[bool | None, option("compile_network", "--compile/--no-compile")]
FeatureOption = Annotated[str | None, option("feature", "--feature")]
KeyframesOption = Annotated[int | None, option("keyframes", "--keyframes", "-k")]
WorkersOption = Annotated[
    str,
    typer.Option(
        "--workers",
        help="Who does what needs no order: so many processes of this machine, ray://HOST:PORT, or ray for one here. "
        "The results are the same.",
    ),
]
ParamsOption = Annotated[
    Path | None,
    typer.Option(
        "--params",
        help="Settings of this file, which the node takes as --params-file (mast3r_ros settings --write FILE makes "
        "one). Options that are given count more.",
    ),
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters may be dataclasses: every field of one becomes an option, and they arrive together."""
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            parameters += _fields_as_parameters(parameter.annotation)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{entry.name: given.pop(entry.name) for entry in fields(group)})
        command(**given)

    seen_by_typer: Any = run
    seen_by_typer.__signature__ = inspect.Signature(parameters)
    seen_by_typer.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _fields_as_parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, kind, default=_default(f), annotation=hints[f.name]) for f in fields(group)]


def _default(entry: Field[Any]) -> Any:
    if entry.default_factory is not MISSING:
        return entry.default_factory()
    return inspect.Parameter.empty if entry.default is MISSING else entry.default


@dataclass(frozen=True)
class MatcherOptions:
    """Which matcher, and how it is made."""

    matcher: MatcherOption = None
    feature: FeatureOption = None
    checkpoint: CheckpointOption = None
    device: DeviceOption = None
    dtype: DtypeOption = None
    network_size: NetworkSizeOption = None
    compile_network: CompileOption = None

    def make(self, settings: Settings = DEFAULTS, **more: Any) -> Matcher:
        """The matcher by these options, where they are given, and by the settings and ``more`` options of matchers.

        What the matcher does not have is left out, but for a checkpoint and a feature that were given.

        Raises:
            MatcherError: for a name or feature that does not exist, or options the matcher does not have.
            CheckpointError: for a checkpoint that cannot be used.
        """
        from mast3r_ros.matching.registry import create, matcher_options

        name = self.matcher or settings.matching.matcher
        set_here = _given(device=self.device, dtype=self.dtype, size=self.network_size, compile=self.compile_network)
        options = matcher_options(name, settings.matching.options() | set_here | more)
        return create(name, **options | _given(feature=self.feature, checkpoint=self.checkpoint))


def chosen_settings(params: Path | None = None, **given: Any) -> Settings:
    """The settings of a parameter file, or the defaults, with the options that were given (those that are not None).

    Raises:
        SettingsError: for a file that cannot be read, and for values that cannot be.
    """
    settings = Settings() if params is None else Settings.read(params)
    values = {name: str(v) if isinstance(v, Path) else v for name, v in _given(**given).items()}
    return settings.changed(values) if values else settings


def _given(**options: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in options.items() if value is not None}
